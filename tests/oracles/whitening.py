"""Whitening as the papers write it: all rows at once, every pair by itself."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, np.float64)
    return np.stack([row / max(np.linalg.norm(row), 1e-12) for row in rows])


def shrinkage(rows: np.ndarray) -> float:
    """Ledoit and Wolf 2004, lemma 3.1 to 3.4, of centred rows (n, D)."""
    n, dims = rows.shape
    sample = sum(np.outer(x, x) for x in rows) / n
    mu = np.trace(sample) / dims
    d2 = np.linalg.norm(sample - mu * np.eye(dims)) ** 2
    b2 = sum(np.linalg.norm(np.outer(x, x) - sample) ** 2 for x in rows) / n**2
    return min(b2, d2) / d2 if d2 > 0 else 1.0


def within(vectors: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Half the mean outer product of pair differences, the pairs of an object weighing 2 / n."""
    rows = unit(vectors)
    total, weights = np.zeros((rows.shape[1],) * 2), 0.0
    for name in set(objects.tolist()) - {-1}:
        own = np.flatnonzero(objects == name)
        for i, j in combinations(own, 2):
            total += np.outer(rows[i] - rows[j], rows[i] - rows[j]) / len(own)
        weights += len(own) - 1
    return total / weights


def learned(
    vectors: np.ndarray, objects: np.ndarray, dims: int, shrink: float
) -> tuple[np.ndarray, np.ndarray]:
    """Radenovic et al.: Cholesky of the differences, then PCA; projected rows (N, dims), weight."""
    rows = unit(vectors)
    spread = within(vectors, objects)
    spread = (1 - shrink) * spread + shrink * np.trace(spread) / len(spread) * np.eye(len(spread))
    first = np.linalg.inv(np.linalg.cholesky(spread))
    centred = (rows - rows.mean(0)) @ first.T
    values, axes = np.linalg.eigh(centred.T @ centred)
    main = axes[:, np.argsort(-values)[:dims]]
    return centred @ main, main.T @ first
