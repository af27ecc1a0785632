"""Learning rates for Adam to start from, by family of backbone."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import nn

from resight.models.backbones import build_backbone

Family = Literal["convnet", "convnext", "transformer"]

# Common practice in fine-tuning, no published search: large pretrained transformers forget at the
# rates that convnets need, and what starts from nothing (updates, head) bears far higher ones.
CONVNET, CONVNEXT, TRANSFORMER, LORA, HEAD = 1e-4, 3e-5, 1e-5, 2e-4, 1e-3


def default_lr(
    backbone: str, tune: Literal["all", "lora", "head"], convnet: float = CONVNET
) -> tuple[float, str]:
    """A rate for Adam or AdamW to start from, and the reason in a few words.

    `convnet`: what the recipe's paper uses for its convnets (CTL 3.5e-4 or 1e-4, Smooth-AP 1e-5).

    Raises UserError when there is no such backbone.
    """
    if tune == "head":
        return HEAD, "only the head is trained"
    if tune == "lora":
        return LORA, "low-rank updates of a fixed backbone"
    kind = family(backbone)
    if kind == "convnet":
        return convnet, "for a convnet, all of it trained"
    if kind == "convnext":
        return min(CONVNEXT, convnet), "for a ConvNeXt or its like, all of it trained"
    return min(TRANSFORMER, convnet), "for a transformer, all of it trained"


@lru_cache
def family(backbone: str) -> Family:
    """Told from the architecture: does its weight lie in Linear layers, and does it attend?

    Raises UserError when there is no such backbone.
    """
    with torch.device("meta"):  # the structure alone, whatever its size
        model = build_backbone(backbone)
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    if 2 * linear < sum(p.numel() for p in model.parameters()):
        return "convnet"
    kinds = {type(m).__name__.lower() for m in model.modules()}
    attends = any("attention" in kind or "attn" in kind for kind in kinds)
    return "transformer" if attends else "convnext"
