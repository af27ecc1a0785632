"""Sums that don't depend on the order in which they came to be.

A float64 sum of arbitrary numbers keeps the roundings of its history: after many additions and
removals it is not the sum of what is there. Rounded to a common grid first, numbers add up
exactly as long as the sum stays below 2^53 steps of it, in any order, and taking one away leaves
what was there before. The grid is chosen once for a gallery, from its first vectors: 2^-30 of
the power of two above their largest element, 64 times finer than float32 there, and room for
eight million images in a sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.search.engines.contract import Row, Sum

_BITS = 30


def grid_of(vectors: NDArray[Any]) -> float:
    """The step of the grid for vectors like these (N, D): a power of two."""
    largest = float(np.abs(vectors).max(initial=0.0))
    return math.ldexp(1.0, math.frexp(largest)[1] - _BITS) if largest > 0 else 2.0**-_BITS


def on_grid(values: NDArray[Any], grid: float) -> NDArray[np.float64]:
    """Values as float64, rounded to multiples of `grid`."""
    rounded: NDArray[np.float64] = np.rint(np.asarray(values, np.float64) / grid) * grid
    return rounded


Key = tuple[str, str]


def adjusted(
    present: Iterable[Sum], gone: Iterable[Row], come: Iterable[Row], grid: float, dim: int
) -> list[Sum]:
    """The sums after some images have left their objects and others have come.

    `present`: the sums of all objects concerned; rows carry their vectors (D,). Images of
    unknown objects are in no sum. O(D) an image. Returned are the sums that changed; a count of
    0 stands for a sum that is no more.
    """
    sums: dict[Key, Sum] = {(one.object, one.camera): one for one in present}
    rows = [(sign, row) for sign, some in ((-1, gone), (1, come)) for row in some]
    rows = [(sign, row) for sign, row in rows if row.object is not None]
    if not rows:
        return []
    vectors = np.array([row.vector for _, row in rows], np.float32)
    signs = np.array([sign for sign, _ in rows], np.float64)
    codes: dict[Key, int] = {}
    of = np.array(
        [codes.setdefault((str(row.object), row.camera or ""), len(codes)) for _, row in rows]
    )
    order = np.argsort(of, kind="stable")
    starts = np.flatnonzero(np.diff(of[order], prepend=-1))
    signed = (on_grid(vectors, grid) * signs[:, None])[order]
    totals = np.add.reduceat(signed, starts)
    squares = np.add.reduceat((squares_of(vectors, grid) * signs)[order], starts)
    counts = np.add.reduceat(signs[order], starts)
    found = []
    for (name, camera), total, square, count in zip(codes, totals, squares, counts, strict=True):
        before = sums.get((name, camera)) or Sum(name, camera, 0, np.zeros(dim), 0.0)
        found.append(
            Sum(
                name,
                camera,
                before.count + int(count),
                before.total + total,
                before.squares + float(square),
            )
        )
    return found


def squares_of(vectors: NDArray[Any], grid: float) -> NDArray[np.float64]:
    """Squared lengths of vectors (N, D), on a grid of their own so that they add up exactly."""
    step = grid * grid * 2.0**_BITS * max(1, vectors.shape[1])
    squares: NDArray[np.float64] = np.square(np.asarray(vectors, np.float64)).sum(axis=1)
    rounded: NDArray[np.float64] = np.rint(squares / step) * step
    return rounded


def totals_of(sums: Iterable[Sum]) -> dict[str, tuple[int, NDArray[np.float64], float]]:
    """Count, sum (D,) and squares of each object over its cameras."""
    found: dict[str, tuple[int, NDArray[np.float64], float]] = {}
    for one in sums:
        count, total, squares = found.get(one.object, (0, np.zeros(len(one.total)), 0.0))
        found[one.object] = (count + one.count, total + one.total, squares + one.squares)
    return found


def spread(count: int, total: NDArray[np.float64], squares: float) -> float:
    """The root mean squared distance of an object's images from their mean."""
    mean = total / max(1, count)
    return math.sqrt(max(0.0, squares / max(1, count) - float(mean @ mean)))
