"""The pool's files: tables of which the beginning may be there already, and how they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from resight.checksums import Summed
from resight.errors import UserError
from resight.files import read_json

RECORD, NEIGHBOURS, SIMILARITIES = "pool.json", "neighbours.npy", "similarities.npy"
VERIFIED, INLIERS = "verified-", "inliers.npy"
_PART = 2**24  # bytes read at once


def write_header(file: IO[bytes] | Summed, dtype: Any, shape: tuple[int, int]) -> None:
    """The head of a .npy file."""
    head = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)


class Appended:
    """A .npy file of known final shape, to which rows are appended; its length says how many.

    Use: `cut` to the rows that stay, then `append`; `sum` is the checksum of the file.
    """

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, int]) -> None:
        self._file = path.open("r+b" if path.is_file() else "w+b")
        self._dtype, self._bytes = np.dtype(dtype), int(shape[1] * np.dtype(dtype).itemsize)
        self._file.seek(0)
        self._summed = Summed(self._file)
        write_header(self._summed, dtype, shape)
        self._start = self._file.tell()

    def __enter__(self) -> Appended:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def rows(self) -> int:
        """Whole rows in the file."""
        length: int = self._file.seek(0, os.SEEK_END) - self._start
        return max(length, 0) // self._bytes

    def cut(self, rows: int) -> None:
        """Drop all but the first rows."""
        self._file.truncate(self._start + rows * self._bytes)
        self._file.seek(self._start)
        while part := self._file.read(_PART):
            self._summed.passed(part)

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows, and wait until they are on the disk."""
        self._summed.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())

    def sum(self) -> str:
        """The checksum of what is in the file."""
        return self._summed.sum()


def read_record(folder: Path) -> dict[str, Any]:
    """What made the pool. Raises UserError when it is absent or damaged."""
    record = read_json(folder / RECORD, "a candidate pool")
    wanted = {"rows", "k", "method", "key", "seconds", "complete"}
    if not isinstance(record, dict) or not wanted <= record.keys():
        raise UserError(f"{folder / RECORD}: damaged; make the pool anew (--force)")
    return record


def open_table(path: Path, dtype: Any, shape: tuple[int, int]) -> NDArray[Any]:
    """A file of the pool, memory-mapped. Raises UserError when it is absent or damaged."""
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: this file is gone; make the pool anew (--force)") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged ({error}); make the pool anew (--force)") from None
    if found.dtype != dtype or found.shape != shape:
        raise UserError(f"{path}: of another size or type; make the pool anew (--force)")
    return found
