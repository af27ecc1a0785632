"""The files of a memory of vectors: made whole or not at all, and checked before use."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError

VECTORS = ("augmented", "plain")
SUMS = "sums.npy"


def make(folder: Path, count: int, dim: int, seed: int) -> None:
    """The files of an empty memory; see `MemoryBank.create`."""
    if count < 1 or dim < 1:
        raise ValueError(f"a memory of {count} images in {dim} dimensions holds nothing")
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds something already; a memory needs a new folder")
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)  # of a call that was killed
    beside.mkdir(parents=True)
    try:
        for name in VECTORS:
            _empty(beside / f"{name}.npy", (count, dim), np.float16)
        _empty(beside / SUMS, (count, len(VECTORS)), np.uint32)
        _empty(beside / "filled.npy", (count,), np.uint8)
        order = np.random.default_rng(seed).permutation(count).astype(np.int32)
        np.save(beside / "slots.npy", order)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check(folder: Path, count: int | None, dim: int | None) -> None:
    """Raises UserError when `folder` isn't a whole memory of that size; see `MemoryBank.open`."""
    found: dict[str, NDArray[Any]] = {}
    for name in (*VECTORS, "filled", "slots"):
        path = folder / f"{name}.npy"
        try:  # to read: opened for writing, a short file would grow without a word
            found[name] = np.load(path, mmap_mode="r")
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{path}: not found; a memory of vectors was expected") from None
        except (ValueError, EOFError) as error:
            raise UserError(f"{path}: damaged ({error}); start the run anew") from None
    shape, slots = found["augmented"].shape, found["slots"]
    sums = open_sums(folder, "r")
    whole = (
        (sums is None or (sums.shape == (*slots.shape, len(VECTORS)) and sums.dtype == np.uint32))
        and len(shape) == 2
        and found["plain"].shape == shape
        and all(found[name].dtype == np.float16 for name in VECTORS)
        and found["filled"].shape == slots.shape == shape[:1]
        and found["filled"].dtype == np.uint8
        and slots.dtype == np.int32
        and bool((np.sort(slots) == np.arange(len(slots))).all())
    )
    if not whole:
        raise UserError(f"{folder}: damaged memory, its files don't fit; start the run anew")
    wanted = (shape[0] if count is None else count, shape[1] if dim is None else dim)
    if wanted != shape:
        raise UserError(
            f"{folder}: a memory of {shape[0]:,} images × {shape[1]} dimensions, but "
            f"{wanted[0]:,} × {wanted[1]} are needed; start the run anew"
        )


def open_sums(folder: Path, mode: Literal["r", "r+"]) -> NDArray[np.uint32] | None:
    """The checksum of each vector, (N, 2) uint32, mapped; None in folders of older versions."""
    path = folder / SUMS
    try:
        sums: NDArray[np.uint32] = np.load(path, mmap_mode=mode)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged ({error}); start the run anew") from None
    return sums


def sums_of(vectors: NDArray[np.float16]) -> NDArray[np.uint32]:
    """CRC-32 of each of vectors (n, D) -> (n,) uint32."""
    whole = np.ascontiguousarray(vectors)
    return np.fromiter((zlib.crc32(row) for row in whole), np.uint32, len(whole))


def _empty(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """A .npy file of zeros that has its space on the disk.

    With holes in it, a full disk would show when a page is written, and kill the process.
    """
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that can't
                return
            error.filename = str(path)
            raise
