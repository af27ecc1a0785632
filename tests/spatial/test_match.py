"""Matches against a plain loop; homographies that are known, and those that must not be."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from tests.oracles.spatial import matches, moved
from tests.spatial.scenes import by_hand, scene, warped

from resight.spatial.draw import side_by_side
from resight.spatial.local import LocalFeatures, SpatialOptions, local_features
from resight.spatial.match import count_inliers, homography, match, transfer

OPTIONS = SpatialOptions()


def described(descriptors: np.ndarray) -> LocalFeatures:
    """Features with these descriptors, in places that don't matter."""
    return LocalFeatures(np.zeros((len(descriptors), 2), np.float32), descriptors, (9, 9))


@st.composite
def pictures(draw) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of two pictures: few values, so that there are ties and equal rows."""
    seed, top = draw(st.integers(0, 10_000)), draw(st.sampled_from([1, 3, 255]))
    rng = np.random.default_rng(seed)
    n, m, shared = draw(st.integers(0, 9)), draw(st.integers(0, 9)), draw(st.integers(0, 4))
    kind = draw(st.sampled_from([np.uint8, np.int8]))
    low = -min(top, 127) if kind == np.int8 else 0
    a, b, both = (rng.integers(low, min(top, 127) + 1, (k, 6)) for k in (n, m, shared))
    a, b = np.concatenate([a, both]), np.concatenate([both, b])
    return a.astype(kind), b.astype(kind)


@given(pictures(), st.sampled_from([0.5, 0.85, 1.0]))
@settings(max_examples=200)
def test_matches_are_those_of_the_loop(both, ratio):
    a, b = both
    found = match(described(a), described(b), ratio)
    assert found.dtype == np.int64 and found.shape == (len(found), 2)
    assert sorted(map(tuple, found.tolist())) == sorted(matches(a, b, ratio))


@given(pictures(), st.integers(0, 10_000))
@settings(max_examples=100)
def test_neither_side_nor_order_matters(both, seed):
    a, b = both
    there = match(described(a), described(b), 0.9)
    back = match(described(b), described(a), 0.9)
    assert set(map(tuple, there.tolist())) == set(map(tuple, back[:, ::-1].tolist()))
    order = np.random.default_rng(seed).permutation(len(a))
    shuffled = match(described(a[order]), described(b), 0.9)
    shuffled[:, 0] = order[shuffled[:, 0]]
    assert set(map(tuple, there.tolist())) == set(map(tuple, shuffled.tolist()))


def test_the_clearest_match_comes_first():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 255, (60, 32)).astype(np.uint8)
    b = np.clip(a + rng.integers(-30, 31, a.shape) * (np.arange(60)[:, None] / 60), 0, 255)
    found = match(described(a), described(b.astype(np.uint8)), 0.95)
    assert len(found) == 60 and (found[:, 0] == found[:, 1]).all()
    assert found[:10, 0].mean() < 15 < 45 < found[-10:, 0].mean()


def test_twice_the_same_in_one_picture_matches_nothing():
    row = np.arange(128, dtype=np.uint8)[None]
    twice = described(np.concatenate([row, row, 255 - row]))
    assert match(described(row), twice, 0.9).tolist() == []
    assert match(described(row), described(row), 0.9).tolist() == [[0, 0]]


VIEWS = {
    "shift": np.array([[1, 0, 20], [0, 1, -15], [0, 0, 1.0]]),
    "turn": np.vstack([cv2.getRotationMatrix2D((160, 160), 30, 0.9), [0, 0, 1]]),
    "shrink": np.array([[0.6, 0, 60], [0, 0.6, 60], [0, 0, 1.0]]),
    "view": np.array([[0.9, 0.1, 10], [-0.05, 0.95, 20], [2e-4, -3e-4, 1.0]]),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_known_homography_is_found(view):
    known, image = VIEWS[view], scene(2)
    a, b = local_features(image, OPTIONS), local_features(warped(image, known), OPTIONS)
    found, pairs, agree = homography(a, b, OPTIONS)
    assert found is not None and found.dtype == np.float64 and found[2, 2] == 1
    assert agree.shape == (len(pairs),) and agree.sum() > 60
    grid = np.stack(np.meshgrid([60, 160, 260], [60, 160, 260]), -1).reshape(-1, 2)
    expected = np.array([moved(known, point) for point in grid])
    assert np.linalg.norm(transfer(found, grid) - expected, axis=1).max() < 2
    for (i, j), agrees in zip(pairs, agree, strict=True):
        there = np.linalg.norm(moved(found, a.points[i]) - b.points[j])
        back = np.linalg.norm(moved(np.linalg.inv(found), b.points[j]) - a.points[i])
        assert (max(there, back) <= OPTIONS.tolerance) == agrees
    assert 50 < count_inliers(a, b, OPTIONS) <= agree.sum()


def test_the_same_every_time_and_whatever_the_global_seed():
    a, b = (local_features(image, OPTIONS) for image in (scene(2), warped(scene(2), VIEWS["view"])))
    first = homography(a, b, OPTIONS)
    for seed in range(3):
        cv2.setRNGSeed(seed)
        again = homography(a, b, OPTIONS)
        assert all(map(np.array_equal, first, again))


def test_unrelated_pictures_stay_below_the_limit():
    found = [local_features(scene(number), OPTIONS) for number in range(6)]
    counts = [count_inliers(found[i], found[j], OPTIONS) for i in range(6) for j in range(i)]
    assert max(counts) < OPTIONS.min_inliers


def test_chance_stays_below_the_limit():
    rng = np.random.default_rng(0)
    for trial in range(20):
        a, b = (by_hand(rng.uniform(0, 480, (60, 2)), trial) for _ in range(2))
        assert count_inliers(a, b, OPTIONS) < OPTIONS.min_inliers


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_mirrored_picture_is_another(number):
    image = scene(number)
    a, b = local_features(image, OPTIONS), local_features(ImageOps.mirror(image), OPTIONS)
    assert count_inliers(a, b, OPTIONS) < OPTIONS.min_inliers


def test_blank_and_nearly_empty():
    blank = local_features(Image.new("RGB", (300, 300)), OPTIONS)
    full = local_features(scene(2), OPTIONS)
    for a, b in ((blank, full), (full, blank), (blank, blank)):
        found, pairs, agree = homography(a, b, OPTIONS)
        assert found is None and pairs.shape == (0, 2) and agree.shape == (0,)
        assert count_inliers(a, b, OPTIONS) == 0
    for few in range(1, 4):
        points = np.random.default_rng(0).uniform(0, 480, (few, 2))
        assert count_inliers(by_hand(points), by_hand(points), OPTIONS) == 0


PLANE = np.random.default_rng(5).uniform(100, 380, (40, 2))
LINE = np.stack([np.linspace(20, 460, 40), np.linspace(50, 200, 40)], 1)
IMPOSSIBLE = {
    "mirrored": (PLANE, PLANE * [-1, 1] + [480, 0]),
    "upside down in a mirror": (PLANE, PLANE[:, ::-1]),
    "on one line": (LINE, LINE * 0.8 + 10),
    "all in one place": (PLANE, np.full_like(PLANE, 200) + PLANE * 1e-3),
    "twenty times larger": (PLANE, (PLANE - 240) * 20),
    "ten times wider": (PLANE, (PLANE - 240) * [3, 0.25] + 240),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_no_camera_sees_counts_nothing(case):
    from_a, to_b = IMPOSSIBLE[case]
    for a, b in ((from_a, to_b), (to_b, from_a)):
        found, pairs, agree = homography(by_hand(a), by_hand(b), OPTIONS)
        assert len(pairs) == 40 and found is None and not agree.any()
        assert count_inliers(by_hand(a), by_hand(b), OPTIONS) == 0


def test_what_a_camera_sees_counts_all():
    for factor in (1, 4, 0.25):
        b = by_hand((PLANE - 240) * [factor, factor * 0.7] + 240)
        assert count_inliers(by_hand(PLANE), b, OPTIONS) == 40


def test_a_place_with_two_keypoints_counts_once():
    a, b = by_hand(np.repeat(PLANE[:20], 2, axis=0)), by_hand(np.repeat(PLANE[:20] + 5, 2, axis=0))
    _, _, agree = homography(a, b, OPTIONS)
    assert agree.sum() == 40 and count_inliers(a, b, OPTIONS) == 20


def test_outliers_are_told_from_inliers():
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 480, (100, 2))
    to = np.array([moved(VIEWS["view"], point) for point in points])
    to[40:] = rng.uniform(0, 480, (60, 2))
    found, pairs, agree = homography(by_hand(points), by_hand(to), OPTIONS)
    assert found is not None
    assert set(range(40)) <= set(pairs[agree, 0].tolist()) and agree.sum() < 45


def test_the_drawing():
    image, other = scene(2), warped(scene(2), VIEWS["shift"])
    a, b = local_features(image, OPTIONS), local_features(other, OPTIONS)
    _, pairs, agree = homography(a, b, OPTIONS)
    sheet = side_by_side(image, other, a, b, pairs, agree)
    assert sheet.size == (648, 320) and sheet.mode == "RGB"
    plain = side_by_side(image, other, a, b, pairs[:0], agree[:0])
    assert np.array_equal(np.asarray(plain)[:, :320], np.asarray(image))
    assert np.array_equal(np.asarray(plain)[:, 328:], np.asarray(other))
    row, column = pairs[agree][0]
    x, y = np.rint((a.points[row] + b.points[column] + [328, 0]) / 2).astype(int)
    near = np.asarray(sheet)[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).tolist()
    assert [46, 160, 67] in near  # a line runs through the middle between the two keypoints
