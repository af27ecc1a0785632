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


class Whitening(nn.Module):
    """Unit length, then x -> W x + b with W (dims, features), b (dims,); not of unit length again.

    Starts as the identity on the first `dims` numbers; `resight.models.fitted` sets W and b.
    """

    def __init__(self, features: int, dims: int):
        super().__init__()
        self.linear = nn.Linear(features, dims)
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(dims, features))
            self.linear.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, features) -> (B, dims)."""
        out: torch.Tensor = self.linear(nn.functional.normalize(x, dim=1))
        return out
