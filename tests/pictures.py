"""Pictures and image files for the tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def picture(seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A smooth, colourful picture that no other seed gives."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def noise(seed: int, size: tuple[int, int] = (30, 20)) -> Image.Image:
    """Random pixels: no two alike, so that a wrong crop or turn shows."""
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def save(path: Path, seed: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    """Write a picture, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(path)
    return path


def encoded(image: Image.Image, kind: str, *, turn: int | None = None, **options: Any) -> bytes:
    """The bytes of an image file; `turn` is its EXIF orientation."""
    if turn is not None:
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = turn
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def claim(width: int, height: int) -> bytes:
    """The start of a PNG that claims to be of this size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + bytes(8)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
