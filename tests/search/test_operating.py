"""Operating points counted one by one, Wilson's interval against its equation, the plot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resight.search.operating import by_camera_pair, operating_points, plot_operating, wilson


@given(st.integers(1, 300), st.data())
def test_wilson_solves_its_equation(n, data):
    k = data.draw(st.integers(0, n))
    z, share = 1.959963984540054, k / n
    low, high = wilson(k, n)
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):  # |share - bound| is z standard deviations at the bound
        away = abs(share - bound) - z * np.sqrt(bound * (1 - bound) / n)
        assert away == pytest.approx(0, abs=1e-9)


def test_known_intervals():
    assert wilson(0, 0) == (0, 1)
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-5)
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)


scores = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, -np.inf]), max_size=9)


@given(scores, scores, st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), st.randoms())
def test_points_are_the_lowest_threshold_within_the_rate(known, unknown, rate, random):
    right = np.array([random.random() < 0.7 for _ in known], np.bool_)
    known, unknown = np.array(known), np.array(unknown)
    (row,) = operating_points(known, right, unknown, [rate])
    best = 0
    for threshold in [-np.inf, *known, *unknown, np.inf]:
        if not len(unknown) or (unknown >= threshold).mean() <= rate:
            best = max(best, int((right & (known >= threshold)).sum()))
    assert row["found_count"] == best
    assert row["found_n"] == len(known) and row["false_match_n"] == len(unknown)
    assert row["false_match_rate"] is None or row["false_match_rate"] <= rate
    assert row["found_rate"] == (best / len(known) if len(known) else None)
    assert row["false_match_low"] <= (row["false_match_rate"] or 0) <= row["false_match_high"]


def test_pairs_of_cameras():
    rows = by_camera_pair(
        np.array([0.9, 0.4, 0.8]),
        np.array([True, True, False]),
        [("a", "b"), ("a", "b"), ("b", "a")],
        np.array([0.7, 0.1]),
        [("a", "b"), ("a", "c")],
        0.5,
    )
    said = [(r["query_camera"], r["gallery_camera"], r["found_count"], r["found_n"]) for r in rows]
    assert said == [("a", "b", 1, 2), ("a", "c", 0, 0), ("b", "a", 0, 1)]
    assert [r["false_match_rate"] for r in rows] == [1.0, 0.0, None]


def test_plot(tmp_path):
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(1, 1, 3000), rng.normal(0, 1, 500)
    path = plot_operating(known, known > 0, unknown, tmp_path / "points.png", alpha=0.05)
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width > 600
    empty = plot_operating(known[:0], known[:0] > 0, unknown[:0], tmp_path / "none.png")
    assert empty.stat().st_size > 0
