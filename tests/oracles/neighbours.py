"""The slow, obvious twin of the candidate pool: the whole matrix in float64, and a plain sort."""

from __future__ import annotations

import numpy as np


def similarities(vectors: np.ndarray) -> np.ndarray:
    """(N, N) float64 cosines; 0 with a zero row, NaN with one that isn't finite."""
    wide = np.asarray(vectors, np.float64)
    unit = [row / (np.sqrt(row @ row) or 1.0) for row in wide]
    return np.array([[float(a @ b) for b in unit] for a in unit]).reshape(len(wide), len(wide))


def neighbours(
    vectors: np.ndarray, k: int, valid: np.ndarray | None = None
) -> list[list[tuple[int, float]]]:
    """For each row its k nearest others as (row, cosine), sorted by (-cosine, row)."""
    table = similarities(vectors)
    usable = np.isfinite(np.asarray(vectors, np.float64)).all(axis=1)
    if valid is not None:
        usable &= valid
    found = []
    for row in range(len(table)):
        others = [j for j in range(len(table)) if usable[j] and j != row and usable[row]]
        others.sort(key=lambda j, row=row: (-table[row, j], j))
        found.append([(j, table[row, j]) for j in others[:k]])
    return found
