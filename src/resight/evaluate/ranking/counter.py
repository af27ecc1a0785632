"""Tiles of similarities in, ranks out: what is known of some queries while tiles are counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.counting import KNEE, STRIP, TOP, Asked, fill
from resight.evaluate.ranking.csr import Csr, Ints
from resight.evaluate.ranking.kernels import order_positives, positive_similarities
from resight.evaluate.ranking.result import Ranks
from resight.evaluate.ranking.units import SLICE, Multiply, in_threads, product

Levels = NDArray[np.uint16]
Exact = NDArray[np.float64]
NOT_GIVEN, NO_ROWS = np.zeros((0, 0)), np.zeros((0, 0), np.float32)
_SLOPES = {4: (1e-30, 1e30), 8: (1e-304, 1e300)}  # of a scale, by the bytes of its type
_PRODUCT = 512, 1024  # rows and columns multiplied at once: what follows finds them in the cache


def threaded(kernel: Callable[..., None], n: int, *arrays: Any) -> None:
    """Call kernel(first, last, *arrays) for ranges that make up 0 to n, on all cores."""

    def work(first: int, last: int) -> None:
        kernel(first, last, *arrays)

    in_threads(work, n)


class Tiles:
    """Makes the levels of products, `error` off the exact ones at most (units.product_error)."""

    def __init__(self, multiply: Multiply, dimensions: int, rows: int, columns: int) -> None:
        self._multiply, self._step = multiply, (min(rows, _PRODUCT[0]), min(columns, _PRODUCT[1]))
        cells = self._step[0] * self._step[1]
        self._buffers = np.empty((2 if dimensions > SLICE else 1, cells), np.float32)

    def fill(
        self, left: NDArray[np.float32], right: NDArray[np.float32], scale: NDArray[Any],
        out: Levels,
    ) -> None:  # fmt: skip
        """The levels of left (n, D) @ right.T (m, D), into out (n or more, m or more)."""
        for r in range(0, len(left), self._step[0]):
            rows = left[r : r + self._step[0]]
            for c in range(0, len(right), self._step[1]):
                near = right[c : c + self._step[1]]
                shape = (len(rows), len(near))
                views = [part[: shape[0] * shape[1]].reshape(shape) for part in self._buffers]
                product(rows, near, views[0], views[-1], self._multiply)
                threaded(fill, len(rows), views[0], scale, out, r, c)


def exact_of(
    left: NDArray[np.float32], right: NDArray[np.float32], first_column: int, positives: Csr,
    out: Exact,
) -> None:  # fmt: skip
    """The exact similarities of queries to those of their positives that lie in this block."""
    lists = positives.indptr, positives.indices
    threaded(positive_similarities, len(left), left, right, first_column, *lists, out)


def in_order(positives: Csr, exact: Exact) -> Ints:
    """Entries of the positives, each query's from worst to best."""
    order = np.empty(len(exact), dtype=np.int64)
    threaded(order_positives, len(positives), positives.indptr, positives.indices, exact, order)
    return order


def scale_of(floor: Any, base: Any, top: Any, kind: type[np.floating[Any]]) -> NDArray[Any]:
    """How similarities become levels: coarsely from `floor` on, finely from `base` to `top`.

    floor, base, top: numbers or (n,). Returns (n, 7) of `kind`, see counting._level. The ranks
    are right with any; the fewer similarities share a positive's level, the fewer are looked at.
    """
    floor, base, top = (np.atleast_1d(np.asarray(x, np.float64)) for x in (floor, base, top))
    limits = _SLOPES[np.dtype(kind).itemsize]
    with np.errstate(over="ignore", divide="ignore"):
        coarse = np.clip(KNEE / (base - floor), *limits)
        fine = np.clip((TOP - KNEE) / (top - base), *limits)
    rest = np.broadcast_to([KNEE, 1.0, 65535.0], (len(floor), 3))
    return np.column_stack([floor, coarse, base, fine, rest]).astype(kind)


def cosine_scale(exact: Exact, error: float) -> NDArray[np.float32]:
    """The scale for cosines whose positives lie about as these do."""
    if not len(exact):
        return scale_of(-1.01, -1.0, 1.01, np.float32)
    return scale_of(-1.01, exact.min() - 2 * error, exact.max() + 2 * error, np.float32)


def new_levels(rows: int, columns: int) -> Levels:
    """Room for levels, uninitialised, of rows that don't share the lines of a cache."""
    return np.empty((-(-rows // STRIP) * STRIP, -(-columns // STRIP) * STRIP + STRIP), np.uint16)


def new_asked(
    indptr: Ints, exact: NDArray[np.floating[Any]], index: NDArray[np.integer[Any]], start: Ints
) -> Asked:
    """The state before the first tile."""
    n = len(indptr) - 1
    return Asked(
        indptr, exact, index, start, np.zeros(len(index), np.int32),
        np.full(n, -np.inf), np.ones(n, np.uint16), np.full(n, -1, np.int64),
    )  # fmt: skip


def ranks_of(
    asked: Asked, start: int, exact: Exact, index: Ints, n_gallery: Ints,
    queries: Ints | None = None,
) -> Ranks:  # fmt: skip
    """What came out for n queries from `start` on, the positives from best to worst.

    n_gallery (n,); exact, index: similarities and gallery rows of their positives, in the state's
    order; queries: as `Ranks` has it.
    """
    stop = start + len(n_gallery)
    indptr = asked.indptr[start : stop + 1]
    above, indptr = asked.above[indptr[0] : indptr[-1]], indptr - indptr[0]
    counts = np.diff(indptr)
    back = np.repeat(indptr[:-1] + indptr[1:], counts) - 1 - np.arange(len(exact))
    place = np.arange(1, len(exact) + 1) - np.repeat(indptr[:-1], counts)
    negative = asked.best_index[start:stop].copy()
    return Ranks(
        indptr=indptr,
        rank=above[back] + place,
        index=index[back],
        similarity=exact[back],
        n_gallery=n_gallery,
        negative=negative,
        negative_similarity=np.where(negative >= 0, asked.best[start:stop], np.nan),
        queries=queries,
    )
