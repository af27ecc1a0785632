"""Unit vectors on a fixed grid, so that a cosine similarity is one exact number.

The result of a float32 matrix product depends on how the BLAS cut it up: block shape, number of
threads, kind of processor. Ranks must not. So every row is L2-normalised and rounded to
multiples of 2**-26. Then each product of two entries is a multiple of 2**-52, and by
Cauchy-Schwarz every partial sum of a dot product stays below 2: it fits the 53 bits of a float64
*exactly*, in whatever order it is summed. All float64 routes (einsum, matrix product, another
machine, a GPU) give the same digits, and equal vectors tie exactly.

The grid's step is that of float32 at 1/8; a similarity moves by about 4e-9 at 2,048 dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

GRID = 2.0**26
_UNIT_ROUNDOFF = 2.0**-24  # of float32
_SLICE = 512  # dimensions summed in one float32 product, see `product`
_CHUNK = 128  # rows or pairs worked on at once: small enough to stay in the cache


class Rows(Protocol):
    """What features must offer: an array, a memory map, or a sharded array of our own."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> Any: ...


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """L2-normalise rows and round them to the grid.

    rows: (N, D) of any real type, finite. Returns (N, D) float32, entries multiples of 2**-26.
    A zero row stays zero.
    """
    out = np.empty(rows.shape, dtype=np.float32)

    def fill(start: int) -> None:
        chunk = np.array(rows[start : start + _CHUNK], dtype=np.float64)
        if rows.dtype.itemsize > 4 and chunk.size:
            # Squares of large float64 values overflow; a power of two takes nothing off.
            largest = np.abs(chunk).max(axis=1, keepdims=True)
            chunk = np.ldexp(chunk, -np.frexp(largest)[1])
        norms = np.sqrt(np.einsum("nd,nd->n", chunk, chunk))
        scale = np.divide(GRID, norms, out=np.zeros_like(norms), where=norms > 0)
        chunk *= scale[:, None]
        np.rint(chunk, out=chunk)
        chunk *= 1 / GRID
        out[start : start + _CHUNK] = chunk

    in_threads(fill, range(0, len(rows), _CHUNK))
    return out


class UnitRows:
    """`unit_rows` of a source, made block by block; the last block made is kept.

    A source that is no longer than one block is therefore normalised only once.
    """

    def __init__(self, source: Rows, block: int) -> None:
        self.source = source
        self.block = max(1, min(block, len(source)))
        self._kept: tuple[int, NDArray[np.float32]] | None = None

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first row, (rows, D) float32) in order."""
        for start in range(0, len(self.source), self.block):
            if self._kept is None or self._kept[0] != start:
                self._kept = None  # let go before the next is made
                raw = np.asarray(self.source[start : start + self.block])
                self._kept = (start, unit_rows(raw))
            yield self._kept


def product(
    left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32],
    spare: NDArray[np.float32],
) -> None:  # fmt: skip
    """Write left @ right.T to `out`, in float32, within `product_error` of the exact value.

    left: (n, D), right: (m, D), out and spare: (n, m). Long vectors are summed in slices of 512
    dimensions: the guaranteed error of a float32 sum grows with its length, and every pair that
    is undecided within that error costs a second look.
    """
    dimensions = left.shape[1]
    np.matmul(left[:, :_SLICE], right[:, :_SLICE].T, out=out)
    for start in range(_SLICE, dimensions, _SLICE):
        part = slice(start, start + _SLICE)
        np.matmul(left[:, part], right[:, part].T, out=spare)
        out += spare


def product_error(dimensions: int) -> float:
    """Bound on |product - exact similarity| for unit rows of so many dimensions.

    Any order of summing n float32 products errs by at most n u / (1 - n u) times the sum of
    their absolute values, u = 2**-24 (Higham, Accuracy and Stability of Numerical Algorithms,
    section 3.1); that sum is at most 1 for unit vectors. The slices' own sum adds one u each;
    the factor covers norms that are off 1 by the grid's rounding.
    """
    slices = -(-dimensions // _SLICE)
    terms = min(dimensions, _SLICE) + slices
    bound = terms * _UNIT_ROUNDOFF
    return 1.001 * bound / (1 - bound) + 1e-30


def pair_similarities(
    left: NDArray[np.float32], right: NDArray[np.float32],
    i: NDArray[np.int64], j: NDArray[np.int64], threads: bool = False,
) -> NDArray[np.float64]:  # fmt: skip
    """Exact similarity of row i[k] of `left` and row j[k] of `right`, (K,) float64."""
    out = np.empty(len(i), dtype=np.float64)

    def fill(start: int) -> None:
        part = slice(start, start + _CHUNK)
        out[part] = np.einsum("kd,kd->k", left[i[part]], right[j[part]], dtype=np.float64)

    in_threads(fill, range(0, len(i), _CHUNK), threads)
    return out


def exact_similarities(
    left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Exact similarity of all pairs, (n, m) float64: the same digits as `pair_similarities`."""
    result: NDArray[np.float64] = np.asarray(left, np.float64) @ np.asarray(right, np.float64).T
    return result


def in_threads(work: Callable[[int], None], starts: range, wanted: bool = True) -> None:
    """Call `work` with every start, on all cores: numpy lets go of the interpreter's lock.

    The calls must write to places of their own; then their order makes no difference.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = min(cores or 1, len(starts) // 4)
    if not wanted or cores < 2:  # too little for a thread to pay
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(cores) as pool:
        for _ in pool.map(work, starts):  # raises what a call raised
            pass
