"""Folders of photos and tiny settings for the tests of training without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from command import TINY
from resight.train.loop import LoopOptions
from resight.train.recipes import settings_of
from resight.train.recipes.graph import GraphSettings
from resight.train.recipes.insclr import InsCLRSettings

SMALL = {
    "recipe": "insclr",
    "backbone": TINY,
    "weights": "none",
    "size": [32, 32],
    "lr": 1e-3,
    "epochs": 2,
    "steps": 3,
    "tuples": 4,
    "stages": [{}, {"calibrate": 2.0}],
}
OPTIONS = LoopOptions(workers=0, log_every=1)


def settings(**values: Any) -> InsCLRSettings:
    """Tiny ones, with these changes."""
    made = settings_of(SMALL | values, "test")
    assert isinstance(made, InsCLRSettings)
    return made


def graph_settings(**values: Any) -> GraphSettings:
    """Tiny ones of the recipe on the graph."""
    plain = {k: v for k, v in SMALL.items() if k not in ("stages", "recipe")}
    own = {"recipe": "graph", "start": "weights", "stages": [{}, {"times": 2.0}]}
    made = settings_of(plain | own | values, "test")
    assert isinstance(made, GraphSettings)
    return made


def view(thing: int, shot: int, side: int = 40) -> Image.Image:
    """A photo of a thing: blobs in its colours, seen from somewhere near, darker or brighter."""
    rng = np.random.default_rng([thing, shot])
    look = np.random.default_rng(thing).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    whole = Image.fromarray(look).resize((2 * side, 2 * side), Image.Resampling.BICUBIC)
    x, y = rng.integers(0, side // 2, 2).tolist()
    part = whole.crop((x, y, x + int(1.5 * side), y + int(1.5 * side))).resize((side, side))
    light = rng.uniform(0.6, 1.3)
    return Image.fromarray(np.clip(np.asarray(part) * light, 0, 255).astype(np.uint8))


def folder(path: Path, things: int, shots: int, side: int = 40, first: int = 0) -> Path:
    """Photos of some things, several each; the things have numbers from `first` on."""
    path.mkdir(parents=True)
    for k in range(first, first + things):
        for i in range(shots):
            view(k, i, side).save(path / f"{k:03d}-{i}.png")
    return path
