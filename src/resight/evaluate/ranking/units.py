"""Unit vectors on a fixed grid, so that a cosine similarity is one exact number.

The result of a float32 matrix product depends on how the BLAS cut it up: block shape, number of
threads, kind of processor. Ranks must not. So every row is L2-normalised and rounded to
multiples of 2**-26. Then each product of two entries is a multiple of 2**-52, and by
Cauchy-Schwarz every partial sum of a dot product stays below 2: it fits the 53 bits of a float64
*exactly*, in whatever order it is summed. All float64 routes (a loop, a matrix product, another
machine, a GPU) give the same digits, and equal vectors tie exactly.

The grid's step is that of float32 at 1/8; a similarity moves by about 4e-9 at 2,048 dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from resight.errors import UserError
from resight.features.rows import Rows

_UNIT_ROUNDOFF = 2.0**-24  # of float32
SLICE = 2048  # dimensions summed in one float32 product, see `product`
_CHUNK = 512  # rows converted at once

Multiply = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], None]


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """L2-normalise rows and round them to the grid.

    rows: (N, D) of any real type, finite. Returns (N, D) float32, entries multiples of 2**-26.
    A zero row stays zero.
    """
    from resight.evaluate.ranking.kernels import normalise

    out = np.empty(rows.shape, dtype=np.float32)

    def fill(first: int, last: int) -> None:
        for start in range(first, last, _CHUNK):
            chunk = np.asarray(rows[start : min(start + _CHUNK, last)])
            if chunk.dtype not in (np.float32, np.float64):
                chunk = chunk.astype(np.float32 if chunk.dtype.itemsize <= 2 else np.float64)
            normalise(np.ascontiguousarray(chunk), out[start : start + len(chunk)])

    in_threads(fill, len(rows))
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


def multiply_on(device: str) -> Multiply:
    """The float32 product left @ right.T -> out on "cpu" (numpy) or a torch device ("cuda:0").

    Both sum in float32 with an error within `product_error`: reduced precision (TF32) is off.
    """
    if device == "cpu":
        return _multiply_here
    import torch

    if device == "cuda" and "LOCAL_RANK" in os.environ:  # each process its own
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.backends.cuda.matmul.allow_tf32 = False
    kept: dict[str, Any] = {}

    def multiply(
        left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32]
    ) -> None:
        place = (left.ctypes.data, left.shape)
        if kept.get("place") != place:  # the same rows meet many columns
            kept.update(place=place, left=torch.tensor(left, device=device), source=left)
        found = kept["left"] @ torch.tensor(right, device=device).T
        torch.from_numpy(out).copy_(found)

    return multiply


def _multiply_here(
    left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    # Cut up by us: threads of the BLAS's own go on spinning for a while, where others would count.
    def part(first: int, last: int) -> None:
        np.matmul(left[first:last], right.T, out=out[first:last])

    with _blas().limit(limits=1, user_api="blas"):
        in_threads(part, len(left), _cores())


@cache
def _blas() -> ThreadpoolController:
    """Sets how many threads the BLAS takes."""
    return ThreadpoolController()


def check_device(device: str) -> None:
    """Raise UserError when products can't be made on this device."""
    if device == "cpu":
        return
    import torch

    try:
        kind = torch.device(device).type
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [""])[0].split(". ")[0][:120]
        raise UserError(f"--device {device}: can't be used ({first}); cpu always can") from None
    if kind not in ("cpu", "cuda"):  # others have no full float32 to rely on
        raise UserError(f"--device {device}: products are made on cpu or cuda")


def product(
    left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32],
    spare: NDArray[np.float32], multiply: Multiply | None = None,
) -> None:  # fmt: skip
    """Write left @ right.T to `out`, in float32, within `product_error` of the exact value.

    left: (n, D), right: (m, D), out and spare: (n, m). Long vectors are summed in slices of 2048
    dimensions: the guaranteed error of a float32 sum grows with its length, and every pair that
    is undecided within that error costs a second look.
    """
    multiply = multiply or multiply_on("cpu")
    dimensions = left.shape[1]
    if dimensions <= SLICE:
        multiply(left, right, out)
        return
    multiply(left[:, :SLICE], right[:, :SLICE], out)
    for start in range(SLICE, dimensions, SLICE):
        part = slice(start, start + SLICE)
        multiply(left[:, part], right[:, part], spare)
        out += spare


def product_error(dimensions: int) -> float:
    """Bound on |product - exact similarity| for unit rows of so many dimensions.

    Any order of summing n float32 products errs by at most n u / (1 - n u) times the sum of
    their absolute values, u = 2**-24 (Higham, Accuracy and Stability of Numerical Algorithms,
    section 3.1); that sum is at most 1 for unit vectors. The slices' own sum adds one u each;
    the factor covers norms that are off 1 by the grid's rounding.
    """
    slices = -(-dimensions // SLICE)
    terms = min(dimensions, SLICE) + slices
    bound = terms * _UNIT_ROUNDOFF
    return 1.001 * bound / (1 - bound) + 1e-30


def exact_similarities(
    left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Exact similarity of all pairs of unit rows, (n, m) float64."""
    result: NDArray[np.float64] = np.asarray(left, np.float64) @ np.asarray(right, np.float64).T
    return result


def in_threads(work: Callable[[int, int], None], n: int, parts: int | None = None) -> None:
    """Call `work(first, last)` for ranges that make up 0 to n, on all cores; `parts`: how many.

    numpy and numba let go of the interpreter's lock. The calls must write to places of their own;
    then neither their order nor the ranges make a difference.
    """
    cores = _cores()
    parts = parts or 4 * cores  # some more than cores, as they are not equally long
    step = max(1, -(-n // parts))
    starts = range(0, n, step)
    if cores < 2 or len(starts) < 2:
        for start in starts:
            work(start, min(start + step, n))
        return
    ends = [min(start + step, n) for start in starts]
    for _ in _pool(cores, os.getpid()).map(work, starts, ends):  # raises what a call raised
        pass


def threaded(kernel: Callable[..., None], n: int, *arrays: Any) -> None:
    """Call a compiled kernel(first, last, *arrays) for ranges that make up 0 to n, on all cores."""

    def work(first: int, last: int) -> None:
        kernel(first, last, *arrays)

    in_threads(work, n)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool(cores: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay; a forked process gets its own."""
    return ThreadPoolExecutor(cores)
