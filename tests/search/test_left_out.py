"""What left-out images find, against loops over images; cameras, lone images, ties."""

from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.calibration import hits

from resight.search import left_out
from resight.search.left_out import best_other, gaps, nearest, queries_other

LEVELS = ("image", "object")


def a_set(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    objects = rng.permutation(np.r_[np.arange(8), rng.integers(0, 8, 22)])
    features = rng.normal(size=(30, 5)) * rng.uniform(0.5, 3, (30, 1))
    return features, objects, rng.integers(-1, 3, 30)


def check(found, row, expected, own):
    others = {o: s for o, s in expected.items() if o != own}
    ranked = sorted(expected, key=lambda o: (-expected[o], o == own, o))[:5]
    best = max(others.values(), default=-np.inf)
    assert found.other[row] == pytest.approx(best, abs=1e-12)
    assert others.get(found.other_object[row], -np.inf) == pytest.approx(best, abs=1e-12)
    assert found.own[row] == pytest.approx(expected.get(own, -np.inf), abs=1e-12)
    assert found.possible[row] == (own in expected)
    assert found.objects[row].tolist() == ranked + [-1] * (5 - len(ranked))
    similarity = [expected[o] for o in ranked] + [-np.inf] * (5 - len(ranked))
    np.testing.assert_allclose(found.similarity[row], similarity, atol=1e-12)
    assert found.right[row].tolist() == [o == own for o in ranked] + [False] * (5 - len(ranked))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("with_cameras", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_images_left_out(level, with_cameras, seed, monkeypatch):
    monkeypatch.setattr(left_out, "_CELLS", 100)  # several blocks
    features, objects, cameras = a_set(seed)
    given = cameras if with_cameras else None
    rows = np.random.default_rng(seed).permutation(30)[:23]
    found = best_other(features, objects, level, cameras=given, rows=rows)
    for at, row in enumerate(rows):
        own = int(objects[row])
        expected = hits(
            features[row], features, objects, level, given, cameras[row], itself=row, own=own
        )
        check(found, at, expected, own)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("with_cameras", [False, True])
def test_separate_queries(level, with_cameras):
    features, objects, cameras = a_set(9)
    queries = np.random.default_rng(1).normal(size=(12, 5))
    own, taken = np.arange(12) % 10 - 1, np.arange(12) % 4 - 1
    own[own == 8] = -1
    given = {"cameras": cameras, "query_cameras": taken} if with_cameras else {}
    found = queries_other(queries, own, features, objects, level, **given)
    for row in range(12):
        expected = hits(
            queries[row],
            features,
            objects,
            level,
            cameras if with_cameras else None,
            taken[row],
            own=own[row],
        )
        check(found, row, expected, own[row])


@pytest.mark.parametrize("level", LEVELS)
def test_float32_and_small_galleries(level):
    features, objects, _ = a_set(4)
    wide = best_other(features, objects, level)
    narrow = best_other(features.astype(np.float32), objects, level)
    np.testing.assert_allclose(narrow.other, wide.other, atol=1e-6)
    alone = best_other(features[:3], np.zeros(3, int), level)
    assert (alone.other == -np.inf).all() and (alone.other_object == -1).all()
    assert alone.right[:, 0].all() and alone.possible.all()
    single = best_other(features[:2], np.array([0, 1]), level)
    assert not single.possible.any() and single.objects[:, 0].tolist() == [1, 0]
    none = best_other(features[:0], objects[:0], level)
    assert none.similarity.shape == (0, 5)


def test_ties_and_gaps():
    table = np.array([[0.5, 0.5, 0.5], [0.9, 0.2, -np.inf]])
    found = nearest(table, np.array([0, 1]), k=3)
    assert found.objects.tolist() == [[1, 2, 0], [0, 1, -1]]
    assert not found.right[0, 0]
    np.testing.assert_allclose(gaps(found.similarity)[0], 0)
    np.testing.assert_allclose(gaps(found.similarity)[1], [0.7, -0.7, -np.inf])
    np.testing.assert_allclose(gaps(np.array([[0.5, -np.inf]])), [[1.5, -np.inf]])
    np.testing.assert_allclose(gaps(np.array([[0.5]])), [[1.5]])
    assert gaps(np.array([[-np.inf, -np.inf]])).tolist() == [[-np.inf, -np.inf]]
    with pytest.raises(ValueError, match="k must be 2"):
        nearest(table, np.array([0, 1]), k=1)
