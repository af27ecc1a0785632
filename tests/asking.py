"""Photos with hostile names, features of two embedders, and a person who knows the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

THINGS, SHOTS = 12, 4
HOSTILE = ["a<", "script>", 'it\'s "quoted" & <b>bold<b> <!-- {{ x }}']


def view(thing: int, shot: int) -> Image.Image:
    """The thing's pattern of colours, a third of it hidden by what stands before it."""
    look = np.random.default_rng(thing).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    before = np.random.default_rng([7, thing, shot]).integers(0, 256, (2, 6, 3), dtype=np.uint8)
    look[shot : shot + 2] = before
    return Image.fromarray(look).resize((48, 48), Image.Resampling.BICUBIC)


def photos(folder: Path) -> Path:
    """48 photos of 12 things below names that would end a script; the thing is in the name."""
    place = folder.joinpath("photos", *HOSTILE)
    place.mkdir(parents=True)
    for thing in range(THINGS):
        for shot in range(SHOTS):
            view(thing, shot).save(place / f"{thing:02d}-{shot} <img src=x onerror=alert(1)>.png")
    return folder / "photos"


def features(noise: float, seed: int, photos: int = THINGS * SHOTS) -> np.ndarray:
    """(photos, 16) float32: the things' own directions and noise, in the order of the names."""
    random = np.random.default_rng(seed)
    own = np.repeat(np.random.default_rng(3).normal(size=(THINGS, 16)), SHOTS, axis=0)[:photos]
    return (own + noise * random.normal(size=own.shape)).astype(np.float32)


def thing(path: str) -> int:
    """What a photo shows."""
    return int(Path(path).name[:2])


def precision(x: np.ndarray) -> float:
    """Precision at 1, the obvious way."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    s = unit @ unit.T
    np.fill_diagonal(s, -9)
    return float(np.mean(s.argmax(1) // SHOTS == np.arange(len(x)) // SHOTS))


def truth(design: dict[str, Any]) -> dict[str, str]:
    """What a person who knows says to each pair."""
    said = ("different", "same")
    return {str(k): said[thing(a) == thing(b)] for k, (a, b) in enumerate(design["pairs"])}
