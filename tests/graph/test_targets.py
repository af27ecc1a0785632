"""The strongest pairs, and how many of them two halves of the features agree on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graph.test_graph import joined

from resight.graph.across import centred, nearest_across
from resight.graph.diffusion import diffuse
from resight.graph.targets import COUNTS, agreement, believed, strongest


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 70), st.sampled_from([0.5, 1.0, 3.0, 100.0]), st.integers(0, 2**16))
def test_the_strongest_pairs(n, count, seed):
    graph, _, _ = joined(n, 5, seed)
    found = diffuse(graph, top=6)
    kept = strongest(found, count).dense()
    assert np.array_equal(kept, kept.T) and (np.diag(kept) == 0).all()
    full = found.dense()
    full = np.maximum(full, full.T)
    np.fill_diagonal(full, 0)
    values = np.sort(full[np.triu_indices(n, 1)])[::-1]
    values = values[values > 0]
    wanted = min(max(1, round(n * count / 2)), len(values))
    level = values[wanted - 1] if wanted else 1.0
    np.testing.assert_array_equal(kept, np.where(full >= level, full, 0).astype(np.float32))


def test_more_neighbours_only_add():
    graph, _, _ = joined(80, 6)
    found = diffuse(graph)
    before = strongest(found, 0.5).dense() > 0
    for count in (1, 2, 4, 8):
        now = strongest(found, count).dense() > 0
        assert (now | ~before).all() and now.sum() > before.sum()
        before = now


@pytest.mark.parametrize("shots", [2, 5, 12])
def test_halves_agree_on_how_many_photos_a_thing_has(shots):
    random = np.random.default_rng(shots)
    things = random.standard_normal((60, 64)).repeat(shots, 0)
    vectors = things + (0.5 if shots == 2 else 1.0) * random.standard_normal(things.shape)
    shares = agreement(vectors, np.arange(len(vectors)), k=10)
    assert shares.shape == (len(COUNTS),) and ((shares >= 0) & (shares <= 1)).all()
    assert 0.35 * (shots - 1) <= believed(shares) <= 1.5 * (shots - 1)


def test_halves_do_not_agree_on_noise():
    noise = np.random.default_rng(0).standard_normal((300, 40))
    assert agreement(noise, np.arange(300), k=10).max() < 0.3


def test_the_largest_of_those_that_are_as_good():
    assert believed(np.array([0.5, 0.8, 0.79, 0.6]), (1, 2, 4, 8)) == 4
    assert believed(np.zeros(4), (1, 2, 4, 8)) == 8


def test_sources_are_looked_at_one_by_one():
    random = np.random.default_rng(0)
    things = random.standard_normal((30, 16))
    styles = 3 * random.standard_normal((3, 16))
    sources = np.repeat(np.arange(3), 30)
    rows = np.tile(things, (3, 1)) + styles[sources] + 0.2 * random.standard_normal((90, 16))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    inside, gone = centred(unit, sources)
    assert not gone.any()
    for source in range(3):
        assert np.abs(inside[sources == source].mean(0)).max() < 0.2
    ids, similar = nearest_across(unit, sources, 2)
    assert ids.shape == similar.shape == (90, 6)
    for row in range(90):
        for source in range(3):
            near = ids[row, 2 * source : 2 * source + 2]
            if source == sources[row]:  # a thing once a source: within one there is nothing
                assert (near == -1).all()
                continue
            others = np.flatnonzero(sources == source)
            order = others[np.argsort(-(inside[others] @ inside[row]), kind="stable")][:2]
            assert near.tolist() == order.tolist() and near[0] % 30 == row % 30


def test_within_a_source_that_sees_things_often():
    random = np.random.default_rng(1)
    things = random.standard_normal((20, 16))
    rows = np.concatenate([things, things, things]) + 0.1 * random.standard_normal((60, 16))
    sources = np.r_[np.zeros(40, int), np.ones(20, int)]
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    ids, _ = nearest_across(unit, sources, 1)
    assert (ids[:40, 0] % 20 == np.arange(40) % 20).all() and (ids[40:, 1] == -1).all()


def test_a_source_with_one_image():
    unit = np.eye(5, dtype=np.float32)
    ids, _ = nearest_across(unit, np.array([0, 0, 1, 1, 2]), 3)
    assert (ids[4] == -1).all() and not (ids == 4).any()
