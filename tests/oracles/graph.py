"""The neighbour graph as its papers define it: dense, float64, one pair at a time."""

from __future__ import annotations

import numpy as np


def mutual(neighbours: np.ndarray, similarities: np.ndarray, power: float = 3.0) -> np.ndarray:
    """(N, N): the mean similarity ** power where each is among the other's neighbours."""
    n = len(neighbours)
    seen = [
        {int(j): float(s) for j, s in zip(row, sims, strict=True) if j >= 0}
        for row, sims in zip(neighbours, similarities, strict=True)
    ]
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j and j in seen[i] and i in seen[j]:
                out[i, j] = max((seen[i][j] + seen[j][i]) / 2, 0) ** power
    return out


def normalised(a: np.ndarray) -> np.ndarray:
    """D^-1/2 A D^-1/2, rows of nothing but zeros left alone."""
    degrees = a.sum(1)
    scale = np.diag([1 / np.sqrt(d) if d > 0 else 1.0 for d in degrees])
    return np.asarray(scale @ a @ scale)


def diffusion(a: np.ndarray, alpha: float) -> np.ndarray:
    """(I - alpha S)^-1."""
    return np.asarray(np.linalg.inv(np.eye(len(a)) - alpha * normalised(a)))


def cosine_normalised(f: np.ndarray) -> np.ndarray:
    """F_ij / sqrt(F_ii F_jj)."""
    own = np.sqrt(np.diag(f))
    return np.asarray(f / np.outer(own, own))
