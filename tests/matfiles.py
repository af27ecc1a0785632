"""MATLAB 5 files for the tests, written element by element."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np


def save_mat(path: Path, *, packed: bool = False, **variables: Any) -> Path:
    """Write variables: text, numpy arrays (uint16 or float64), lists (cells), lists of dicts."""
    data = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    for name, value in variables.items():
        matrix = _matrix(value, name)
        if packed:
            squeezed = zlib.compress(matrix)
            matrix = struct.pack("<II", 15, len(squeezed)) + squeezed
        data += matrix
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _element(kind: int, content: bytes) -> bytes:
    if 0 < len(content) <= 4:  # a small one: type, size and content in eight bytes
        return struct.pack("<HH", kind, len(content)) + content.ljust(4, b"\0")
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def _matrix(value: Any, name: str = "") -> bytes:
    shape: tuple[int, ...]
    if isinstance(value, str):
        kind, shape = 4, (1, len(value))
        rest = _element(4, value.encode("utf-16-le"))
    elif isinstance(value, np.ndarray):
        code, kind = {"uint16": (4, 11), "float64": (9, 6)}[value.dtype.name]
        shape, rest = value.shape, _element(code, value.tobytes(order="F"))
    elif value and isinstance(value[0], dict):
        kind, shape = 2, (1, len(value))
        fields = list(value[0])
        rest = _element(5, struct.pack("<i", 32))
        rest += _element(1, b"".join(field.encode().ljust(32, b"\0") for field in fields))
        rest += b"".join(_matrix(entry[field]) for entry in value for field in fields)
    else:
        kind, shape = 1, (1, len(value))
        rest = b"".join(_matrix(entry) for entry in value)
    head = _element(6, struct.pack("<II", kind, 0))
    head += _element(5, struct.pack(f"<{len(shape)}i", *shape)) + _element(1, name.encode())
    return _element(14, head + rest)
