"""InsCLR's contrastive loss: over the batch, over the memory, and over lists of mined pairs.

    1/B Σ_i [ Σ_{positives} (1 − s) + Σ_{negatives, s > margin} s ],   s cosine similarity

in three parts that add up, each a mean over the B images of the batch. A batch of 64 against
100,000 vectors of 2048 dimensions is one large product, made block by block (mined_blocks.py). The
sum is linear in the vectors above the margin, so its gradient is worked out in the same go, and
the memory isn't looked at again in backward (it may have been written to meanwhile).
Source: Deng et al., "InsCLR", AAAI 2022, sec. 3.4; Wang et al., "Cross-Batch Memory for Embedding
Learning", CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from resight.losses.distance import lifted, zero
from resight.losses.mined_blocks import Pairs, add_block, by_block, inside, places, walk
from resight.losses.pairs import cosines, unit


def batch_contrastive(
    embeddings: torch.Tensor,
    relation: torch.Tensor,
    margin: float = 0.4,
    pos_margin: float = 1.0,
) -> torch.Tensor:
    """The batch's part: embeddings (B, D) float, relation (B, B) -> scalar.

    relation[i, j] is 1 where j is a positive of i, -1 where it is a negative, 0 where the pair
    doesn't count. A positive counts while s < pos_margin. 0, with a gradient of 0, without a pair.
    """
    if relation.shape != (len(embeddings), len(embeddings)):
        raise ValueError(f"{len(embeddings)} embeddings, but relation {tuple(relation.shape)}")
    embeddings = lifted(embeddings)
    if not bool(relation.any()):
        return zero(embeddings)
    s = cosines(embeddings, embeddings)
    # Said in the negative, so that a NaN counts and is seen in the value.
    pulled = torch.where((relation > 0) & ~(s >= pos_margin), 1 - s, 0).sum(1)
    pushed = torch.where((relation < 0) & ~(s <= margin), s, 0).sum(1)
    return (pulled + pushed).mean()


def memory_contrastive(
    embeddings: torch.Tensor,
    views: Sequence[torch.Tensor],
    excluded: Pairs,
    margin: float = 0.4,
    block: int | None = None,
) -> torch.Tensor:
    """The memory's part, all of it negatives: embeddings (B, D) float -> scalar.

    views: tensors (c, D) float16 or float, rows of unit length (or zero: never above a margin
    >= 0); on any device. excluded: image (E,) and column (E,) int64, the pairs that don't count,
    a column being a row of the views laid end to end. The views get no gradient. Beyond the
    inputs it takes memory for `block` vectors and similarities.
    """
    embeddings = lifted(embeddings)
    if not len(embeddings) or not sum(map(len, views)):
        return zero(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        directions = unit(embeddings)
        value, slope = _push(directions.detach(), views, excluded, margin, block)
        return _known(directions, value, slope)


def listed_contrastive(
    embeddings: torch.Tensor,
    image: torch.Tensor,
    vectors: torch.Tensor,
    index: torch.Tensor | None,
    sign: torch.Tensor | int,
    margin: float = 0.4,
    pos_margin: float = 1.0,
    block: int | None = None,
) -> torch.Tensor:
    """The part of listed pairs, mined positives and hard negatives of the memory -> scalar.

    Pair p is embeddings[image[p]], of (B, D) float, and vectors[index[p]], of (U, D) float16 or
    float, rows of unit length (index None: vectors[p]); sign[p] is 1 for a positive, -1 for a
    negative, 0 for neither. All of (P,), int; one sign may be for all. A pair that stands twice
    counts twice. The vectors get no gradient. Each is read once, however many pairs it is in.
    """
    index = torch.arange(len(image)) if index is None else index
    sign = torch.full((len(image),), sign) if isinstance(sign, int) else sign
    if not len(image) == len(index) == len(sign):
        raise ValueError(f"{len(image)} images, {len(index)} vectors and {len(sign)} signs")
    inside(image, len(embeddings), "images")
    inside(index, len(vectors), "vectors")
    embeddings = lifted(embeddings)
    if not bool(sign.any()):
        return zero(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        directions = unit(embeddings)
        pairs, margins = (image.long().cpu(), index.long().cpu(), sign), (margin, pos_margin)
        value, slope = _pull_and_push(directions.detach(), vectors, pairs, margins, block)
        return _known(directions, value, slope)


@torch.no_grad()
def _push(
    directions: torch.Tensor,
    views: Sequence[torch.Tensor],
    excluded: Pairs,
    margin: float,
    block: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ_i Σ_{s > margin} s over views (c, D), and its gradient (B, D) by directions (B, D)."""
    sums, slope = [], torch.zeros_like(directions)
    for vectors, out in walk(views, excluded, directions, block):
        s = vectors @ directions.T
        near = ~(s <= margin)
        near.view(-1)[out] = False
        if 8 * int(near.count_nonzero()) > near.numel():
            sums.append(torch.where(near, s, 0).sum())
            slope.addmm_(near.to(s.dtype).T, vectors)
            continue
        found = places(near)
        if len(found):  # few: by pairs
            sums.append(s.view(-1)[found].sum())
            _add(slope, found, vectors)
    return torch.stack([slope.new_zeros(()), *sums]).sum(), slope


@torch.no_grad()
def _pull_and_push(
    directions: torch.Tensor,
    vectors: torch.Tensor,
    pairs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    margins: tuple[float, float],
    block: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum over listed pairs, and its gradient (B, D) by directions (B, D)."""
    image, index, sign = pairs
    sums, slope = [], torch.zeros_like(directions)
    sign = sign.to(slope.device)
    for some, of_block, at, here in by_block(directions, vectors, image, index, block):
        s, kind = (here @ directions[some].T)[at], sign[of_block]
        far = (kind > 0) & ~(s >= margins[1])
        near = (kind < 0) & ~(s <= margins[0])
        sums.append((torch.where(far, 1 - s, 0) + torch.where(near, s, 0)).sum())
        add_block(slope, some, at, near.to(s.dtype) - far.to(s.dtype), here)
    return torch.stack(sums).sum(), slope


def _add(slope: torch.Tensor, found: torch.Tensor, vectors: torch.Tensor) -> None:
    """Add vectors (b, D) to slope (B, D) by the places `found` (n,) of a flattened (b, B).

    Only to the images that have some: all of slope is larger than a block's few vectors.
    """
    row = found // len(slope)
    image, order = (found - row * len(slope)).sort()
    some, counts = torch.unique(image, return_counts=True)
    slope[some] += embedding_bag(row[order], vectors, counts.cumsum(0) - counts, mode="sum")


def _known(directions: torch.Tensor, value: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """The mean over the images, as a function of directions (B, D) whose gradient is known."""
    count = len(directions)
    result: torch.Tensor = _Known.apply(directions, value / count, slope / count)
    return result


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, directions: torch.Tensor, value: torch.Tensor, slope: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return upstream * slope, None, None
