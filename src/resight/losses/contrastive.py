"""Contrastive loss on cosine similarity."""

from __future__ import annotations

import torch
from torch import nn

from resight.losses.distance import zero
from resight.losses.pairs import compared, cosines


class ContrastiveLoss(nn.Module):
    """1/B Σ_i [ Σ_{positives, s < pos_margin} (1 − s) + Σ_{negatives, s > margin} s ].

    s is the cosine similarity. Sums over pairs, not means: with references the value grows with
    their number. Every image counts, also one with negatives only.
    Source: Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020, and
    its released code, where pos_margin is 1 (less 1e-5).
    """

    def __init__(self, margin: float = 0.5, pos_margin: float = 1.0):
        super().__init__()
        self.margin, self.pos_margin = margin, pos_margin

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
        if not bool((positive | negative).any()):
            return zero(embeddings, ref)
        similarity = cosines(embeddings, ref)
        # Said in the negative, so that a NaN counts and is seen in the value.
        near = negative & ~(similarity <= self.margin)
        far = positive & ~(similarity >= self.pos_margin)
        # Rows first: sums of some thousand terms each keep their digits in float32.
        pulled = torch.where(far, 1 - similarity, 0).sum(1)
        pushed = torch.where(near, similarity, 0).sum(1)
        return (pulled + pushed).mean()
