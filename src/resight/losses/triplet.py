"""Batch-hard triplet loss."""

from __future__ import annotations

import torch
from torch import nn

from resight.losses.distance import batch_hard, distances


class TripletLoss(nn.Module):
    """Each image as anchor: its farthest positive against its nearest negative.

    Plain (not squared) Euclidean distance, features not normalised. Ids of any number of images,
    in any order; an image without a positive is no anchor. The anchor itself is no positive.
    Source: Hermans et al. 2017, eq. 5; margin 0.5 as in CTL, section 3.1.
    """

    def __init__(self, margin: float = 0.5):
        super().__init__()
        self.margin = margin

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """features (N, D) float, labels (N,) int -> scalar."""
        same = labels[:, None] == labels[None, :]
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        return batch_hard(distances(features, features), same & ~itself, ~same, self.margin)
