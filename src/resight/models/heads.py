"""What comes after the pooled feature."""

from __future__ import annotations

import torch
from torch import nn


class BNNeck(nn.BatchNorm1d):
    """BatchNorm between the metric losses and the classifier; its bias stays 0.

    Source: Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person
    Re-Identification", CVPRW 2019, section 3.3.
    """

    def __init__(self, features: int):
        super().__init__(features)
        self.bias.requires_grad_(False)


def classifier(features: int, classes: int) -> nn.Linear:
    """Linear without bias, N(0, 0.001)."""
    layer = nn.Linear(features, classes, bias=False)
    torch.nn.init.normal_(layer.weight, std=0.001)
    return layer
