"""What spatial verification does to the graph: against a slow reading of its rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.graph.graph import mutual, with_pairs
from resight.graph.pool import Pool
from resight.train.unlabelled.graph.learning import verified


def pool_of(seed: int, n: int) -> Pool:
    """Five neighbours of each image at random, the first three looked at; a pair has one count."""
    rng = np.random.default_rng(seed)
    k = min(5, n - 1)
    ids = np.full((n, k), -1, np.int32)
    for row in range(n):
        others = rng.permutation(np.delete(np.arange(n), row))[:k]
        ids[row, : len(others)] = others
    counts = rng.choice([-1, 0, 0, 9, 20], (n, n))
    counts = np.minimum(counts, counts.T)
    top = min(3, k)
    inliers = np.take_along_axis(counts, ids[:, :top].astype(np.int64), 1).astype(np.int16)
    return Pool(ids, np.full(ids.shape, 0.5, np.float16), inliers)


@given(st.integers(0, 10_000), st.integers(2, 14))
def test_joined_parted_or_left(seed: int, n: int) -> None:
    pool = pool_of(seed, n)
    assert pool.inliers is not None
    agree, looked = set(), set()
    for row in range(n):
        for column in range(pool.inliers.shape[1]):
            pair = frozenset((row, int(pool.neighbours[row, column])))
            if pool.inliers[row, column] >= 0:
                looked.add(pair)
            if pool.inliers[row, column] > 0:
                agree.add(pair)
    tells = {row for pair in agree for row in pair}
    wanted = {pair: float(pair in agree) for pair in looked if pair in agree or pair <= tells}
    first, second, weights = verified(pool)
    pairs = zip(first.tolist(), second.tolist(), weights.tolist(), strict=True)
    assert {frozenset((a, b)): w for a, b, w in pairs} == wanted
    assert len(first) == len(wanted)
    before = mutual(pool.neighbours, pool.similarities)
    after = with_pairs(before, first, second, weights)
    edges = {frozenset((a, b)) for a, b in zip(after.rows(), after.indices.tolist(), strict=True)}
    plain = {frozenset((a, b)) for a, b in zip(before.rows(), before.indices.tolist(), strict=True)}
    assert edges == (plain | agree) - {pair for pair, weight in wanted.items() if not weight}


def test_a_picture_without_points_keeps_its_neighbours() -> None:
    """0 and 1 agree, 2 agrees with none: nothing is said of it; 3 agrees with 4, and not with 0."""
    ids = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [4, 0, 2], [3, 0, 2]], np.int32)
    inliers = np.array([[30, 0, 0], [30, 0, -1], [0, 0, 0], [12, 0, 0], [12, -1, 0]], np.int16)
    pool = Pool(ids, np.full(ids.shape, 0.5, np.float16), inliers)
    first, second, weights = verified(pool)
    told = {frozenset(p): w for *p, w in zip(first.tolist(), second.tolist(), weights, strict=True)}
    assert told == {frozenset((0, 1)): 1, frozenset((3, 4)): 1, frozenset((0, 3)): 0}
    assert weights.dtype == np.float32
    with pytest.raises(AssertionError):
        verified(Pool(ids, pool.similarities))
