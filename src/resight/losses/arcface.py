"""ArcFace: a classifier on angles, with a margin."""

from __future__ import annotations

import math

import torch
from torch import nn

from resight.losses.distance import lifted, zero
from resight.losses.pairs import cosines, no_references


class ArcFaceLoss(nn.Module):
    """Cross-entropy over scale · cos θ, with cos(θ + margin) for the own class.

    θ are the angles to the learned vectors of the classes. Where θ + margin passes π, cos θ −
    margin · sin(margin) stands for it, so that the loss goes on rising with θ.
    Source: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR
    2019, eq. 3; beyond π, and the weights' start from N(0, 0.01), as in its released code.
    """

    def __init__(self, classes: int, features: int, scale: float = 64.0, margin: float = 0.5):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, features) * 0.01)
        self.scale, self.margin = scale, margin

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float, labels (B,) int in 0..classes-1 -> scalar; margin in radians.

        References raise ValueError: the vectors of the classes are the references.
        """
        no_references("ArcFaceLoss", ref_embeddings, ref_labels)
        if len(labels) == 0:
            return zero(embeddings, self.weight)
        embeddings = lifted(embeddings)
        cosine = cosines(embeddings, self.weight.to(embeddings.dtype))
        labels = labels.long()
        own = cosine.gather(1, labels[:, None])
        # By the sine, not by an arc cosine: its slope stays finite where θ is 0.
        least = torch.finfo(own.dtype).eps
        sine = (1 - own.square()).clamp(min=least).sqrt()
        moved = own * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = own - self.margin * math.sin(self.margin)
        moved = torch.where(own > -math.cos(self.margin), moved, beyond)
        logits = self.scale * cosine.scatter(1, labels[:, None], moved)
        return nn.functional.cross_entropy(logits, labels)
