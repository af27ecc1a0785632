"""Centre loss, with centres that learn at a pace of their own."""

from __future__ import annotations

import torch
from torch import nn


class CenterLoss(nn.Module):
    """Mean over the batch of the squared distance to the learned centre of the own class.

    L = mean_i ||f_i − c_{y_i}||². Source: Wen et al., "A Discriminative Feature Learning Approach
    for Deep Face Recognition", ECCV 2016, eq. 2 (which has a factor ½ and a sum).
    """

    def __init__(self, classes: int, features: int):
        super().__init__()
        self.centers = nn.Parameter(torch.randn(classes, features))

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """features (N, D) float, labels (N,) int in 0..classes-1 -> scalar."""
        return (features - self.centers[labels]).square().sum(1).mean()
