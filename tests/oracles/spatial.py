"""Slow, obvious twins of spatial verification: plain loops over whole numbers."""

from __future__ import annotations

import numpy as np


def matches(a: np.ndarray, b: np.ndarray, ratio: float) -> set[tuple[int, int]]:
    """Rows of the descriptors a (n, d) and b (m, d) that are each other's clearly nearest."""

    def distance(i: int, j: int) -> int:
        return sum((int(x) - int(y)) ** 2 for x, y in zip(a[i], b[j], strict=True))

    found = set()
    for i in range(len(a)):
        for j in range(len(b)):
            others = [distance(i, k) for k in range(len(b)) if k != j]
            others += [distance(k, j) for k in range(len(a)) if k != i]
            here = distance(i, j)
            if all(here < ratio * ratio * other for other in others):
                found.add((i, j))
    return found


def moved(homography: np.ndarray, point: np.ndarray) -> np.ndarray:
    """A point (2,) under a homography (3, 3)."""
    x, y, depth = homography @ np.array([point[0], point[1], 1.0])
    return np.array([x / depth, y / depth])
