"""A linear classifier with cross-entropy."""

from __future__ import annotations

import torch
from torch import nn

from resight.losses.distance import lifted, zero
from resight.losses.pairs import no_references


class ClassifierLoss(nn.Module):
    """Cross-entropy with label smoothing over a linear layer without bias, mean over images.

    Embeddings are not normalised. Weights start from N(0, 0.001), as in CTL's released code.
    Label smoothing: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, section 7.
    """

    def __init__(self, classes: int, features: int, label_smoothing: float = 0.1):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, features) * 0.001)
        self.label_smoothing = label_smoothing

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float, labels (B,) int in 0..classes-1 -> scalar.

        References raise ValueError: the classifier has weights instead.
        """
        no_references("ClassifierLoss", ref_embeddings, ref_labels)
        if len(labels) == 0:
            return zero(embeddings, self.weight)
        embeddings = lifted(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = embeddings @ self.weight.to(embeddings.dtype).T
        return nn.functional.cross_entropy(
            logits, labels.long(), label_smoothing=self.label_smoothing
        )
