"""Centroids by arithmetic on sums, against loops over images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.search import centroids
from resight.search.centroids import CentroidSums, l2_normalise


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60), block=st.integers(1, 20))
def test_sums_equal_loops(seed, count, block):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 3)).astype(np.float32)
    objects, cameras = rng.integers(0, 5, count), rng.integers(-1, 3, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(centroids, "_BLOCK", block)
        sums = CentroidSums.of(features, objects, cameras, 6)
    wide = features.astype(float)
    for p in range(6):
        mine = [i for i in range(count) if objects[i] == p]
        total = sum((wide[i] for i in mine), np.zeros(3))
        np.testing.assert_allclose(sums.sums[p], total, atol=1e-12)
        assert sums.counts[p] == len(mine)
        if mine:
            np.testing.assert_allclose(
                sums.centroids()[p], total / np.linalg.norm(total), atol=1e-9
            )
        for c in (-1, 0, 1, 2, 7):
            left = [i for i in mine if c < 0 or cameras[i] != c]
            vectors, counts = sums.without_camera(np.array([p]), np.array([c]))
            assert counts[0] == len(left)
            expected = sum((wide[i] for i in left), np.zeros(3))
            np.testing.assert_allclose(vectors[0], expected, atol=1e-12)
        for i in mine:
            vectors, counts = sums.without_image(np.array([p]), wide[i : i + 1])
            assert counts[0] == len(mine) - 1
            np.testing.assert_allclose(vectors[0], total - wide[i], atol=1e-12)
            assert len(mine) > 1 or not vectors.any()


def test_without_cameras_only_totals_are_kept():
    sums = CentroidSums.of(np.array([[3.0, 0], [0, 4]]), np.array([0, 0]))
    assert len(sums.camera_keys) == 0
    np.testing.assert_allclose(sums.centroids(), [[0.6, 0.8]])
    vectors, counts = sums.without_camera(np.array([0]), np.array([0]))
    assert vectors.tolist() == [[3, 4]] and counts.tolist() == [2]


def test_a_zero_row_stays_zero():
    assert l2_normalise(np.zeros((1, 4))).tolist() == [[0, 0, 0, 0]]


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="same length"):
        CentroidSums.of(np.zeros((3, 2)), np.array([0, 1]))
