"""Emblems: the small signs by which near look-alikes are told apart.

An emblem is a list of layers; a layer is a closed polygon, (N, 2) float64 in the square
[-1, 1] x [-1, 1] with y down, and the number of its ink: 0 for the main one, 1 for the other.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Polygon = NDArray[np.float64]
Layer = tuple[Polygon, int]

_SHIFT = 4  # cv2 draws polygons at 1/16 of a pixel


def _polar(radius: NDArray[np.float64], turn: float = 0.0) -> Polygon:
    """Closed curve with the given radii at equal angles, the first one upwards."""
    angle = np.arange(len(radius)) * 2 * np.pi / len(radius) + turn
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _circle(x: float, y: float, radius: float) -> Polygon:
    return np.asarray(_polar(np.full(40, radius)) + np.array([x, y]), dtype=np.float64)


def _points(*pairs: tuple[float, float]) -> Polygon:
    return np.array(pairs, dtype=np.float64)


def _box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return _points((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _star(rng: Generator) -> list[Layer]:
    tips, inner = int(rng.integers(4, 9)), rng.uniform(0.35, 0.6)
    return [(_polar(np.tile([1.0, inner], tips)), 0), (_circle(0, 0, inner * 0.5), 1)]


def _flower(rng: Generator) -> list[Layer]:
    petals = int(rng.integers(4, 8))
    angle = np.arange(120) * 2 * np.pi / 120
    radius = 0.55 + 0.42 * np.abs(np.cos(angle * petals / 2))
    return [(_polar(radius), 0), (_circle(0, 0, rng.uniform(0.22, 0.38)), 1)]


def _heart(rng: Generator) -> list[Layer]:
    t = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    heart = np.stack([x, y - 0.08], axis=1)
    return [(heart, 0), (heart * rng.uniform(0.3, 0.6), 1)]


def _moon(rng: Generator) -> list[Layer]:
    angle = np.linspace(0.3, 1.7, 50) * np.pi
    outer = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inner = outer[::-1] * (0.85, 0.72) + (0.28, 0.0)
    side = rng.choice([-1.0, 1.0])
    moon = np.concatenate([outer, inner]) * (side, 1.0)
    return [(moon, 0), (_polar(np.tile([0.34, 0.14], 5)) + np.array([0.42 * side, 0.0]), 1)]


def _drop(rng: Generator) -> list[Layer]:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    drop = np.stack([0.8 * np.sin(t) * np.sin(t / 2) ** 1.5, -np.cos(t)], axis=1)
    return [(drop, 0), (_circle(rng.uniform(-0.15, 0.15), 0.4, rng.uniform(0.18, 0.32)), 1)]


def _bolt(rng: Generator) -> list[Layer]:
    lean = rng.uniform(0.0, 0.25)
    bolt = _points((0.2, -1), (-0.65 + lean, 0.15), (-0.1, 0.15), (-0.3, 1), (0.65, -0.25),
                   (0.1, -0.25), (0.45, -1))  # fmt: skip
    return [(_circle(0, 0, 1.0), 1), (bolt * 0.9, 0)]


def _fish(rng: Generator) -> list[Layer]:
    t = np.linspace(0.12, 2 * np.pi - 0.12, 50)
    body = np.stack([0.7 * np.cos(t) - 0.28, rng.uniform(0.4, 0.6) * np.sin(t)], axis=1)
    tail = _points((0.3, 0.0), (1.0, -0.55), (0.82, 0.0), (1.0, 0.55))
    side = rng.choice([-1.0, 1.0])
    layers = [(body, 0), (tail, 0), (_circle(-0.6, -0.1, 0.11), 1)]
    return [(polygon * (side, 1.0), ink) for polygon, ink in layers]


def _tree(rng: Generator) -> list[Layer]:
    layers: list[Layer] = [(_box(-0.13, 0.5, 0.13, 1.0), 1)]
    for row in range(tiers := int(rng.integers(2, 5))):
        top, wide = -1 + 1.2 * row / tiers, 0.4 + 0.45 * (row + 1) / tiers
        layers.append((_points((0, top), (wide, top + 0.75), (-wide, top + 0.75)), row % 2))
    return layers


def _crown(rng: Generator) -> list[Layer]:
    tips = int(rng.integers(3, 6))
    x = np.linspace(-1, 1, 2 * tips - 1)
    y = np.where(np.arange(len(x)) % 2 == 0, -0.6, 0.05)
    crown = np.concatenate([np.stack([x, y], axis=1), [[0.85, 0.75], [-0.85, 0.75]]])
    return [(crown, 0), (_box(-0.82, 0.35, 0.82, 0.58), 1)]


def _arrow(rng: Generator) -> list[Layer]:
    arrow = _points((0, -1), (0.75, -0.1), (0.3, -0.1), (0.3, 1), (-0.3, 1), (-0.3, -0.1),
                    (-0.75, -0.1))  # fmt: skip
    turn = rng.integers(0, 8) * np.pi / 4
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return [(arrow @ spin, 0)]


def _cells(rng: Generator) -> list[Layer]:
    """A mirrored 5 x 5 grid of filled and empty cells."""
    half = rng.random((5, 3)) < 0.55
    half[2, 2] = True  # never quite empty
    full = np.concatenate([half, half[:, 1::-1]], axis=1)
    step = 0.36
    return [
        (_box((c - 2.5) * step, (r - 2.5) * step, (c - 1.5) * step, (r - 1.5) * step), 0)
        for r, c in zip(*np.nonzero(full), strict=True)
    ]


def _beads(rng: Generator) -> list[Layer]:
    count = int(rng.integers(3, 8))
    ring = _polar(np.full(count, 0.68))
    radius = min(0.3, 0.62 * np.sin(np.pi / count))
    layers: list[Layer] = [(_circle(x, y, radius), 0) for x, y in ring]
    return [*layers, (_circle(0, 0, rng.uniform(0.18, 0.32)), 1)]


def _leaf(rng: Generator) -> list[Layer]:
    t = np.linspace(0, np.pi, 30)
    edge = rng.uniform(0.35, 0.55) * np.sin(t) * (1 + 0.18 * np.cos(t * 9))
    y = -np.cos(t)
    leaf = np.concatenate([np.stack([edge, y], 1), np.stack([-edge, y], 1)[::-1]])
    vein = _points((-0.05, -0.8), (0.05, -0.8), (0.07, 1), (-0.07, 1))
    turn = rng.uniform(-0.7, 0.7)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return [(leaf @ spin, 0), (vein @ spin, 1)]


def _house(rng: Generator) -> list[Layer]:
    door = rng.uniform(-0.4, 0.15)
    roof = _points((0, -1), (1, -0.1), (-1, -0.1))
    return [(_box(-0.7, -0.1, 0.7, 0.9), 1), (roof, 0), (_box(door, 0.2, door + 0.35, 0.9), 0)]


def _cross(rng: Generator) -> list[Layer]:
    arm = rng.uniform(0.16, 0.36)
    bars: list[Layer] = [(_box(-arm, -1, arm, 1), 0), (_box(-1, -arm, 1, arm), 0)]
    return [*bars, (_polar(np.full(4, arm * rng.uniform(0.7, 1.3))), 1)]


def _blob(rng: Generator) -> list[Layer]:
    """A smooth outline with a random number of lobes."""
    angle = np.arange(120) * 2 * np.pi / 120
    lobes = rng.choice([2, 3, 4, 5])
    radius = 1 + 0.3 * np.cos(lobes * angle) + 0.22 * np.cos(2 * lobes * angle + rng.uniform(0, 6))
    radius = radius / radius.max()
    return [(_polar(radius), 0), (_polar(radius * 0.45, np.pi / lobes), 1)]


EMBLEMS: dict[str, Callable[[Generator], list[Layer]]] = {
    "star": _star,
    "flower": _flower,
    "heart": _heart,
    "moon": _moon,
    "drop": _drop,
    "bolt": _bolt,
    "fish": _fish,
    "tree": _tree,
    "crown": _crown,
    "arrow": _arrow,
    "cells": _cells,
    "beads": _beads,
    "leaf": _leaf,
    "house": _house,
    "cross": _cross,
    "blob": _blob,
}


def draw_emblem(
    face: NDArray[np.uint8],
    name: str,
    key: Sequence[int],
    centre: tuple[float, float],
    radius: float,
    inks: tuple[tuple[int, int, int], tuple[int, int, int]],
) -> None:
    """Draws the emblem `name`, varied by `key`, into `face` (in place); centre, radius in px."""
    for polygon, ink in EMBLEMS[name](np.random.default_rng(key)):
        corners = np.round((polygon * radius + centre) * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(face, [corners], inks[ink], cv2.LINE_AA, _SHIFT)
