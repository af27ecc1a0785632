"""Sums made once and sliced: against each candidate fitted alone to vectors of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.data.imageset import ImageSet, normalise
from resight.features.store import Features
from resight.models.closed_form import Pair, discriminant, joined, pair_discriminant, whitening
from resight.models.depths import Depth, Maps, Part
from resight.models.moments import difference_scatter, moments, spread
from resight.train.fitting import sums as sums_of
from resight.train.fitting.candidates import Candidate
from resight.train.fitting.neighbours import ROUNDS, mutual_pairs
from resight.train.fitting.sums import Columns, Sums, columns_of

ROWS = 60
DEPTHS = [Depth(0, 4, (8, 8), 4), Depth(1, 5, (4, 4), 8, token=True), Depth(2, 6, (1, 1), 16)]
PARTS = [Part(depth, grid) for grid in (1, 2) for depth in DEPTHS]
MAPS = Maps(PARTS)
OBJECTS = np.arange(ROWS) // 5
CANDIDATES = [
    Candidate(method, depths, grid, dims=6, shrink=0.2)
    for method in ("whitening", "discriminant")
    for depths, grid in (((0, 1, 2), 1), ((1,), 1), ((2, 0), 1), ((0, 1), 2), ((1, 2), 2))
]


def vectors(seed: int = 0) -> np.ndarray:
    """Parts of equal length, joined, as `Maps` gives them; object by object alike."""
    rng = np.random.default_rng(seed)
    parts = []
    for part in PARTS:
        centres = rng.normal(size=(ROWS // 5, part.width)) + 1
        one = centres[OBJECTS] + 0.5 * rng.normal(size=(ROWS, part.width))
        parts.append(one / np.linalg.norm(one, axis=1, keepdims=True))
    return (np.hstack(parts) / len(parts) ** 0.5).astype(np.float32)


def features(rows: np.ndarray, shard: int = ROWS) -> Features:
    table = normalise(pl.DataFrame({"path": [f"{k}.png" for k in range(len(rows))]}))
    shards = tuple(rows[k : k + shard] for k in range(0, len(rows), shard))
    return Features(ImageSet(table, Path()), shards, np.ones(len(rows), bool))


def alone(candidate: Candidate, rows: np.ndarray, used: np.ndarray) -> Pair:
    """The candidate fitted from scratch to its own columns, written out one by one."""
    wanted = [np.zeros(0, int)]
    for key in candidate.parts:
        start = 0
        for part in PARTS:
            if (part.depth.number, part.grid) == key:
                wanted.append(np.arange(start, start + part.width))
            start += part.width
    own = rows[:, np.concatenate(wanted)]
    total = moments(own, used)
    if candidate.method == "discriminant":
        return discriminant(total, spread(own, OBJECTS, used), 6, shrink=candidate.shrink)
    white = whitening(total, 6)
    if candidate.method == "whitening":
        return white
    pair = white
    for k in ROUNDS:
        scatter = difference_scatter(own, mutual_pairs(own, used, pair, k))
        pair = pair_discriminant(total, scatter, 6, shrink=candidate.shrink)
    return pair if candidate.method == "neighbours" else joined(white, pair, total, 6)


def close(found: Pair | None, expected: Pair) -> None:
    assert found is not None
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(expected[0]).max())


@pytest.mark.parametrize("seed", range(3))
def test_each_candidate_is_what_it_is_alone(seed):
    rows = vectors(seed)
    used = np.random.default_rng(seed).random(ROWS) < 0.8
    sums = Sums(features(rows), MAPS, used, OBJECTS)
    sums.prepare(CANDIDATES)
    for candidate in CANDIDATES:
        total, found = sums.of(candidate)
        own = Columns(rows, columns_of(MAPS, candidate, rows.shape[1]))
        expected = moments(own, used)
        assert total.count == expected.count
        np.testing.assert_allclose(total.mean, expected.mean, atol=1e-6)
        np.testing.assert_allclose(total.covariance, expected.covariance, atol=1e-6)
        apart = spread(own, OBJECTS, used)
        assert found is not None
        np.testing.assert_allclose(found.within, apart.within, atol=1e-6)
        np.testing.assert_allclose(found.means, apart.means, atol=1e-6)
        close(sums.fit(candidate), alone(candidate, rows, used))


@pytest.mark.parametrize("method", ["neighbours", "joined"])
def test_neighbours_take_their_rounds_in_the_candidates_own_space(method):
    rows, used = vectors(), np.arange(ROWS) % 7 > 0
    candidate = Candidate(method, (0, 2), dims=6)
    sums = Sums(features(rows), MAPS, used, np.full(ROWS, -1))
    sums.prepare([candidate, Candidate("whitening", (0, 1, 2), dims=6)])
    close(sums.fit(candidate), alone(candidate, rows, used))


def test_neighbours_without_a_single_pair_stay_the_whitening(monkeypatch):
    """Copies alone: no two images say what differs within an object."""
    none = np.zeros(0, np.int64)
    monkeypatch.setattr(sums_of, "mutual_pairs", lambda *_: (none, none))
    candidate = Candidate("neighbours", (0, 1), dims=6)
    sums = Sums(features(vectors()), MAPS, np.ones(ROWS, bool), np.full(ROWS, -1))
    sums.prepare([candidate])
    close(
        sums.fit(candidate), alone(replace(candidate, method="whitening"), vectors(), OBJECTS >= 0)
    )


@settings(max_examples=20)
@given(st.integers(1, 70), st.integers(1, 70))
def test_blocks_and_shards_change_nothing(block, shard):
    rows, used = vectors(), np.arange(ROWS) % 4 > 0
    rows[~used] = np.nan
    expected = Sums(features(rows), MAPS, used, OBJECTS)
    expected.prepare(CANDIDATES)
    with pytest.MonkeyPatch.context() as patch:
        for name, call in (("moments", moments), ("spread", spread)):
            patch.setattr(sums_of, name, lambda *args, call=call: call(*args, block=block))
        found = Sums(features(rows, shard), MAPS, used, OBJECTS)
        found.prepare(CANDIDATES)
    for candidate in CANDIDATES[::2]:
        pair = expected.fit(candidate)
        assert pair is not None
        close(found.fit(candidate), pair)


def test_without_parts_all_columns_are_taken():
    """Of a trained embedder; also of one that begins with joined maps, and ends otherwise."""
    rows = vectors()[:, :9]
    candidate = Candidate("whitening", dims=6)
    for maps in (None, MAPS):
        assert columns_of(maps, candidate, 9).tolist() == list(range(9))
        sums = Sums(features(rows), maps, OBJECTS >= 0, OBJECTS)
        sums.prepare([candidate])
        close(sums.fit(candidate), whitening(moments(rows), 6))


def test_raw_needs_no_sums_and_labels_only_what_asks_for_them():
    sums = Sums(features(vectors()), MAPS, np.ones(ROWS, bool), np.full(ROWS, -1))
    ways = [Candidate("raw", (0,)), Candidate("whitening", (0, 1))]
    sums.prepare(ways)  # not one object is known
    assert sums.fit(ways[0]) is None and sums.of(ways[1])[1] is None
    with pytest.raises(ValueError, match="0 objects with two images"):
        sums.prepare([Candidate("discriminant", (0,))])


def test_columns_read_what_is_asked_for():
    rows = vectors()
    view = Columns(features(rows, 7), np.array([5, 2]))
    assert view.shape == (ROWS, 2) and len(view) == ROWS
    np.testing.assert_array_equal(view[3:20], rows[3:20][:, [5, 2]])
    np.testing.assert_array_equal(view[np.array([50, 1])], rows[[50, 1]][:, [5, 2]])
    half = Columns(rows.astype(np.float16), np.array([1]))
    assert half[:4].dtype == np.float32
