"""Mutual neighbours: against all similarities compared one by one, copies and ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.models.closed_form import Pair
from resight.train.fitting import neighbours
from resight.train.fitting.neighbours import COPY, MOST_SOURCES, mutual_pairs

ROOM = 1e-5  # similarities nearer than this may come in either order


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def identity(dims: int) -> Pair:
    return np.eye(dims, dtype=np.float32), np.zeros(dims, np.float32)


def oracle(
    vectors: np.ndarray,
    valid: np.ndarray,
    pair: Pair,
    k: int,
    cameras: np.ndarray | None,
) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Pairs that must come, and those that may: by ties among similarities."""
    rows = np.flatnonzero(valid)
    seen = unit(unit(vectors[rows].astype(np.float64)) @ pair[0].T.astype(float) + pair[1])
    compared, sources, gone = seen.copy(), None, np.zeros(len(rows), bool)
    if cameras is not None and 2 <= len(set(cameras[rows])) <= MOST_SOURCES:
        sources = cameras[rows]
        for source in set(sources):
            compared[sources == source] -= compared[sources == source].mean(0)
        gone = np.linalg.norm(compared, axis=1) < 1e-6  # the only images of their sources
        compared = unit(compared)

    alike_all = compared @ compared.T

    def near(i: int, j: int, room: float) -> bool:
        """Whether fewer than k others of i are nearer to it than j, by more than `room`."""
        others = np.ones(len(rows), bool) if sources is None else sources != sources[i]
        others[[i, j]] = False
        return int((alike_all[i, others] > alike_all[i, j] + room).sum()) < k

    must, may = set(), set()
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            if gone[i] or gone[j] or (sources is not None and sources[i] == sources[j]):
                continue
            alike = seen[i] @ seen[j]
            if near(i, j, ROOM) and near(j, i, ROOM) and alike < COPY + ROOM:
                may.add((int(rows[i]), int(rows[j])))
            if near(i, j, -ROOM) and near(j, i, -ROOM) and alike < COPY - ROOM:
                must.add((int(rows[i]), int(rows[j])))
    return must, may


@settings(max_examples=40)
@given(
    count=st.integers(2, 12),
    k=st.integers(1, 4),
    cameras=st.sampled_from([0, 1, 2, 4, 15]),
    copies=st.booleans(),
    coarse=st.booleans(),
    seed=st.integers(0, 999),
)
def test_pairs_are_those_of_the_slow_rule(count, k, cameras, copies, coarse, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 4)).astype(np.float32)
    if coarse:  # ties among similarities
        vectors = np.sign(vectors).astype(np.float32)
    if copies:
        vectors[rng.integers(0, count, count // 2)] = vectors[0]
    valid = rng.random(count) < 0.8
    valid[:2] = True
    pair = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    places = rng.integers(0, cameras, count) if cameras else None
    must, may = oracle(vectors, valid, pair, k, places)
    vectors[~valid] = np.nan
    first, second = mutual_pairs(vectors, valid, pair, k, places)
    found = set(zip(first.tolist(), second.tolist(), strict=True))
    assert len(found) == len(first) and all(i < j for i, j in found)
    if not (coarse or copies or cameras):
        assert len(may - must) <= 1  # the oracle decides nearly everything
    assert found <= may
    # Of many that tie for the last places any k may be taken.
    assert must <= found


def test_each_source_loses_what_it_does_to_all_its_images():
    """Two cameras of different light: across them the same object is found."""
    rng = np.random.default_rng(0)
    things = np.tile(rng.normal(size=(8, 16)), (2, 1))
    light = 5 * rng.normal(size=(2, 16))
    cameras = np.arange(16) // 8
    vectors = (things + light[cameras] + 0.05 * rng.normal(size=(16, 16))).astype(np.float32)
    valid, pair = np.ones(16, bool), identity(16)
    first, second = mutual_pairs(vectors, valid, pair, 1, cameras)
    assert len(first) >= 6 and (second - first == 8).all()
    alone, others = mutual_pairs(vectors, valid, pair, 1)
    assert (cameras[alone] == cameras[others]).all()
    many = np.arange(16)  # more sources than count: as without
    assert np.array_equal(mutual_pairs(vectors, valid, pair, 1, many)[0], alone)


def test_the_only_image_of_a_source_is_near_nothing():
    """Its source's mean is itself: the zero that is left is no direction."""
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(1, 3)), -unit(rng.normal(size=(5, 3)))])
    cameras = np.r_[0, np.ones(5, int)]
    first, _ = mutual_pairs(vectors.astype(np.float32), np.ones(6, bool), identity(3), 3, cameras)
    assert not len(first)


def test_copies_teach_nothing():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 8)).astype(np.float32).repeat(3, 0)
    vectors *= rng.uniform(0.5, 2, (18, 1)).astype(np.float32)
    first, second = mutual_pairs(vectors, np.ones(18, bool), identity(8), 2)
    assert not len(first) and not len(second)
    first, second = mutual_pairs(np.ones((5, 3), np.float32), np.ones(5, bool), identity(3), 3)
    assert not len(first)


def test_of_very_many_an_even_sample_is_looked_at(monkeypatch):
    monkeypatch.setattr(neighbours, "MOST", 10)
    monkeypatch.setattr(neighbours, "_BLOCK", 3)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 4)).astype(np.float32)
    valid = np.arange(100) % 2 == 1
    first, second = mutual_pairs(vectors, valid, identity(4), 2)
    rows = np.flatnonzero(valid)[np.linspace(0, 49, 10).astype(int)]
    small, other = mutual_pairs(vectors[rows], np.ones(10, bool), identity(4), 2)
    np.testing.assert_array_equal(first, rows[small])
    np.testing.assert_array_equal(second, rows[other])


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_has_no_neighbour_and_two_have_each_other(count):
    vectors = np.eye(2, dtype=np.float32)[:count]
    first, _ = mutual_pairs(vectors, np.ones(count, bool), identity(2), 3)
    assert len(first) == count - 1
