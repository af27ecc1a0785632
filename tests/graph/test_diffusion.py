"""Diffusion, against the inverse of the whole matrix."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damage import flip
from tests.graph.test_graph import joined
from tests.oracles import graph as oracle

from resight.errors import UserError
from resight.graph.diffusion import Diffused, diffuse
from resight.graph.graph import Graph, mutual


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 80), st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 2**16))
def test_as_the_inverse(n, alpha, seed):
    graph, _, _ = joined(n, 5, seed)
    exact = oracle.cosine_normalised(oracle.diffusion(graph.dense(), alpha))
    found = diffuse(graph, alpha=alpha, top=n, tolerance=1e-7)
    np.testing.assert_allclose(found.dense(), exact, atol=1e-5)
    np.testing.assert_allclose(found.dense(), found.dense().T, atol=1e-5)
    coarse = diffuse(graph, alpha=alpha, top=n).dense()
    assert np.abs(coarse - exact).max() < 2e-3


@settings(max_examples=10, deadline=None)
@given(st.integers(20, 80), st.integers(1, 10), st.integers(0, 2**16))
def test_the_largest_of_each_row(n, top, seed):
    graph, _, _ = joined(n, 6, seed)
    inverse = oracle.diffusion(graph.dense(), 0.9)
    found = diffuse(graph, top=top, tolerance=1e-8)
    assert found.neighbours.shape == (n, top)
    full = oracle.cosine_normalised(inverse)
    for i in range(n):
        others = np.delete(inverse[i], i)
        wanted = np.sort(others[others > 1e-9])[::-1][:top]
        kept = found.neighbours[i][found.neighbours[i] >= 0]
        assert len(set(kept.tolist())) == len(kept) and i not in kept
        np.testing.assert_allclose(inverse[i, kept], wanted, atol=1e-6)
        np.testing.assert_allclose(found.values[i, : len(kept)], full[i, kept], atol=1e-5)


def test_more_alpha_reaches_further():
    graph, _, _ = joined(60, 5)
    reached = [
        oracle_row(graph, alpha, diffuse(graph, alpha=alpha, top=59, tolerance=1e-8))
        for alpha in (0.3, 0.6, 0.9)
    ]
    assert (reached[1] >= reached[0] - 1e-9).all() and (reached[2] >= reached[1] - 1e-9).all()


def oracle_row(graph: Graph, alpha: float, found: Diffused) -> np.ndarray:
    """F as it is before the division, from what was found."""
    own = np.sqrt(np.diag(oracle.diffusion(graph.dense(), alpha)))
    return np.asarray(found.dense() * np.outer(own, own))


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 60), st.integers(1, 70), st.integers(0, 2**16))
def test_blocks_and_names_do_not_matter(n, block, seed):
    graph, near, similar = joined(n, 4, seed)
    whole, parts = diffuse(graph, top=8), diffuse(graph, top=8, block=block)
    assert np.array_equal(whole.neighbours, parts.neighbours)
    assert np.array_equal(whole.values, parts.values)
    order = np.random.default_rng(seed).permutation(n)
    place = np.argsort(order).astype(np.int32)
    moved = mutual(np.where(near[order] >= 0, place[near[order]], -1), similar[order])
    again = diffuse(moved, top=n, tolerance=1e-8).dense()
    exact = diffuse(graph, top=n, tolerance=1e-8).dense()
    np.testing.assert_allclose(again, exact[np.ix_(order, order)], atol=1e-6)


def test_a_folder_holds_what_memory_would(tmp_path):
    graph, _, _ = joined(100, 5)
    memory, seen = diffuse(graph, top=9), []
    disk = diffuse(
        graph, tmp_path / "f", top=9, block=32, key={"a": 1}, progress=lambda *at: seen.append(at)
    )
    assert np.array_equal(disk.neighbours, memory.neighbours)
    assert np.array_equal(disk.values, memory.values)
    assert seen == [(32, 100), (64, 100), (96, 100), (100, 100)]
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == [
        "diffusion.json", "neighbours.npy", "values.npy",
    ]  # fmt: skip
    again = diffuse(graph, tmp_path / "f", top=9, key={"a": 1})
    assert np.array_equal(again.values, memory.values)
    with pytest.raises(UserError, match="other alpha, key"):
        diffuse(graph, tmp_path / "f", top=9, alpha=0.5)
    flip(tmp_path / "f" / "values.npy")
    with pytest.raises(UserError, match=r"values\.npy"):
        Diffused.load(tmp_path / "f")


KILLED = """
import os, signal, sys
from tests.graph.test_graph import joined
from resight.graph.diffusion import diffuse

def dies(done, total):
    if done >= 64:
        os.kill(os.getpid(), signal.SIGKILL)

diffuse(joined(100, 5)[0], sys.argv[1], top=9, block=32, progress=dies)
"""


def test_killed_it_goes_on(tmp_path):
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "f")], env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="not finished"):
        Diffused.load(tmp_path / "f")
    graph, seen = joined(100, 5)[0], []
    found = diffuse(
        graph, tmp_path / "f", top=9, block=32, progress=lambda done, total: seen.append(done)
    )
    assert seen == [96, 100]
    whole = diffuse(graph, top=9)
    assert np.array_equal(found.neighbours, whole.neighbours)
    assert np.array_equal(found.values, whole.values)


def test_settings_that_make_no_sense(tmp_path):
    graph, _, _ = joined(10, 3)
    for wrong in ({"alpha": 1.0}, {"alpha": -0.1}, {"top": 0}, {"tolerance": 0.0}):
        with pytest.raises(UserError):
            diffuse(graph, **wrong)
