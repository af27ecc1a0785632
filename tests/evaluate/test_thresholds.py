"""Metrics over all queries together against walks of all thresholds: ties, edges, tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import metrics as slow
from tests.oracles import ranking, retrieval

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.evaluate import thresholds
from resight.evaluate.overall import RATES
from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking.csr import Csr
from resight.evaluate.ranking.result import GivenTruth
from resight.evaluate.scores import evaluate
from resight.evaluate.thresholds import (
    Pairs,
    count_pairs,
    global_average_precision,
    micro_average_precision,
    open_set,
    tpr_at_fpr,
)

NEAR = {"rtol": 0, "atol": 1e-12}
HUNDREDTHS = st.lists(st.integers(0, 100).map(lambda n: n / 100), min_size=1, max_size=5)
ANSWER = st.tuples(st.integers(-3, 3).map(lambda n: n / 4), st.booleans())  # similarity, right
SCORED = st.lists(ANSWER, max_size=30)


def pairs_of(scored: slow.Scored) -> Pairs:
    """The pairs of a plain list, by a loop."""
    positive = sorted((similarity for similarity, right in scored if right), reverse=True)
    negative = [similarity for similarity, right in scored if not right]
    reaching = [sum(other >= similarity for other in negative) for similarity in positive]
    return Pairs(np.array(positive, float), np.array(reaching, np.int64), len(negative))


def columns(scored: slow.Scored) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([similarity for similarity, _ in scored], float),
        np.array([right for _, right in scored], bool),
    )


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 6),
    gallery=st.integers(1, 20),
    tile=st.tuples(st.integers(1, 7), st.integers(1, 21)),
    rates=HUNDREDTHS,
)
def test_pairs_from_features_equal_a_double_loop(seed, queries, gallery, tile, rates):
    """Few distinct values, so that most pairs are tied; tiles from one pair to all."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (queries + gallery, 2)).astype(np.float32)
    kind = rng.choice(3, (queries, gallery), p=rng.dirichlet([1, 1, 1]))
    truth = GivenTruth(
        *(Csr.from_lists([np.flatnonzero(row == k).tolist() for row in kind]) for k in (1, 2))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "_ROWS", tile[0])
        patch.setattr(thresholds, "_COLUMNS", tile[1])
        found = count_pairs(rows[:queries], rows[queries:], truth)
    matrix = ranking.similarities(rows[:queries], rows[queries:])
    scored = [
        (float(matrix[q, g]), bool(kind[q, g] == 1))
        for q in range(queries)
        for g in range(gallery)
        if kind[q, g] != 2
    ]
    expected = pairs_of(scored)
    np.testing.assert_array_equal(found.similarity, expected.similarity)
    np.testing.assert_array_equal(found.negatives, expected.negatives)
    assert found.n_negatives == expected.n_negatives
    wanted = slow.micro_average_precision(scored)
    np.testing.assert_allclose(micro_average_precision(found), wanted, **NEAR)
    wanted_rates = [slow.tpr_at_fpr(scored, rate) for rate in rates]
    np.testing.assert_allclose(tpr_at_fpr(found, rates), wanted_rates, **NEAR)


@settings(max_examples=200, deadline=None)
@given(scored=SCORED, rates=HUNDREDTHS)
def test_rates_and_micro_precision_of_any_list(scored, rates):
    pairs = pairs_of(scored)
    wanted = slow.micro_average_precision(scored)
    np.testing.assert_allclose(micro_average_precision(pairs), wanted, **NEAR)
    wanted_rates = [slow.tpr_at_fpr(scored, rate) for rate in rates]
    np.testing.assert_allclose(tpr_at_fpr(pairs, rates), wanted_rates, **NEAR)


@settings(max_examples=200, deadline=None)
@given(answers=SCORED, unmatched=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_gap_is_the_walk_in_any_order(answers, unmatched, order):
    n = len(answers) + unmatched
    wanted = slow.global_average_precision(answers, n)
    np.testing.assert_allclose(global_average_precision(*columns(answers), n), wanted, **NEAR)
    shuffled = order.sample(answers, len(answers))
    again = global_average_precision(*columns(shuffled), n)
    np.testing.assert_allclose(again, wanted, **NEAR)


@settings(max_examples=200, deadline=None)
@given(answers=st.lists(st.tuples(ANSWER, st.booleans()), max_size=30), rates=HUNDREDTHS)
def test_open_set_is_the_best_of_all_thresholds(answers, rates):
    """answers: ((similarity, right), mated); a query without a match is never right."""
    similarity, right = columns([answer for answer, _ in answers])
    mated = np.array([has_match for _, has_match in answers], bool)
    found = open_set(similarity, right & mated, mated, rates)
    ours = [answer for answer, has_match in answers if has_match]
    alarms = [value for (value, _), has_match in answers if not has_match]
    wanted = [slow.identified(ours, alarms, rate) for rate in rates]
    np.testing.assert_allclose(found.identified, wanted, **NEAR)
    assert found.rates == tuple(rates)
    for rate, above in zip(rates, found.threshold, strict=True):
        if not np.isnan(above):
            assert sum(value > above for value in alarms) / len(alarms) <= rate


@pytest.mark.parametrize("n", [10, 29, 100, 7000])
def test_a_rate_that_is_a_whole_number_of_pairs_allows_just_so_many(n):
    """29 of 100 are a rate of 0.29, although 0.29 * 100 falls short of 29."""
    falling = np.arange(n, 0, -1.0)
    pairs = Pairs(falling - 0.5, np.arange(1, n + 1), n)  # the k-th positive lets k negatives in
    allowed = np.arange(0, n + 1, max(1, n // 100))
    np.testing.assert_array_equal(tpr_at_fpr(pairs, allowed / n), allowed / n)
    similarity = np.concatenate((falling, falling - 0.5))
    mated = np.arange(2 * n) >= n
    found = open_set(similarity, mated, mated, allowed / n)
    # A threshold just above the alarm k + 1 takes the k mated answers between these.
    np.testing.assert_array_equal(found.identified, allowed / n)


def test_by_hand():
    """Pairs by falling similarity: right, wrong, two tied (one right), wrong."""
    scored = [(0.9, True), (0.8, False), (0.7, True), (0.7, False), (0.1, False)]
    pairs = pairs_of(scored)
    assert micro_average_precision(pairs) == pytest.approx((1 + 2 / 4) / 2)
    assert tpr_at_fpr(pairs, [0, 0.5, 2 / 3, 1]).tolist() == [0.5, 0.5, 1, 1]
    answers = columns([(0.9, True), (0.8, False), (0.8, True)])
    assert global_average_precision(*answers, 4) == pytest.approx((1 + 2 / 3) / 4)
    mated = np.array([True, True, True, False, False])
    similarity, right = columns(
        [(0.9, True), (0.6, False), (0.5, True), (0.7, False), (0.4, False)]
    )
    found = open_set(similarity, right, mated, [0, 0.5, 1])
    assert found.identified.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert found.threshold.tolist() == [0.7, 0.4, -np.inf]


def test_a_rate_below_one_negative_allows_none():
    pairs = pairs_of([(0.9, True), (0.5, True), (0.5, False), (0.1, True)])
    assert tpr_at_fpr(pairs, [1e-4, 0.999, 1]).tolist() == [1 / 3, 1 / 3, 1]


def test_nothing_to_compare():
    none = pairs_of([])
    assert np.isnan(micro_average_precision(none)) and np.isnan(tpr_at_fpr(none, [0.1, 1])).all()
    only_wrong = pairs_of([(0.5, False)])
    assert np.isnan(micro_average_precision(only_wrong)) and only_wrong.n_negatives == 1
    only_right = pairs_of([(0.5, True), (0.1, True)])
    assert micro_average_precision(only_right) == 1
    assert tpr_at_fpr(only_right, [0, 0.1]).tolist() == [1, 1]
    nobody = np.zeros(0), np.zeros(0, bool)
    assert np.isnan(global_average_precision(*nobody, 0))
    assert global_average_precision(*nobody, 3) == 0
    some = np.array([True, True])
    for mated in (some, ~some):
        found = open_set(np.array([0.5, 0.1]), some & mated, mated, [0.1, 1])
        assert np.isnan(found.identified).all() and np.isnan(found.threshold).all()


def test_all_junk_and_no_row():
    rows = np.eye(3, dtype=np.float32)
    hidden = Csr.from_lists([[0, 1, 2]] * 3)
    found = count_pairs(rows, rows, GivenTruth(Csr.empty(3), hidden))
    assert (len(found.similarity), found.n_negatives) == (0, 0)
    found = count_pairs(rows[:0], rows, GivenTruth(Csr.empty(0), Csr.empty(0)))
    assert (len(found.similarity), found.n_negatives) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cross_camera=st.booleans(),
    roles=st.booleans(),
    open_world=st.booleans(),
)
def test_an_evaluation_reports_what_the_loops_say(seed, cross_camera, roles, open_world):
    """From an image set and its features to µAP, TPR, GAP and open-set rates."""
    rng = np.random.default_rng(seed)
    n = 24

    def pick(*values: str | None) -> list[str | None]:
        return [values[i] for i in rng.integers(0, len(values), n)]

    frame = pl.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(n)],
            "object": pick(*"abcdefgh", None),
            "camera": pick("1", "2", None),
            "role": pick("query", "gallery", "both") if roles else [None] * n,
        },
        schema_overrides={"role": pl.String},
    )
    images = ImageSet(normalise(frame), Path("."))
    features = rng.integers(-2, 3, (n, 2)).astype(np.float32)
    protocol = Protocol(
        "query-gallery" if roles else "leave-one-out",
        cross_camera=cross_camera, pairs=True, open_set=open_world,
    )  # fmt: skip
    asked = retrieval.lists(images.table.to_dicts(), cross_camera, roles)
    if not any(one["positives"] for one in asked):
        with pytest.raises(UserError):
            evaluate(features, images, protocol=protocol)
        return
    if not open_world:
        asked = [one for one in asked if one["positives"]]
    scores = evaluate(features, images, protocol=protocol)
    matrix = ranking.similarities(features, features)
    scored, answers, mated, alarms = [], [], [], []
    for one in asked:
        row = matrix[one["query"]]
        searched = [g for g in one["gallery"] if g not in one["junk"]]
        scored += [(row[g], g in one["positives"]) for g in searched]
        best = min(searched, key=lambda g, row=row: (-row[g], g), default=None)
        answer = (-np.inf, False) if best is None else (row[best], best in one["positives"])
        answers.append(answer)
        if one["positives"]:
            mated.append(answer)
        else:
            alarms.append(answer[0])
    expected = {"µAP": slow.micro_average_precision(scored)}
    expected |= {f"TPR@FPR={rate:g}": slow.tpr_at_fpr(scored, rate) for rate in RATES}
    expected["GAP"] = slow.global_average_precision(answers, len(mated))
    if open_world:
        wanted = {f"DIR@FAR={rate:g}": slow.identified(mated, alarms, rate) for rate in RATES[1:]}
        expected |= wanted
    assert list(scores.more) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(scores.more[name], value, **NEAR, err_msg=name)
