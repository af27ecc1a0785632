"""Neighbours brought up to date are those of a new search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.graph import updating
from resight.graph.neighbours import nearest
from resight.graph.unit import unit_rows
from resight.graph.updating import marks, updated


def fresh(vectors, k):
    parts = list(nearest(vectors, k))
    return np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts])


@given(
    n=st.integers(2, 60), k=st.integers(1, 70), seed=st.integers(0, 9999),
    share=st.sampled_from([0.02, 0.2, 0.6]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_as_if_looked_for_anew(n, k, seed, share):
    random = np.random.default_rng(seed)
    first = unit_rows(random.normal(size=(n, 6)))
    ids, near = fresh(first, k)
    kept = np.flatnonzero(random.random(n) >= share)
    rows, before = [], []
    for place in kept:
        for _ in range(random.poisson(share)):  # new ones stand in between
            rows.append(random.normal(size=6))
            before.append(-1)
        rows.append(first[place])
        before.append(place)
    rows += [random.normal(size=6) for _ in range(2)]
    vectors, before = unit_rows(np.array(rows)), np.array([*before, -1, -1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updating, "SHARE", 5.0)  # never all anew
        found, values = updated(vectors, k, before, ids, near)
    wanted, truth = fresh(vectors, k)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(values, truth, atol=2e-6)


def test_equal_vectors_that_enter_come_by_row():
    first = unit_rows(np.eye(4)[[0, 0, 1, 2, 3]])
    ids, near = fresh(first, 2)
    vectors = np.concatenate([first[:1], first[:1], first[1:]])  # a twin of the first, in front
    found, _ = updated(vectors, 2, np.array([-1, 0, 1, 2, 3, 4]), ids, near)
    assert found[:3].tolist() == fresh(vectors, 2)[0][:3].tolist() == [[1, 2], [0, 2], [0, 1]]


def test_a_changed_vector_is_known():
    rows = unit_rows(np.random.default_rng(0).normal(size=(300, 33)))
    before = marks(rows)
    assert len(set(before.tolist())) == 300
    turned = rows.copy()
    turned[7, 3] += np.float32(2**-26)
    turned[[8, 9]] = turned[[9, 8]]
    assert np.flatnonzero(marks(turned) != before).tolist() == [7, 8, 9]
    swapped = rows.copy()
    swapped[5] = swapped[5][::-1]
    assert np.flatnonzero(marks(swapped) != before).tolist() == [5]
