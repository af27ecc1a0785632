"""From a feature map to a vector."""

from __future__ import annotations

import torch
from torch import nn


class AveragePool(nn.Module):
    """Global average: (B, C, H, W) -> (B, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


class GeM(nn.Module):
    """Generalised mean: (mean x^p)^(1/p) over the map; (B, C, H, W) -> (B, C).

    p = 1 is the average, p → ∞ the maximum; p is learned, one for all channels.
    Source: Radenović, Tolias, Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
    TPAMI 2018, eq. 2.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Powers underflow in half precision, and overflow in any for large p: so of x / max x.
        x = x.float().clamp(min=self.eps)
        top = x.detach().amax(dim=(2, 3), keepdim=True)
        return (x / top).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p) * top[..., 0, 0]
