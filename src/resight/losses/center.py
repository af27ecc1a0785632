"""Centre loss, with centres that learn at a pace of their own."""

from __future__ import annotations

import torch
from torch import nn

from resight.losses.distance import lifted, zero


class CenterLoss(nn.Module):
    """Mean over the batch of the squared distance to the learned centre of the own class.

    L = mean_i ||f_i − c_{y_i}||², features not normalised. Source: Wen et al., "A Discriminative
    Feature Learning Approach for Deep Face Recognition", ECCV 2016, eq. 2 (which has a factor ½
    and a sum).
    """

    def __init__(self, classes: int, features: int):
        super().__init__()
        self.centers = nn.Parameter(torch.randn(classes, features))

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float, labels (B,) int in 0..classes-1 -> scalar.

        ref_*: a centre is a reference already; given, they raise ValueError.
        """
        if ref_embeddings is not None or ref_labels is not None:
            raise ValueError("CenterLoss compares with its own centres: no ref_embeddings")
        if len(labels) == 0:
            return zero(embeddings)
        return (lifted(embeddings) - self.centers[labels]).square().sum(1).mean()
