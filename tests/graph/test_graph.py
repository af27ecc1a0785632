"""The graph of mutual neighbours, against every pair by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damage import flip
from tests.oracles import graph as oracle

from resight.errors import UserError
from resight.graph.graph import Graph, mutual, with_pairs
from resight.graph.pool import build_pool


def crowd(n: int, seed: int = 0, dim: int = 8) -> np.ndarray:
    """Vectors in groups of about six."""
    random = np.random.default_rng(seed)
    middles = random.standard_normal((max(n // 6, 1), dim))
    return middles[random.integers(len(middles), size=n)] + 0.5 * random.standard_normal((n, dim))


def joined(n: int, k: int, seed: int = 0) -> tuple[Graph, np.ndarray, np.ndarray]:
    """The graph of a crowd, and the neighbours it was made of."""
    pool = build_pool(crowd(n, seed), k=k)
    near, similar = np.asarray(pool.neighbours), np.asarray(pool.similarities, np.float32)
    return mutual(near, similar), near, similar


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(1, 8), st.integers(0, 2**16))
def test_as_each_pair_says(n, k, seed):
    graph, near, similar = joined(n, k, seed)
    np.testing.assert_allclose(graph.dense(), oracle.mutual(near, similar), atol=1e-6)
    np.testing.assert_allclose(
        graph.normalised().dense(), oracle.normalised(graph.dense()), atol=1e-6
    )
    assert np.array_equal(graph.dense(), graph.dense().T)
    for i in range(n):
        assert (np.diff(graph.row(i)[0]) > 0).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 50), st.integers(0, 2**16))
def test_names_and_columns_do_not_matter(n, seed):
    graph, near, similar = joined(n, 4, seed)
    random = np.random.default_rng(seed)
    columns = random.permutation(near.shape[1])
    again = mutual(
        np.c_[near[:, columns], np.full((n, 2), -1, np.int32)],
        np.c_[similar[:, columns], np.full((n, 2), -2)],
    )
    assert np.array_equal(graph.dense(), again.dense())
    order = random.permutation(n)
    place = np.argsort(order).astype(np.int32)
    moved = mutual(np.where(near[order] >= 0, place[near[order]], -1), similar[order])
    np.testing.assert_array_equal(moved.dense(), graph.dense()[np.ix_(order, order)])


def test_nobody_alike_no_edge():
    near = np.array([[1], [0], [-1]], np.int32)
    graph = mutual(near, np.array([[-0.5], [-0.5], [-2.0]], np.float32))
    assert graph.edges == 0 and (graph.normalised().dense() == 0).all()
    with pytest.raises(ValueError, match="none of the rows"):
        mutual(np.array([[3]], np.int32), np.ones((1, 1), np.float32))
    with pytest.raises(ValueError, match="similarities"):
        mutual(near, np.ones((3, 2), np.float32))


def test_verified_pairs_join_and_part():
    graph, _, _ = joined(40, 4)
    i, j = int(graph.rows()[0]), int(graph.indices[0])
    apart = next(c for c in range(40) if c != i and graph.dense()[i, c] == 0)
    first, second = np.array([i, i]), np.array([j, apart])
    wanted = graph.dense()
    wanted[i, j] = wanted[j, i] = 0
    wanted[i, apart] = wanted[apart, i] = 0.25
    changed = with_pairs(graph, first, second, np.array([0, 0.25], np.float32))
    np.testing.assert_array_equal(changed.dense(), wanted)
    stronger = with_pairs(graph, second[:1], first[:1], np.array([2], np.float32))
    assert stronger.dense()[i, j] == stronger.dense()[j, i] == 2 and stronger.edges == graph.edges
    for a, b, w in (([1], [1], [1]), ([1, 2], [2, 1], [1, 1]), ([1], [2], [-1])):
        with pytest.raises(ValueError, match="once each"):
            with_pairs(graph, np.array(a), np.array(b), np.array(w, np.float32))


def test_on_disk(tmp_path):
    graph, _, _ = joined(50, 5)
    graph.save(tmp_path / "g", {"of": "these"})
    found = Graph.load(tmp_path / "g", {"of": "these"})
    assert isinstance(found.values, np.memmap)
    np.testing.assert_array_equal(found.dense(), graph.dense())
    with pytest.raises(UserError, match="other features"):
        Graph.load(tmp_path / "g", {"of": "those"})
    flip(tmp_path / "g" / "weights.npy")
    with pytest.raises(UserError, match=r"weights\.npy"):
        Graph.load(tmp_path / "g")
    with pytest.raises(UserError, match="neighbour graph"):
        Graph.load(tmp_path / "none")
