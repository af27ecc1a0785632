"""Photos as an enemy sends them: cut, flipped, glued, blown up, of other kinds."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

from service import photo

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
ALLOWED = (200, 413, 415, 422)


def seeds() -> list[bytes]:
    """A good photo of each format."""
    return [photo(70 + n, format=name) for n, name in enumerate(FORMATS)]


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that claims, and holds, many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width // 8 + 1) * height, 8_000_000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def frame_bomb(frames: int) -> bytes:
    """A GIF of many tiny frames."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * frames + b"\x3b"


def others() -> dict[str, bytes]:
    """What is no image, or one and something else."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.png", photo(1))
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    pixels = np.zeros((8, 8, 3), np.uint8)
    eps, big = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(eps, "EPS")
    Image.fromarray(pixels).save(big, "ICO")
    return {
        "empty": b"",
        "zip": archive.getvalue(),
        "svg": svg,
        "html": b"<html><body onload=alert(1)>",
        "pdf": b"%PDF-1.4\n1 0 obj << >> endobj",
        "eps": eps.getvalue(),
        "ico": big.getvalue(),
        "text": b"hello",
        "zeros": bytes(5000),
        "gzip": zlib.compress(bytes(10**6)),
    }


def mutated(rng: np.random.Generator, good: list[bytes]) -> bytes:
    """One of these, changed."""
    one = bytearray(good[int(rng.integers(len(good)))])
    how = int(rng.integers(6))
    if how == 0:
        return bytes(one[: int(rng.integers(len(one)))])
    if how == 1:  # a few bytes
        for _ in range(int(rng.integers(1, 20))):
            one[int(rng.integers(len(one)))] = int(rng.integers(256))
    elif how == 2:  # the head, where sizes stand
        for _ in range(int(rng.integers(1, 6))):
            one[int(rng.integers(min(64, len(one))))] = int(rng.choice([0, 1, 127, 128, 255]))
    elif how == 3:  # a piece out, or twice
        a, b = sorted(rng.integers(len(one), size=2).tolist())
        return bytes(one[:a] + one[b:]) if rng.random() < 0.5 else bytes(one[:b] + one[a:])
    elif how == 4:  # two files as one
        other = good[int(rng.integers(len(good)))]
        cut = int(rng.integers(len(one)))
        return bytes(one[:cut]) + other if rng.random() < 0.5 else bytes(one) + other
    else:
        return rng.bytes(int(rng.integers(1, 3000)))
    return bytes(one)
