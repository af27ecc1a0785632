"""The ResNet of ArcFace for faces of 112 x 112."""

from __future__ import annotations

import torch
from torch import nn

DEPTHS = {"iresnet50": (3, 4, 14, 3), "iresnet100": (3, 13, 30, 3)}
WIDTHS = (64, 128, 256, 512)
SIZE = (112, 112)
STRIDE = 16  # of the last map


class IBlock(nn.Module):
    """BN - conv 3x3 - BN - PReLU - conv 3x3 (stride) - BN, added to the shortcut, no more."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        total: torch.Tensor = self.bn3(self.conv2(branch)) + self.downsample(x)
        return total


class IResNet(nn.Module):
    """Images (B, 3, H, W) -> (B, 512): a map at a 16th of the size, flattened, one Linear layer.

    Source: Deng et al., "ArcFace", CVPR 2019, section 3.1; the head is its BN - FC - BN, without
    dropout. The parts are named as in insightface's published weights, the methods as in timm.
    Under average or GeM pooling the FC and the last BN aren't used.
    """

    output_fmt = "NCHW"

    def __init__(self, depths: tuple[int, ...], size: tuple[int, int] = SIZE):
        super().__init__()
        self.num_features = WIDTHS[-1]
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], depths[0])
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], depths[1])
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], depths[2])
        self.layer4 = _stage(WIDTHS[2], WIDTHS[3], depths[3])
        self.grid = (-(-size[0] // STRIDE), -(-size[1] // STRIDE))
        self.bn2 = nn.BatchNorm2d(WIDTHS[3])
        self.fc = nn.Linear(WIDTHS[3] * self.grid[0] * self.grid[1], self.num_features)
        self.features = nn.BatchNorm1d(self.num_features)
        self.features.weight.requires_grad_(False)  # the published one is 1, never trained
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> the last map (B, 512, H / 16, W / 16)."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        x = self.bn2(x)
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = True) -> torch.Tensor:
        """The last map -> (B, 512). `pre_logits` is timm's; there are no logits here."""
        expected = (self.grid[0] * STRIDE, self.grid[1] * STRIDE)
        assert x.shape[2:] == self.grid, f"this network takes {expected[0]} x {expected[1]} only"
        x = self.features(self.fc(x.flatten(1)))
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 512)."""
        return self.forward_head(self.forward_features(x))


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    rest = (IBlock(outputs, outputs, 1) for _ in range(depth - 1))
    return nn.Sequential(IBlock(inputs, outputs, 2), *rest)
