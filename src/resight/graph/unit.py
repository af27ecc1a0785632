"""Unit vectors whose products have no rounding, and the nearest in rows of similarities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resight.features.rows import Rows
from resight.graph.neighbours import NONE

_CHUNK = 8192
_GRID = 2.0**26  # float64 sums of products of its multiples are exact, in whatever order


def unit_rows(vectors: Rows) -> NDArray[np.float32]:
    """Rows (N, D) of any length as unit float32, multiples of 2^-26; zero ones, and those that are
    not finite, are zero."""
    out = np.empty((len(vectors), vectors.shape[1]), np.float32)
    for start in range(0, len(out), _CHUNK):
        part = np.asarray(vectors[start : start + _CHUNK]).astype(np.float64)
        part[~np.isfinite(part).all(axis=1)] = 0
        largest = np.abs(part).max(axis=1, initial=0)
        part /= np.where(largest > 0, largest, 1)[:, None]
        norms = np.sqrt(np.einsum("nd,nd->n", part, part))
        part *= (_GRID / np.where(norms > 0, norms, 1))[:, None]
        out[start : start + _CHUNK] = np.rint(part) / _GRID
    return out


def products(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines (Q, N) of such rows, exact."""
    left = queries.astype(np.float64)
    out = np.empty((len(queries), len(vectors)))
    for start in range(0, len(vectors), _CHUNK):
        right = vectors[start : start + _CHUNK].astype(np.float64)
        np.matmul(left, right.T, out=out[:, start : start + _CHUNK])
    return out


def best_of(
    scores: NDArray[np.float64], k: int, without: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The k highest of each row of scores (Q, N), and the scores: (Q, k) both, best first.

    Of equals the lower column; -1 and -2 where there are no more. `without` (Q,): a column that
    is passed over in each row, -1 for none.
    """
    count, columns = scores.shape
    ids, values = np.full((count, k), -1, np.int32), np.full((count, k), NONE)
    for row in range(count):
        line = scores[row]
        place = -1 if without is None else int(without[row])
        if place >= 0:
            line = line.copy()
            line[place] = -np.inf
        if k + 1 < columns:
            least = np.partition(line, columns - k)[columns - k]
            at = np.flatnonzero(line >= least)
        else:
            at = np.arange(columns)
        at = at[line[at] > -np.inf]
        at = at[np.argsort(-line[at], kind="stable")][:k]
        ids[row, : len(at)], values[row, : len(at)] = at, line[at]
    return ids, values
