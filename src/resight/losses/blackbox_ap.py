"""Average precision through blackbox differentiation of the ranking."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from resight.losses.distance import zero
from resight.losses.pairs import compared, cosines


class BlackboxAPLoss(nn.Module):
    """1 − AP of the actual ranking by cosine similarity, mean over queries that have a positive.

    Before ranking, positives are lowered and negatives raised by half the margin. The gradient is
    no derivative (the loss is a step function) but the slope of an interpolation of it: with r the
    ranks divided by the number n of ranked references, g = ∂L/∂r (the ranks among the positives
    held fixed) and r' the ranks at scores + interpolation · g, it is (r' − r) / interpolation.
    Source: Rolínek et al., "Optimizing Rank-based Metrics with Blackbox Differentiation", CVPR
    2020; ranks divided by n as in its released code. Unlike there, the margin is not random, and g
    is that of this loss alone: a factor on the loss, such as a weight or the scale of mixed
    precision, scales the gradient and changes nothing else.

    Equal scores of one kind rank in the order of the references.
    """

    def __init__(self, interpolation: float = 4.0, margin: float = 0.02):
        super().__init__()
        if not interpolation > 0:
            raise ValueError(f"interpolation {interpolation}: it must be above 0")
        self.interpolation, self.margin = interpolation, margin

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float, labels (B,) int, references likewise (R, D), (R,) -> scalar."""
        embeddings, ref, positive, negative = compared(
            embeddings, labels, ref_embeddings, ref_labels
        )
        rows = positive.any(1).nonzero().squeeze(1)
        if len(rows) == 0:
            return zero(embeddings, ref)
        positive, negative = positive[rows], negative[rows]
        shift = (self.margin / 2) * (negative.float() - positive.float())
        scores = cosines(embeddings.index_select(0, rows), ref)
        scores = scores + shift.to(scores.dtype)
        out: torch.Tensor = _BlackboxAP.apply(
            scores.masked_fill(~(positive | negative), -torch.inf),  # the image itself: last
            positive,
            negative,
            self.interpolation,
        )
        return out


class _BlackboxAP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor,
        interpolation: float,
    ) -> torch.Tensor:
        order = scores.argsort(dim=1, descending=True, stable=True)
        ranks = _places(order, scores)
        hits = positive.gather(1, order).cumsum(1).to(scores.dtype)
        among = torch.empty_like(scores).scatter_(1, order, hits)
        # Per pair of a query and a positive: its share of the mean over positives and queries.
        share = positive / (positive.sum(1, keepdim=True) * len(scores)).to(scores.dtype)
        n = (positive | negative).sum(1, keepdim=True)
        slope = n * share * among / ranks.square()
        moved = scores + interpolation * slope
        ahead = _places(moved.argsort(dim=1, descending=True, stable=True), scores)
        ctx.save_for_backward((ahead - ranks) / (interpolation * n))
        # NaN has a rank like any other number: the value must tell.
        loss = 1 - (share * among / ranks).sum()
        return torch.where(scores.isnan().any(), torch.nan, loss)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None, None


def _places(order: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The place of each column in its row's order, from 1: (Q, R), of the type of `like`."""
    places = torch.arange(1, order.shape[1] + 1, device=order.device, dtype=like.dtype)
    return torch.empty_like(like).scatter_(1, order, places.expand_as(order))
