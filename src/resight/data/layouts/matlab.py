"""MATLAB 5 files (.mat): the values of their variables, as far as lists of benchmarks need them.

Text, numbers, cells and structures are read; MATLAB 7.3 files (HDF5), sparse matrices and
objects are not. Sizes that a file states are never trusted beyond the bytes that it has.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from resight.errors import UserError

_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = range(6, 16)
_MOST = 1 << 30  # bytes that a compressed variable may unpack to
# The types of stored numbers and letters, by their code in the file.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4"}
_TYPES |= {9: "f8", 12: "i8", 13: "u8"}
_LETTERS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


def read_mat(path: Path) -> dict[str, Any]:
    """The variables of a MATLAB 5 file.

    A cell array is a list (column after column), a structure array a list of dicts, text is str,
    numbers are a numpy array. Raises UserError when the file is no such file or is broken.
    """
    data = path.read_bytes()
    if data[512:516] == b"\x89HDF" or data[:10] == b"MATLAB 7.3":
        raise UserError(f"{path}: a MATLAB 7.3 file; save it as version 7 or older")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or len(data) < 128:
        raise UserError(f"{path}: not a MATLAB 5 file")
    variables: dict[str, Any] = {}
    try:
        rest = _Elements(data[128:], order)
        while rest.more():
            kind, content = rest.next()
            if kind == _COMPRESSED:
                unpacked = zlib.decompressobj().decompress(content, _MOST)
                kind, content = _Elements(unpacked, order).next()
            if kind == _MATRIX:
                name, value = _matrix(content, order)
                variables[name] = value
    except (ValueError, struct.error, zlib.error, RecursionError) as error:
        raise UserError(f"{path}: a broken MATLAB file ({error})") from None
    return variables


class _Elements:
    """The elements in a piece of the file, one after the other."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.order, self.at = data, order, 0

    def more(self) -> bool:
        return self.at < len(self.data)

    def next(self) -> tuple[int, bytes]:
        """(type, content) of the next element."""
        kind, size = struct.unpack_from(f"{self.order}II", self.data, self.at)
        start = self.at + 8
        if kind >> 16:  # a small one: its size and its content share the eight bytes
            kind, size, start = kind & 0xFFFF, kind >> 16, self.at + 4
            self.at += 8
        else:
            self.at = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        content = self.data[start : start + size]
        if len(content) < size:
            raise ValueError("it ends too early")
        return kind, content

    def numbers(self) -> np.ndarray[Any, Any]:
        kind, content = self.next()
        if kind not in _TYPES:
            raise ValueError(f"numbers of an unknown type {kind}")
        return np.frombuffer(content, np.dtype(f"{self.order}{_TYPES[kind]}"))

    def value(self) -> Any:
        kind, content = self.next()
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where a value was expected")
        return _matrix(content, self.order)[1] if content else np.empty((0, 0))


def _matrix(content: bytes, order: str) -> tuple[str, Any]:
    """(name, value) of a matrix."""
    parts = _Elements(content, order)
    kind = int(parts.numbers()[0]) & 0xFF
    shape = [int(size) for size in parts.numbers()]
    name = parts.next()[1].decode("latin-1")
    count = int(np.prod(shape, dtype=object))
    if kind in (_CELL, _STRUCT) and not 0 <= count <= len(content):
        raise ValueError(f"{name}: {count} entries in {len(content)} bytes")
    if kind == _CELL:
        return name, [parts.value() for _ in range(count)]
    if kind == _STRUCT:
        width = int(parts.numbers()[0])
        text = parts.next()[1]
        if width < 1:
            raise ValueError(f"{name}: names of {width} letters")
        pieces = [text[at : at + width] for at in range(0, len(text), width)]
        fields = [piece.split(b"\0")[0].decode("latin-1") for piece in pieces]
        return name, [{field: parts.value() for field in fields} for _ in range(count)]
    if kind == _CHAR:
        code, letters = parts.next()
        if code not in _LETTERS:
            raise ValueError(f"text of an unknown type {code}")
        endian = {"<": "-le", ">": "-be"}[order] if code in (4, 17, 18) else ""
        return name, letters.decode(_LETTERS[code] + endian)
    if kind not in _NUMBERS:
        raise ValueError(f"{name}: a value of an unknown kind {kind}")
    return name, parts.numbers().reshape(shape, order="F")
