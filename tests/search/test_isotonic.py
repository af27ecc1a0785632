"""Isotonic regression against its formula; probabilities rise, are calibrated and come back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles.calibration import calibration_error, rising

from resight.errors import UserError
from resight.search.isotonic import (
    HitProbability,
    RisingMap,
    expected_calibration_error,
    pool_adjacent,
    rising_slopes,
)
from resight.search.left_out import best_other, gaps

shares = st.floats(-5, 5)


@given(st.lists(st.tuples(shares, st.floats(0.1, 9)), min_size=1, max_size=12))
def test_pooling_is_the_min_max_formula(pairs):
    values, weights = map(np.array, zip(*pairs, strict=True))
    np.testing.assert_allclose(pool_adjacent(values, weights), rising(values, weights), atol=1e-9)


@given(st.data())
def test_probabilities_rise_with_both(data):
    n = data.draw(st.integers(1, 15))
    unit = st.floats(-1, 1)
    rows = data.draw(st.lists(st.tuples(unit, unit, st.booleans()), min_size=n, max_size=n))
    similarity = np.sort(np.array([row[:2] for row in rows]), axis=1)[:, ::-1]
    first = np.array([row[2] for row in rows])
    right = np.stack([first, ~first & (np.arange(n) % 2 == 0)], axis=1)
    fitted = HitProbability.fit(similarity, gaps(similarity), right, np.ones(n, np.bool_))
    assert min(fitted.first.similarity_slope, fitted.first.gap_slope) >= 0
    s, g = np.meshgrid(np.linspace(-1.2, 1.2, 25), np.linspace(-2.5, 2.5, 51))
    p = fitted(s, g)
    assert (np.diff(p, axis=0) >= -1e-12).all() and (np.diff(p, axis=1) >= -1e-12).all()
    assert (p >= 0).all() and (p <= 1).all()
    again = HitProbability.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted


def test_slopes_are_those_of_logistic_regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40_000, 2)) * [1, 3] + [5, -2]
    chance = 1 / (1 + np.exp(-(x @ [1.2, 0.4] - 5)))
    np.testing.assert_allclose(rising_slopes(x, rng.random(40_000) < chance), [1.2, 0.4], rtol=0.05)
    falls = 1 / (1 + np.exp(-(x @ [1.2, -0.4] - 7)))
    slopes = rising_slopes(x, rng.random(40_000) < falls)
    assert slopes[1] == 0 and slopes[0] > 0.5
    assert rising_slopes(x, rng.random(40_000) < 1 - chance).tolist() == [0, 0]
    apart = rising_slopes(x, x[:, 0] > 5)
    assert np.isfinite(apart).all() and apart[0] > 1
    assert rising_slopes(np.ones((5, 2)), np.ones(5, np.bool_)).tolist() == [0, 0]


def test_few_hits_make_no_certainty():
    certain = RisingMap.fit(np.full(4, 0.9), np.full(4, 0.5), np.ones(4, np.bool_))
    assert certain(np.array([0.9]), np.array([0.5])).tolist() == [5 / 6]
    never = RisingMap.fit(np.full(4, 0.9), np.full(4, 0.5), np.zeros(4, np.bool_))
    assert never(np.array([0.9, -np.inf]), np.array([0.5, 0.5])).tolist() == [1 / 6, 0]


def test_held_out_objects_are_calibrated():
    rng = np.random.default_rng(2)
    objects = np.repeat(np.arange(600), 3)
    centres = rng.normal(size=(600, 8))
    features = centres[objects] + 0.45 * rng.normal(size=(1800, 8))
    for level in ("image", "object"):
        found = best_other(features, objects, level)
        learn = objects % 2 == 0
        gap = gaps(found.similarity)
        fitted = HitProbability.fit(
            found.similarity[learn], gap[learn], found.right[learn], found.possible[learn]
        )
        p = fitted(found.similarity[~learn], gap[~learn])
        error = expected_calibration_error(p[:, 0], found.right[~learn, 0])
        later = expected_calibration_error(p[:, 1:].ravel(), found.right[~learn, 1:].ravel())
        assert error < 0.05 and later < 0.02, (level, error, later)
        assert p[:, 0].std() > 0.15  # not the same for all


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_calibration_error(pairs):
    # Beside a bin's edge, rounding says which bin it is.
    probability = np.round([p for p, _ in pairs], 3) + 1e-5
    probability = np.minimum(probability, 1)
    right = np.array([r for _, r in pairs])
    expected = calibration_error(probability, right, 10)
    assert expected_calibration_error(probability, right) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(expected_calibration_error(probability[:0], right[:0]))


def test_nothing_to_learn_from_and_damage():
    similarity = np.array([[0.5, 0.1]])
    with pytest.raises(UserError, match="two images or more"):
        HitProbability.fit(similarity, similarity, similarity > 0, np.array([False]))
    one = HitProbability.fit(
        np.array([[0.5, -np.inf]]), np.array([[1.5, -np.inf]]), np.array([[True, False]]),
        np.array([True]),
    )  # fmt: skip
    content = one.to_dict()
    for damaged in ({}, None, content | {"format": 0}, content | {"first": {"knots": [2, 1]}}):
        with pytest.raises(UserError, match="damaged calibration"):
            HitProbability.from_dict(damaged)
