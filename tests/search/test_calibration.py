"""p-values against the formula, the promise on simulated objects, what is said of a bad alpha."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles.calibration import p_value

from resight.errors import UserError
from resight.search.calibration import Calibration, calibrate, draw_one, no_match, promise_kept
from resight.search.left_out import nearest, object_similarity

similarities = st.sampled_from([-np.inf, -0.5, 0.1, 0.25, 0.25000001, 0.5, 0.9, 1.0])


@given(
    st.lists(st.tuples(similarities, st.integers(0, 5)), min_size=2, max_size=20),
    st.lists(st.tuples(similarities, st.integers(-1, 7)), min_size=1, max_size=6),
    st.sampled_from(["drawn", "share"]),
)
def test_p_values_are_the_formula(images, queries, variant):
    scores, objects = map(np.array, zip(*images, strict=True))
    objects = objects * 7 - 3  # ids need not be 0, 1, 2, ...
    if len(set(objects.tolist())) < 2:
        return
    found = calibrate(scores, objects, variant, seed=3)
    if variant == "drawn":
        rows = draw_one(objects, 3)
        scores, objects = scores[rows], objects[rows]
    s, own = map(np.array, zip(*queries, strict=True))
    own = own * 7 - 3
    expected = [
        p_value(*query, scores.tolist(), objects.tolist(), found.n_objects)
        for query in zip(s, own, strict=True)
    ]
    np.testing.assert_allclose(found.p_values(s, own), expected, atol=1e-8)
    assert found.p_values(s, own).min() >= found.smallest_alpha
    again = Calibration.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    assert (again.p_values(s, own) == found.p_values(s, own)).all()
    assert again.to_dict() == found.to_dict()


def test_one_image_an_object_makes_the_variants_equal():
    rng = np.random.default_rng(0)
    scores, objects = rng.normal(size=50), rng.permutation(50)
    queries, own = rng.normal(size=30), rng.integers(0, 50, 30)
    drawn, share = (
        calibrate(scores, objects, v).p_values(queries, own) for v in ("drawn", "share")
    )
    assert (drawn == share).all()


def test_draws_are_one_an_object_and_even():
    objects = np.array([4, 4, 4, 9, 9, 1])
    counts = np.zeros(6)
    for seed in range(300):
        rows = draw_one(objects, seed)
        assert objects[rows].tolist() == [1, 4, 9]
        counts[rows] += 1
    assert counts[5] == 300 and counts[:3].min() > 70 and counts[3:5].min() > 120
    assert draw_one(objects[:0], 0).tolist() == []


def test_alpha_that_cannot_be_promised():
    found = calibrate(np.linspace(0, 1, 49), np.arange(49))
    assert found.smallest_alpha == 0.04
    found.check_alpha(0.04)
    said = r"alpha = 0.01: .* takes 199 calibrated objects, there are 49; 0.04 is the smallest"
    with pytest.raises(UserError, match=said):
        found.check_alpha(0.01)
    with pytest.raises(UserError, match="between 0 and 1"):
        found.check_alpha(0.0)
    assert no_match(np.array([0.04, 0.05]), 0.04).tolist() == [False, True]
    with pytest.raises(UserError, match="2 objects at least, there are 1"):
        calibrate(np.zeros(3), np.zeros(3, int))
    with pytest.raises(ValueError, match="NaN"):
        found.p_values(np.array([np.nan]), np.array([0]))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"variant": "other"},
        {"scores": "AAAA"},
        {"scores": "%"},
        {"n_objects": 5},
        {"objects": None},
    ],
)
def test_damaged_records(change):
    content = calibrate(np.array([0.1, 0.2]), np.array([0, 1])).to_dict()
    for damaged in (content | change, {}, None):
        with pytest.raises(UserError, match="damaged calibration"):
            Calibration.from_dict(damaged)


def test_queries_of_another_kind_are_noticed():
    rng = np.random.default_rng(5)
    found = calibrate(rng.normal(size=400), np.arange(400))
    objects = np.repeat(np.arange(150), 2)
    nobody = np.full(300, -1)
    same = promise_kept(found, rng.normal(size=300), nobody, objects, ALPHAS)
    assert [row["alpha"] for row in same] == list(ALPHAS) and same[0]["objects"] == 150
    assert all(row["kept"] for row in same)
    closer = promise_kept(found, rng.normal(size=300) + 1, nobody, objects, ALPHAS)
    assert not any(row["kept"] for row in closer)
    # Two objects, one of them with three queries that are all matched: half, not three quarters.
    (half,) = promise_kept(
        found, np.array([9.0, 9, 9, -9]), nobody[:4], np.array([1, 1, 1, 2]), [0.1]
    )
    assert half["rate"] == 0.5
    with pytest.raises(UserError, match="no labelled query"):
        promise_kept(found, nobody[:0] * 1.0, nobody[:0], nobody[:0], ALPHAS)


TRIALS, GALLERY, UNKNOWN = 200, 220, 20
ALPHAS = (0.01, 0.05, 0.1)


def population(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Objects from one distribution: a point in 6 dimensions, 1 to 5 images around it."""
    counts = rng.integers(1, 6, GALLERY + UNKNOWN)
    objects = np.repeat(np.arange(len(counts)), counts)
    images = rng.normal(size=(len(counts), 6))[objects] + 0.4 * rng.normal(size=(len(objects), 6))
    return images, objects


@pytest.mark.parametrize("level", ["image", "object"])
def test_the_rate_of_false_matches_is_what_was_promised(level):
    """Objects that are not in the gallery: no more than alpha of them are matched."""
    rng = np.random.default_rng(14)
    matched = {variant: np.zeros(len(ALPHAS)) for variant in ("drawn", "share")}
    for trial in range(TRIALS):
        images, objects = population(rng)
        known = objects < GALLERY
        blocks = object_similarity(
            images,
            images[known],
            objects[known],
            level,
            own=np.where(known, objects, -1),
            itself=np.where(known, np.arange(len(images)), -1) if level == "object" else None,
        )
        table = np.concatenate([table for _, table in blocks])
        scores = nearest(table[known], objects[known]).other
        asked = np.flatnonzero(~known)[draw_one(objects[~known], trial)]
        found = nearest(table[asked], np.full(len(asked), -1))
        for variant, counts in matched.items():
            calibration = calibrate(scores, objects[known], variant, seed=trial)
            p = calibration.p_values(found.other, found.other_object)
            counts += [(~no_match(p, alpha)).sum() for alpha in ALPHAS]
    # The queries of a trial share its calibration: that varies as one of GALLERY objects.
    alphas = np.array(ALPHAS)
    spread = alphas * (1 - alphas) * (1 / (TRIALS * UNKNOWN) + 1 / (TRIALS * GALLERY))
    for variant, counts in matched.items():
        rates = counts / (TRIALS * UNKNOWN)
        assert (rates <= alphas + 2 * np.sqrt(spread)).all(), (level, variant, rates)
        assert (rates[1:] >= alphas[1:] / 2).all(), "far below: no threshold of use"
