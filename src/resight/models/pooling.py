"""From a feature map to a vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class AveragePool(nn.Module):
    """Global average: (B, C, H, W) -> (B, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


def grid_average(x: torch.Tensor, n: int) -> torch.Tensor:
    """The average of each cell of an n x n grid: (B, C, H, W) -> (B, C n n).

    Where objects are aligned (marks, signs, letters, crops) it says where on the object something
    is. A map with fewer than n cells a side repeats them.
    """
    if torch.onnx.is_in_onnx_export():  # which has cells of one size only
        down, across = (_cells(x.shape[axis], n).to(x.dtype) for axis in (2, 3))
        return (down @ x @ across.T).flatten(1)
    return nn.functional.adaptive_avg_pool2d(x, n).flatten(1)


def _cells(size: Any, n: int) -> torch.Tensor:
    """(n, size): each cell's average over a line, as torch cuts it: cell i is ⌊i s / n⌋ to
    ⌈(i + 1) s / n⌉."""
    length, cell = torch.as_tensor(size), torch.arange(n)[:, None]
    at = torch.arange(length)[None]  # type: ignore[call-overload]  # a trace counts with it
    first, end = (cell * length) // n, ((cell + 1) * length + n - 1) // n
    inside = ((at >= first) & (at < end)).float()
    out: torch.Tensor = inside / inside.sum(1, keepdim=True)
    return out


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
