"""InfoNCE with several positives, over the batch, over the memory, and over lists of mined pairs.

    L_i = −1/|P_i| Σ_{p in P_i} log [ exp(s_ip/τ) / (exp(s_ip/τ) + Σ_{n in N_i} exp(s_in/τ)) ]

s cosine similarity, P_i the positives of image i and N_i its negatives, wherever they are; pairs
that are neither don't count. Mean over the images that have a positive. Where the contrastive loss
pulls each pair with the same force, here it is the order of positives and negatives that counts.
Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018;
with several positives as in Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, eq. 2,
but for the other positives in the denominator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from resight.losses.distance import lifted, zero
from resight.losses.mined_blocks import Pairs, listed, walk
from resight.losses.pairs import unit


def mined_infonce(
    embeddings: torch.Tensor,
    relation: torch.Tensor,
    temperature: float = 0.1,
    *,
    views: Sequence[torch.Tensor] = (),
    excluded: Pairs | None = None,
    vectors: torch.Tensor | None = None,
    positives: Pairs | None = None,
    negatives: Pairs | None = None,
    block: int | None = None,
) -> torch.Tensor:
    """embeddings (B, D) float, relation (B, B) of 1, 0, −1 -> scalar.

    The memory, which gets no gradient: views (c, D), rows of unit length, are negatives of all
    images but for the pairs `excluded`: image (E,) and column (E,) int64, a column being a row of
    the views laid end to end. vectors (U, D): `positives` and `negatives` are image (P,) and
    vector (P,) int64, each pair once; backward reads them again, so they must stay as they are. 0,
    with a gradient of 0, where no image has a positive.
    """
    if relation.shape != (len(embeddings), len(embeddings)):
        raise ValueError(f"{len(embeddings)} embeddings, but relation {tuple(relation.shape)}")
    embeddings = lifted(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        e = unit(embeddings)
        parts, signs = [e @ e.T], [relation.to(e.device)]
        if vectors is not None:
            found = _listed(e, vectors, positives, negatives, block)
            parts.append(found[0])
            signs.append(found[1])
        # From the largest possible value down, so that nothing overflows.
        logits, sign = (torch.cat(parts, 1) - 1) / temperature, torch.cat(signs, 1)
        near = sign > 0
        has = near.any(1)
        if not bool(has.any()):
            return zero(embeddings)
        pushed = torch.where(sign < 0, logits, -torch.inf)
        if sum(map(len, views)):
            far = _Mass.apply(e, list(views), excluded, temperature, block)
            pushed = torch.cat([pushed, far[:, None]], 1)
        # Never empty: a bottom that is below every real number's exponential.
        bottom = torch.logsumexp(torch.cat([pushed, torch.full_like(pushed[:, :1], -1e4)], 1), 1)
        each = torch.nn.functional.softplus(bottom[:, None] - logits)
        loss = torch.where(near, each, 0).sum(1) / near.sum(1).clamp(min=1)
        return loss[has].mean()


def _listed(
    e: torch.Tensor,
    vectors: torch.Tensor,
    positives: Pairs | None,
    negatives: Pairs | None,
    block: int | None,
) -> Pairs:
    """Each image's own listed pairs, side by side: similarities and signs (B, the most of any).

    The sign is 0 where an image has fewer.
    """
    none = torch.zeros(0, dtype=torch.int64)
    near, far = positives or (none, none), negatives or (none, none)
    image = torch.cat([near[0], far[0]]).long().cpu()
    index = torch.cat([near[1], far[1]]).long().cpu()
    sign = torch.ones(len(image), dtype=torch.int8)
    sign[len(near[0]) :] = -1
    similarity = listed(e, vectors, image, index, block)
    order = image.argsort(stable=True)
    counts = image.bincount(minlength=len(e))
    place = torch.empty_like(image)
    place[order] = torch.arange(len(image)) - (counts.cumsum(0) - counts)[image[order]]
    shape, at = (len(e), max(counts.tolist(), default=0)), (image.to(e.device), place.to(e.device))
    side_by_side = similarity.new_zeros(shape).index_put(at, similarity)
    signs = torch.zeros(shape, dtype=torch.int8, device=e.device)
    return side_by_side, signs.index_put(at, sign.to(e.device))


class _Mass(torch.autograd.Function):
    """log Σ_j exp((s_ij − 1)/τ) over the views' columns but the excluded: (B, D) -> (B,)."""

    @staticmethod
    def forward(
        ctx: Any,
        e: torch.Tensor,
        views: list[torch.Tensor],
        excluded: Pairs | None,
        temperature: float,
        block: int | None,
    ) -> torch.Tensor:
        total, slope = e.new_zeros(len(e)), torch.zeros_like(e)
        for vectors, out in walk(views, excluded, e, block):
            mass = (vectors @ e.T).sub_(1).div_(temperature).exp_()
            mass.view(-1)[out] = 0
            total += mass.sum(0)
            slope.addmm_(mass.T, vectors)
        # The memory may be written to before backward: the gradient is made here.
        ctx.save_for_backward(slope / (temperature * total.clamp(min=1e-30))[:, None])
        return total.clamp(min=1e-30).log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient[:, None] * slope, None, None, None, None
