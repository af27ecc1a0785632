"""Instance-batch normalisation, for ResNet-50-IBN-A."""

from __future__ import annotations

import torch
from torch import nn


class IBN(nn.Module):
    """The first half of the channels InstanceNorm, the other half BatchNorm: (B, C, H, W).

    Source: Pan et al., "Two at Once: Enhancing Learning and Generalization Capacities via
    IBN-Net", ECCV 2018, section 3.2 (IBN-a). The parts are named as in the published weights.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.instance = channels // 2
        self.IN = nn.InstanceNorm2d(self.instance, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.instance)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        instance, batch = x[:, : self.instance], x[:, self.instance :]
        return torch.cat([self.IN(instance.contiguous()), self.BN(batch.contiguous())], dim=1)


def to_ibn_a(resnet: nn.Module) -> nn.Module:
    """Put IBN behind the first convolution of every block of stages 1 to 3 of a ResNet."""
    for stage in ("layer1", "layer2", "layer3"):
        for block in resnet.get_submodule(stage).children():
            old = block.bn1
            assert isinstance(old, nn.BatchNorm2d)
            block.bn1 = IBN(old.num_features)
    return resnet
