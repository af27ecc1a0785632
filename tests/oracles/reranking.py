"""Slow, obvious twins of re-ranking: sets, loops and whole matrices in float64."""

from __future__ import annotations

import numpy as np


def nearest(similarity: np.ndarray, k: int, own: int | None = None) -> list[int]:
    """The k highest of a row but for `own`; of equals the lower."""
    order = sorted(range(len(similarity)), key=lambda j: (-similarity[j], j))
    return [j for j in order if j != own][:k]


def _reciprocal(lists: list[list[int]], i: int, k: int) -> set[int]:
    return {i} | {j for j in lists[i][:k] if i in lists[j][:k]}


def _joined(start: set[int], lists: list[list[int]], half: int) -> set[int]:
    found = set(start)
    for j in start:
        more = _reciprocal(lists, j, half)
        if 3 * len(start & more) >= 2 * len(more):
            found |= more
    return found


def _gaussian(members: set[int], similarity: np.ndarray) -> np.ndarray:
    row = np.zeros(len(similarity))
    for j in members:
        row[j] = np.exp(-(1 - similarity[j]))
    return row / row.sum() if members else row


def encoded(similarity: np.ndarray, k1: int, k2: int) -> tuple[np.ndarray, np.ndarray]:
    """V and V' (N, N) of a whole set."""
    n = len(similarity)
    lists = [nearest(similarity[i], n, i) for i in range(n)]
    own = np.array(
        [
            _gaussian(_joined(_reciprocal(lists, i, k1), lists, round(k1 / 2)), similarity[i])
            for i in range(n)
        ]
    ).reshape(n, n)
    mean = [np.mean([own[j] for j in [i, *lists[i][: k2 - 1]]], axis=0) for i in range(n)]
    return own, np.array(mean).reshape(n, n)


def shares(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """sum min / sum max of all pairs of rows: 1 - Jaccard distance."""
    table = np.zeros((len(left), len(right)))
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i, j] = np.minimum(a, b).sum() / np.maximum(a, b).sum()
    return table


def beside(gallery: np.ndarray, query: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """1 - Jaccard distance of one query, similarities (N,), to a gallery, similarities (N, N)."""
    n = len(gallery)
    own, mean = encoded(gallery, k1, k2)
    lists = [nearest(gallery[i], n, i) for i in range(n)]
    near = nearest(query, n)
    start = {g for g in near[:k1] if sum(gallery[g, j] >= query[g] for j in lists[g][:k1]) < k1}
    row = _gaussian(_joined(start, lists, round(k1 / 2)), query)
    row = np.mean([row, *(own[j] for j in near[: k2 - 1])], axis=0)
    return shares(row[None], mean)[0]


def expanded(query: np.ndarray, vectors: np.ndarray, n: int, alpha: float) -> np.ndarray:
    """A unit query and the n nearest of unit rows, weighed by similarity^alpha, of unit length."""
    similarity = vectors @ query
    total = query.copy()
    for j in nearest(similarity, n):
        total = total + max(similarity[j], 0.0) ** alpha * vectors[j]
    length = np.sqrt(total @ total)
    return total / (length if length > 0 else 1)


def diffused(full: np.ndarray, similarity: np.ndarray, n: int) -> np.ndarray:
    """A query's row: its n nearest start with similarity³, summing to 1; full (N, N) is F."""
    start = np.zeros(len(full))
    for j in nearest(similarity, n):
        start[j] = max(similarity[j], 0.0) ** 3
    return (start / start.sum() if start.sum() else start) @ full
