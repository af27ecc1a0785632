"""Low-rank updates of Linear layers, and the plain weights that they amount to."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W -> W + (alpha / r) B A, with A (r, inputs) and B (outputs, r); B starts at 0.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
    section 4.1.
    """

    def __init__(self, weight: torch.Tensor, rank: int, alpha: float):
        super().__init__()
        outputs, inputs = weight.shape
        self.A = nn.Parameter(weight.new_empty(rank, inputs))
        self.B = nn.Parameter(weight.new_zeros(outputs, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear's own weight

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """(outputs, inputs) -> (outputs, inputs)."""
        return weight + self.scale * (self.B @ self.A)


def add_low_rank(model: nn.Module, rank: int, alpha: float) -> int:
    """Put a low-rank update on the Linear layers of the model's blocks; how many there were.

    A block's are those of its attention and MLP. Left out are layers at the model's top level and
    in its head, which see one vector an image, and those too small for a rank below full.
    """
    found = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and "." in name
        and not name.startswith("head")
        and min(layer.weight.shape) > rank
    ]
    for layer in found:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, alpha))
    return len(found)


def plain_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """`state_dict` with every low-rank update merged into its weight: names, order and shapes are
    those of the model without updates."""
    adapted = {
        name: layer.weight.detach()
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight")
    }
    plain: dict[str, torch.Tensor] = {}
    for key, value in model.state_dict().items():
        owner, merged, _ = key.partition(".parametrizations.")
        if not merged:
            owner = key.rpartition(".")[0]
        if owner in adapted:  # once for its weight's three parts; a bias comes after the weight
            plain.setdefault(f"{owner}.weight", adapted[owner])
        if not merged:
            plain[key] = value
    return plain
