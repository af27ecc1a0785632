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
from resight.losses.pairs import unit

BLOCK = 1024  # vectors at once
Pairs = tuple[torch.Tensor, torch.Tensor]


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
    block: int = BLOCK,
) -> torch.Tensor:
    """embeddings (B, D) float, relation (B, B) of 1, 0, −1 -> scalar.

    The memory, which gets no gradient: views (c, D), rows of unit length, are negatives of all
    images but for the pairs `excluded`: image (E,) and column (E,) int64, a column being a row of
    the views laid end to end. vectors (U, D): `positives` and `negatives` are image (P,) and
    vector (P,) int64, each pair once. 0, with a gradient of 0, where no image has a positive.
    """
    if relation.shape != (len(embeddings), len(embeddings)):
        raise ValueError(f"{len(embeddings)} embeddings, but relation {tuple(relation.shape)}")
    embeddings = lifted(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        e = unit(embeddings)
        parts, signs = [e @ e.T], [relation.to(e.device)]
        if vectors is not None and len(vectors):
            parts.append(e @ vectors.to(e).T)
            sign = torch.zeros_like(parts[-1], dtype=torch.int8)
            for pairs, value in ((positives, 1), (negatives, -1)):
                if pairs is not None:
                    sign[pairs[0].to(e.device), pairs[1].to(e.device)] = value
            signs.append(sign)
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


class _Mass(torch.autograd.Function):
    """log Σ_j exp((s_ij − 1)/τ) over the views' columns but the excluded: (B, D) -> (B,)."""

    @staticmethod
    def forward(
        ctx: Any,
        e: torch.Tensor,
        views: list[torch.Tensor],
        excluded: Pairs | None,
        temperature: float,
        block: int,
    ) -> torch.Tensor:
        total, slope = e.new_zeros(len(e)), torch.zeros_like(e)
        image, column = (part.to(e.device) for part in excluded) if excluded else (None, None)
        start = 0
        for view in views:
            for at in range(0, len(view), block):
                vectors = view[at : at + block].to(e)
                mass = torch.exp((e @ vectors.T - 1) / temperature)
                if image is not None and column is not None:
                    here = (column >= start) & (column < start + len(vectors))
                    mass[image[here], column[here] - start] = 0
                total += mass.sum(1)
                slope.addmm_(mass, vectors)
                start += len(vectors)
        # The memory may be written to before backward: the gradient is made here.
        ctx.save_for_backward(slope / (temperature * total.clamp(min=1e-30))[:, None])
        return total.clamp(min=1e-30).log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient[:, None] * slope, None, None, None, None
