"""Closed forms as the papers write them: all rows at once, every pair by itself, float64."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, np.float64)
    return np.stack([row / max(np.linalg.norm(row), 1e-12) for row in rows])


def covariance(rows: np.ndarray) -> np.ndarray:
    mean = rows.mean(0)
    total = sum(np.outer(row - mean, row - mean) for row in rows)
    return np.asarray(total / len(rows))


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


def scatter(vectors: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Half the mean outer product of the differences of these pairs."""
    rows = unit(vectors)
    return np.asarray(
        sum(np.outer(rows[i] - rows[j], rows[i] - rows[j]) for i, j in pairs) / (2 * len(pairs))
    )


def object_means(vectors: np.ndarray, objects: np.ndarray) -> np.ndarray:
    rows = unit(vectors)
    return np.stack(
        [rows[objects == name].mean(0) for name in sorted(set(objects.tolist()) - {-1})]
    )


def axes_of(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and -vectors of a symmetric matrix, the largest first."""
    values, axes = np.linalg.eigh(matrix)
    return values[::-1], axes[:, ::-1]


def white(vectors: np.ndarray, dims: int, floor: float) -> np.ndarray:
    """The centred rows on their main axes, each evened out; (N, dims), mean square 1."""
    rows = unit(vectors)
    values, axes = axes_of(covariance(rows))
    values, axes = values[:dims], axes[:, :dims]
    return scaled((rows - rows.mean(0)) @ axes / np.sqrt(values + floor * values.mean()))


def discriminant(vectors: np.ndarray, objects: np.ndarray, dims: int, shrink: float) -> np.ndarray:
    """Fisher's directions by the root of the covariance within, then those of all rows."""
    rows = unit(vectors)
    turn = _evening(within(vectors, objects), shrink)
    centred = (rows - rows.mean(0)) @ turn
    means = (object_means(vectors, objects) - rows.mean(0)) @ turn
    axes = axes_of(means.T @ means)[1][:, : min(dims, len(means) - 1)]
    if axes.shape[1] < dims:
        away = centred - centred @ axes @ axes.T
        axes = np.hstack([axes, axes_of(away.T @ away)[1][:, : dims - axes.shape[1]]])
    return scaled(centred @ axes)


def pair_discriminant(
    vectors: np.ndarray, difference: np.ndarray, dims: int, shrink: float
) -> np.ndarray:
    """The differences of pairs evened out (Radenovic et al.), then the main axes of all rows."""
    rows = unit(vectors)
    centred = (rows - rows.mean(0)) @ _evening(difference, shrink)
    return scaled(centred @ axes_of(centred.T @ centred)[1][:, :dims])


def joined(first: np.ndarray, second: np.ndarray, dims: int) -> np.ndarray:
    """Two projections of the same rows side by side, on their main axes."""
    both = np.hstack([first, second])
    return scaled(both @ axes_of(both.T @ both)[1][:, :dims])


def scaled(rows: np.ndarray) -> np.ndarray:
    """To a mean squared length of 1."""
    return np.asarray(rows / np.sqrt((rows**2).sum(1).mean()))


def _evening(covariance: np.ndarray, shrink: float) -> np.ndarray:
    """The inverse root of a covariance, shrunk to a round one of the same size, for rows."""
    size = np.trace(covariance) / len(covariance)
    values, axes = axes_of((1 - shrink) * covariance + shrink * size * np.eye(len(covariance)))
    return np.asarray(axes / np.sqrt(np.maximum(values, 1e-30)) @ axes.T)
