"""InsCLR's contrastive loss: over the batch, over the memory, and over lists of mined pairs.

    1/B Σ_i [ Σ_{positives} (1 − s) + Σ_{negatives, s > margin} s ],   s cosine similarity

in three parts that add up, each a mean over the B images of the batch. A batch of 64 against
100,000 vectors of 2048 dimensions is one large product; the memory's vectors are float16, and go
block by block through one float32 buffer that stays in the processor's cache. The sum is linear
in the vectors above the margin, so its gradient is worked out in the same go, and nothing of the
memory is looked at again in backward (it may have been written to meanwhile).
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
from resight.losses.pairs import cosines, unit

BLOCK, BLOCK_GPU = 512, 16384  # vectors at once


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
    excluded: tuple[torch.Tensor, torch.Tensor],
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
        block = block or _block(directions)
        pieces = [view[at : at + block] for view in views for at in range(0, len(view), block)]
        value, slope = _push(directions.detach(), pieces, excluded, margin)
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
    image, index, sign = image.long().cpu(), index.long().cpu(), sign.cpu()
    if not len(image) == len(index) == len(sign):
        raise ValueError(f"{len(image)} images, {len(index)} vectors and {len(sign)} signs")
    _inside(image, len(embeddings), "images")
    _inside(index, len(vectors), "vectors")
    embeddings = lifted(embeddings)
    if not bool(sign.any()):
        return zero(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        directions = unit(embeddings)
        block = block or _block(directions)
        pairs = (image, index, sign)
        value, slope = _listed(directions.detach(), vectors, pairs, (margin, pos_margin), block)
        return _known(directions, value, slope)


@torch.no_grad()
def _push(
    directions: torch.Tensor,
    pieces: list[torch.Tensor],
    excluded: tuple[torch.Tensor, torch.Tensor],
    margin: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ_i Σ_{s > margin} s over pieces (c, D), and its gradient (B, D) by directions (B, D)."""
    image, column = (part.long().cpu() for part in excluded)
    _inside(image, len(directions), "images")
    _inside(column, sum(map(len, pieces)), "columns")
    order = column.argsort()
    image, column = image[order], column[order]
    starts = torch.tensor([0, *map(len, pieces)]).cumsum(0)
    bounds = torch.searchsorted(column, starts).tolist()
    buffer = directions.new_empty(max(map(len, pieces)), directions.shape[1])
    sums, slope = [], torch.zeros_like(directions)
    for piece, start, first, last in zip(pieces, starts, bounds, bounds[1:], strict=False):
        vectors = _into(buffer, piece)
        s = directions @ vectors.T
        near = ~(s <= margin)
        out = image[first:last].to(s.device), (column[first:last] - start).to(s.device)
        near[out] = False
        sums.append(torch.where(near, s, 0).sum(1))
        _add(slope, near.to(s.dtype), vectors)
    return torch.stack(sums).sum(), slope


@torch.no_grad()
def _listed(
    directions: torch.Tensor,
    vectors: torch.Tensor,
    pairs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    margins: tuple[float, float],
    block: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum over listed pairs, and its gradient (B, D) by directions (B, D)."""
    image, index, sign = pairs
    count = len(directions)
    # Vectors in the order of the first image that asks for them: those of one tuple come together,
    # so that a block is compared with few images.
    asked = torch.full((len(vectors),), count).scatter_reduce(0, index, image, "amin")
    order = asked.argsort(stable=True)[: int((asked < count).sum())]
    place = torch.empty_like(asked)
    place[order] = torch.arange(len(order))
    column = place[index]
    by_column = column.argsort()
    image, column, sign = image[by_column], column[by_column], sign[by_column]
    starts = torch.arange(0, len(order) + block, block)
    bounds = torch.searchsorted(column, starts).tolist()
    buffer = directions.new_empty(min(block, len(order)), directions.shape[1])
    sums, slope = [], torch.zeros_like(directions)
    device = directions.device
    for start, first, last in zip(starts.tolist(), bounds, bounds[1:], strict=False):
        some, local = torch.unique(image[first:last], return_inverse=True)
        some, local = some.to(device), local.to(device)
        at = (local, (column[first:last] - start).to(device))
        kind = sign[first:last].to(device)
        chosen = order[start : start + block].to(vectors.device)
        here = _into(buffer, vectors.index_select(0, chosen))
        s = (directions[some] @ here.T)[at]
        far = (kind > 0) & ~(s >= margins[1])
        near = (kind < 0) & ~(s <= margins[0])
        sums.append((torch.where(far, 1 - s, 0) + torch.where(near, s, 0)).sum())
        weight = here.new_zeros(len(some), len(here))
        weight.index_put_(at, near.to(s.dtype) - far.to(s.dtype), accumulate=True)
        part = torch.zeros_like(directions[some])
        _add(part, weight, here)
        slope[some] += part
    return torch.stack(sums).sum(), slope


def _add(slope: torch.Tensor, weight: torch.Tensor, vectors: torch.Tensor) -> None:
    """slope (B, D) += weight (B, c) @ vectors (c, D), by pairs where few weights aren't zero."""
    image, column = weight.nonzero(as_tuple=True)
    if not len(image):
        return
    if 8 * len(image) > weight.numel():
        slope.addmm_(weight, vectors)
        return
    starts = torch.searchsorted(image, torch.arange(len(slope), device=image.device))
    weights = weight[image, column]
    slope += embedding_bag(column, vectors, starts, mode="sum", per_sample_weights=weights)


def _into(buffer: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (c, D) in the buffer's type and on its device; float16 crosses over as such."""
    here = buffer[: len(vectors)]
    return here.copy_(vectors.to(buffer.device))


def _block(directions: torch.Tensor) -> int:
    return BLOCK if directions.device.type == "cpu" else BLOCK_GPU


def _inside(numbers: torch.Tensor, count: int, what: str) -> None:
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < count:
        raise ValueError(f"{what} {int(numbers.min())} to {int(numbers.max())} of {count}")


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
