"""Triplet losses: batch-hard, and semi-hard."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from resight.losses.distance import hardest_triplets, zero
from resight.losses.pairs import compared, cosines

Mining = Literal["hard", "semihard"]
Fallback = Literal["farthest", "nearest", "none"]


class TripletLoss(nn.Module):
    """[ d(anchor, positive) − d(anchor, negative) + margin ]_+ over triplets that `mining` picks.

    - "hard": for each anchor its farthest positive and its nearest negative; mean over anchors
      that have both. Plain Euclidean distance, embeddings not normalised. Margin 0.5 by default.
      Source: Hermans, Beyer, Leibe 2017, eq. 5; margin as in CTL, section 3.1.
    - "semihard": for each anchor and positive the nearest negative that is farther than the
      positive; mean over these pairs. Squared distance at unit length. Margin 0.1 by default.
      Source: Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, eq. 4. The paper does not say
      what happens when no negative is farther; `fallback` does: "farthest" takes the anchor's
      farthest negative, as TensorFlow Addons has it, "nearest" its hardest one, and "none" leaves
      the pair out.

    An image without a positive, or without a negative, is no anchor.
    """

    def __init__(
        self,
        margin: float | None = None,
        mining: Mining = "hard",
        fallback: Fallback = "farthest",
    ):
        super().__init__()
        if mining not in ("hard", "semihard"):
            raise ValueError(f"mining {mining!r} is none of hard, semihard")
        if fallback not in ("farthest", "nearest", "none"):
            raise ValueError(f"fallback {fallback!r} is none of farthest, nearest, none")
        self.margin = margin if margin is not None else (0.5 if mining == "hard" else 0.1)
        self.mining, self.fallback = mining, fallback

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
        if self.mining == "hard":
            return hardest_triplets(embeddings, ref, positive, negative, self.margin)
        rows = (positive.any(1) & negative.any(1)).nonzero().squeeze(1)
        if len(rows) == 0:
            return zero(embeddings, ref)
        distances = 2 - 2 * cosines(embeddings.index_select(0, rows), ref)
        losses = self._semihard(distances, positive[rows], negative[rows])
        return losses.mean() if len(losses) else zero(embeddings, ref)

    def _semihard(
        self, distances: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor
    ) -> torch.Tensor:
        """distances (A, R) with a positive and a negative in each row -> losses of the pairs."""
        # Each row's negatives from near to far; the first beyond a positive is its semi-hard one.
        with torch.no_grad():
            near, order = distances.masked_fill(~negative, torch.inf).sort(1)
            place = torch.searchsorted(near, distances.contiguous(), right=True)
            count = negative.sum(1, keepdim=True)
            beyond = place < count
            # Others stand at infinity behind the negatives; from there on the fallback holds.
            last = torch.zeros_like(count) if self.fallback == "nearest" else count - 1
            chosen = order.gather(1, torch.where(beyond, place, last))
        losses = (distances - distances.gather(1, chosen) + self.margin).clamp(min=0)
        # A NaN is never chosen, but its gradient would be NaN: the value must tell.
        broken = distances.isnan().any(1, keepdim=True)
        losses = losses.masked_fill(broken, torch.nan)
        if self.fallback == "none":
            positive = positive & (beyond | broken)
        return losses[positive]
