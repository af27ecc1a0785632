"""A network's maps at its depths, by timm's own `forward_intermediates`, for any backbone.

A depth is a number from 0: the intermediate maps in timm's order (of EfficientNets and their like
the output of every block), then the network's last features, where these are another map than the
last intermediate. What instances differ by (marks, texture, print) is there in the middle of a
network trained to tell classes, and mostly gone at its end.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from resight.errors import UserError
from resight.models.pooling import grid_average

MOST = 8  # depths that are joined by default
_FIRST_STRIDE = 4  # finer maps are left out by default: pixels rather than features


@dataclass(frozen=True)
class Depth:
    """A map of a network: its number, channels, cells (height, width), and stride in pixels.

    `token`: a class token comes with it. `own`: the network's last features, which are no
    intermediate map of timm's.
    """

    number: int
    channels: int
    cells: tuple[int, int]
    stride: int
    token: bool = False
    own: bool = False


@dataclass(frozen=True)
class Part:
    """What one depth gives to the joined vector: its map, averaged in `grid` x `grid` cells."""

    depth: Depth
    grid: int = 1

    @property
    def width(self) -> int:
        """Numbers of it in the joined vector."""
        cells: int = self.grid**2 if min(self.depth.cells) >= self.grid else 1
        return self.depth.channels * (cells + (self.depth.token and cells == 1))


def depths_of(backbone: nn.Module, size: tuple[int, int]) -> list[Depth]:
    """All depths of a backbone at an input size (height, width), from the first to the last.

    Raises UserError when the network has no intermediate maps.
    """
    backbone.eval()
    place = next(backbone.parameters()).device
    with torch.no_grad():
        last, maps = _run(backbone, torch.zeros(1, 3, *size, device=place), None, last=True)
    found = [_depth(k, one, size, token=token is not None) for k, (one, token) in enumerate(maps)]
    own = last.ndim == 4 and last.shape[1] == getattr(backbone, "num_features", None)
    if own and last.shape[1] != found[-1].channels:
        found.append(_depth(len(found), last, size, own=True))
    return found


def _depth(
    number: int, one: torch.Tensor, size: tuple[int, int], *, token: bool = False, own: bool = False
) -> Depth:
    height, width = one.shape[2:]
    return Depth(number, one.shape[1], (height, width), max(1, round(size[0] / height)), token, own)


def usual_depths(found: Sequence[Depth], *, leave_out: int | None = None) -> tuple[int, ...]:
    """All depths but the last `leave_out` (None: a quarter), at most `MOST`, evenly spread.

    The last maps were made for classes and are the worst at telling instances apart: without them
    retrieval is better or equal on five sets of five, with labels and without (docs/embedder.md).
    """
    chosen = [one.number for one in found if one.stride >= _FIRST_STRIDE] or [found[-1].number]
    leave_out = max(1, round(len(chosen) / 4)) if leave_out is None else leave_out
    chosen = chosen[: max(1, len(chosen) - leave_out)]
    if len(chosen) > MOST:
        chosen = [chosen[round(k * (len(chosen) - 1) / (MOST - 1))] for k in range(MOST)]
    return tuple(chosen)


def parts_of(
    found: Sequence[Depth], wanted: Sequence[int], grids: Sequence[int], name: str
) -> tuple[Part, ...]:
    """The parts of a joined vector, in the order given: a grid for each depth, or none for 1.

    Raises UserError when a backbone has not all of these depths.
    """
    if any(not 0 <= number < len(found) for number in wanted):
        named = ", ".join(map(str, dict.fromkeys(wanted)))
        raise UserError(f"depths {named}: backbone {name} has the depths 0 to {len(found) - 1}")
    sides = grids or [1] * len(wanted)
    return tuple(Part(found[k], side) for k, side in zip(wanted, sides, strict=True))


class Maps(nn.Module):
    """Images (B, 3, H, W) -> for each part its pooled vector, joined at unit length each.

    The result is (B, sum of the parts' widths), of unit length.
    """

    def __init__(self, parts: Sequence[Part]):
        super().__init__()
        self.parts = tuple(parts)

    def forward(self, backbone: nn.Module, pool: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, D) float32. `pool`: of parts without a grid."""
        numbers = sorted({p.depth.number for p in self.parts if not p.depth.own})
        own = any(part.depth.own for part in self.parts)
        last, found = _run(backbone, images, numbers, last=own)
        maps = dict(zip(numbers, found, strict=True))
        vectors = []
        for part in self.parts:
            one, token = (last, None) if part.depth.own else maps[part.depth.number]
            if part.grid > 1 and min(part.depth.cells) >= part.grid:
                vectors.append(_unit(grid_average(one, part.grid)))
                continue
            vectors.append(_unit(pool(one)))
            if token is not None:  # as long as its part of the whole asks for
                vectors[-1] = torch.cat([vectors[-1], _unit(token)], 1) / 2**0.5
        joined: torch.Tensor = torch.cat(vectors, 1) / len(vectors) ** 0.5
        return joined


def _unit(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(x.float(), dim=1)


def _run(
    backbone: nn.Module, images: torch.Tensor, numbers: list[int] | None, *, last: bool
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor | None]]]:
    """The last features, and the maps (B, C, H, W) at these depths with class tokens (B, C).

    Without `last` nothing beyond the deepest of them is computed, and that is an empty tensor.
    """
    call = getattr(backbone, "forward_intermediates", None)
    if call is None:
        raise UserError(
            f"{type(backbone).__name__} has no intermediate maps in timm; leave depths empty"
        )
    if numbers is not None and not numbers:
        only: torch.Tensor = backbone.forward_features(images)  # type: ignore[operator]
        return only, []
    known = inspect.signature(call).parameters
    options: dict[str, Any] = {"stop_early": not last, "intermediates_only": not last}
    if "extra_blocks" in known:
        options["extra_blocks"] = True
    tokens = "return_prefix_tokens" in known and getattr(backbone, "cls_token", None) is not None
    if tokens:
        options["return_prefix_tokens"] = True
    out = call(images, indices=numbers, output_fmt="NCHW", **options)
    end, found = out if last else (images.new_empty(0), out)
    if tokens:
        return end, [(one, prefix[:, 0]) for one, prefix in found]
    return end, [(one, None) for one in found]
