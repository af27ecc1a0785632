"""The compiled loops of unit rows and positives. Called from many threads at once.

Compiled by numba on first use and kept on disk. Each works on the rows [first, last) of one tile;
the calls touch different rows, so that they need no locks.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from resight.compiled import compiled

# Only sums that are exact in any order (see units.py) may be reordered.
_any_order = partial(compiled, fastmath={"reassoc", "contract"})
_GRID = 2.0**26


@compiled
def normalise(rows, out):  # type: ignore[no-untyped-def]
    """L2-normalise rows (n, D) and round to multiples of 2**-26, into out (n, D) float32.

    The squares are added in eight lanes and these in order, whatever the processor, so that the
    norm has the same digits everywhere.
    """
    lanes = np.zeros(8)
    for r in range(rows.shape[0]):
        row = rows[r]
        largest = 0.0
        for value in row:
            largest = max(largest, abs(np.float64(value)))
        if largest == 0.0:
            out[r] = 0
            continue
        # Squares of huge and tiny float64 values overflow; powers of two take nothing off. Two of
        # them, as the reciprocal of the tiniest would overflow itself.
        one = two = 1.0
        if largest > 1e100 or largest < 1e-100:
            exponent = math.frexp(largest)[1]
            one = math.ldexp(1.0, -exponent // 2)
            two = math.ldexp(1.0, -exponent - -exponent // 2)
        lanes[:] = 0
        whole = row.size // 8 * 8
        for start in range(0, whole, 8):
            for k in range(8):
                value = np.float64(row[start + k]) * one * two
                lanes[k] += value * value
        for k in range(row.size - whole):
            value = np.float64(row[whole + k]) * one * two
            lanes[k] += value * value
        total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + (
            (lanes[4] + lanes[5]) + (lanes[6] + lanes[7])
        )
        scale = _GRID / np.sqrt(total)
        for k in range(row.size):
            out[r, k] = np.rint(np.float64(row[k]) * one * two * scale) * (1.0 / _GRID)


@_any_order
def dot(left, right):  # type: ignore[no-untyped-def]
    """The exact similarity of two unit rows, float64."""
    total = 0.0
    for k in range(left.size):
        total += np.float64(left[k]) * np.float64(right[k])
    return total


@_any_order
def dot_of(left, r, right, c):  # type: ignore[no-untyped-def]
    """The exact similarity of row r of left and row c of right, without a view of either."""
    total = 0.0
    for k in range(left.shape[1]):
        total += np.float64(left[r, k]) * np.float64(right[c, k])
    return total


@compiled
def positive_similarities(  # type: ignore[no-untyped-def]
    first, last, left, right, first_column, indptr, index, out
):
    """The exact similarity of rows [first, last) to those of their positives in this block.

    left (n, D): the queries' unit rows; right (m, D): the gallery's from `first_column` on;
    indptr, index: the positives of each query; out: aligned to index.
    """
    for r in range(first, last):
        for entry in range(indptr[r], indptr[r + 1]):
            column = index[entry] - first_column
            if 0 <= column < right.shape[0]:
                out[entry] = dot_of(left, r, right, column)


@compiled
def order_positives(first, last, indptr, index, similarity, order):  # type: ignore[no-untyped-def]
    """For rows [first, last) the order of their positives from worst to best, into `order`.

    Worst is the lowest similarity, and among equal ones the highest index.
    """
    for r in range(first, last):
        start, stop = indptr[r], indptr[r + 1]
        backwards = np.arange(stop - start)[::-1]
        for k in range(start + 1, stop):
            if index[k] < index[k - 1]:
                backwards = np.argsort(-index[start:stop], kind="mergesort")
                break
        rising = np.argsort(similarity[start:stop][backwards], kind="mergesort")
        for k in range(stop - start):
            order[start + k] = start + backwards[rising[k]]
