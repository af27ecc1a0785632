"""Growing a query set against a loop over everything, in every option; and what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from mining_rules import MARKS, SEEDS, any_rule, mark
from pydantic import ValidationError

from oracles import mining as oracle
from resight.mining.selection import CLOSE_TO_ANCHOR, Rule, grow, select


def similarities(generator: np.random.Generator, rows: int, columns: int, ties: bool) -> np.ndarray:
    """Some with many equal values, some with none equal."""
    if ties:
        return generator.choice(np.array(MARKS, np.float32), (rows, columns))
    return generator.uniform(-1, 1, (rows, columns)).astype(np.float32)


def growth(seed: int):
    """similarity (C, C), initial, candidates, rule, start (q, C) or none."""
    generator = np.random.default_rng(seed)
    count, ties = int(generator.integers(0, 10)), generator.random() < 0.7
    initial = generator.random(count) < generator.choice([0, 0.3, 0.3, 1])
    candidates = generator.random(count) < generator.choice([0, 0.7, 0.9, 1])
    start = None
    if generator.random() < 0.6:
        start = similarities(generator, int(generator.integers(0, 4)), count, ties)
    rule = any_rule(generator)
    return similarities(generator, count, count, ties), initial, candidates, rule, start


@settings(max_examples=1000, deadline=None)
@given(SEEDS)
def test_grow_is_the_loop(seed) -> None:
    similarity, initial, candidates, rule, start = growth(seed)
    asked: list[int] = []

    def ask(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return similarity[rows]

    joined = grow(ask, initial, candidates, rule, start)
    assert joined.dtype == np.int8
    wanted = oracle.grow(similarity, initial, candidates, rule, () if start is None else start)
    assert joined.tolist() == wanted
    assert len(set(asked)) == len(asked)  # each member of the query set once
    assert not asked or set(asked) <= set(np.flatnonzero(joined >= 0).tolist())
    assert not (joined >= 1)[~candidates].any()


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_order_of_candidates_does_not_matter_without_ties(seed) -> None:
    similarity, initial, candidates, rule, _ = growth(seed)
    generator = np.random.default_rng(seed + 1)
    similarity = similarities(generator, *similarity.shape, ties=False)
    order = generator.permutation(len(initial))
    joined = grow(lambda rows: similarity[rows], initial, candidates, rule)
    moved = similarity[np.ix_(order, order)]
    again = grow(lambda rows: moved[rows], initial[order], candidates[order], rule)
    assert again.tolist() == joined[order].tolist()


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_what_is_monotone(seed) -> None:
    similarity, initial, candidates, rule, start = growth(seed)
    other = mark(np.random.default_rng(seed + 1))

    def who(**changes: object) -> set[int]:
        changed = rule.model_copy(update=changes)
        joined = grow(lambda rows: similarity[rows], initial, candidates, changed, start)
        return set(np.flatnonzero(joined >= 0).tolist())

    assert who(rounds=rule.rounds + 1) >= who()
    low, high = sorted([rule.threshold, other])
    largest = {"score": "max", "choose": "threshold"}
    assert who(**largest, threshold=low) >= who(**largest, threshold=high)
    low, high = sorted([rule.floor, other])
    once = {"choose": "topk", "rounds": 1}
    assert len(who(**once, floor=low)) >= len(who(**once, floor=high))


def test_ties_go_to_the_lower_index() -> None:
    similarity = np.full((5, 5), 0.7, dtype=np.float32)
    initial = np.array([False, False, True, False, False])
    rule = Rule(score="average", choose="topk", top=3, rounds=1)
    assert grow(lambda rows: similarity[rows], initial, ~initial, rule).tolist() == [1, 1, 0, 1, -1]


def test_a_low_similarity_drags_no_average_down() -> None:
    start = np.array([[0.9, 0.65], [-1.0, 0.65]], dtype=np.float32)
    rule = Rule(score="average", choose="topk", top=1, rounds=1)
    nobody = np.zeros(2, dtype=bool)
    assert grow(lambda rows: start, nobody, ~nobody, rule, start).tolist() == [1, -1]


def test_a_similarity_at_the_mark_counts() -> None:
    start = np.array([[0.6, 0.7], [0.8, 0.7]], dtype=np.float32)
    nobody = np.zeros(2, dtype=bool)
    for score, threshold, wanted in (
        ("average", 0.6, [1, 1]),
        ("average", 0.7, [1, 1]),  # the mean of .6 and .8, not .8 alone
        ("average", 0.75, [-1, -1]),
        ("max", 0.8, [1, -1]),
    ):
        rule = Rule(score=score, choose="threshold", threshold=threshold, floor=0.6)
        assert grow(lambda rows: start, nobody, ~nobody, rule, start).tolist() == wanted
    rule = Rule(score="max", choose="topk", floor=0.8)
    assert grow(lambda rows: start, nobody, ~nobody, rule, start).tolist() == [1, -1]


def test_not_a_number_is_no_similarity() -> None:
    start = np.array([[np.nan, 0.8, np.nan], [0.9, np.nan, np.nan]], dtype=np.float32)
    nobody = np.zeros(3, dtype=bool)
    for score in ("average", "max"):
        rule = Rule(score=score, choose="threshold", threshold=-1, floor=-1)
        assert grow(lambda rows: start, nobody, ~nobody, rule, start).tolist() == [1, 1, -1]


def test_the_similarities_of_the_last_to_join_are_not_asked() -> None:
    asked = []

    def ask(rows: np.ndarray) -> np.ndarray:
        asked.append(rows.tolist())
        return np.ones((len(rows), 3), dtype=np.float32)

    initial = np.array([True, False, False])
    rule = Rule(score="max", choose="topk", top=1, rounds=2)
    assert grow(ask, initial, ~initial, rule).tolist() == [0, 1, 2]
    assert asked == [[0], [1]]


def test_selection_of_the_paper() -> None:
    close = np.array([1, 0.6, 0.59, 0.9], dtype=np.float32)
    similarity = np.zeros((4, 4), dtype=np.float32)
    similarity[0], similarity[3, 2] = close, 1.0
    assert select(similarity).tolist() == [True, True, False, True]
    # A second round follows the one that joined.
    twice = CLOSE_TO_ANCHOR.model_copy(update={"rounds": 2})
    assert select(similarity, twice).tolist() == [True] * 4
    assert select(similarity[:1, :1]).tolist() == [True]
    assert select(np.full((3, 3), -1, np.float32)).tolist() == [True, False, False]


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="square"):
        select(np.ones((2, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="square"):
        select(np.ones((0, 0), dtype=np.float32))
    nobody = np.zeros(2, dtype=bool)
    with pytest.raises(ValueError, match="same number"):
        grow(lambda rows: rows, nobody, nobody[:1], CLOSE_TO_ANCHOR)
    with pytest.raises(ValueError, match="same number"):
        grow(lambda rows: rows, nobody, ~nobody, CLOSE_TO_ANCHOR, np.ones((1, 3), np.float32))
    for wrong in ({"top": 0}, {"rounds": 128}, {"rounds": -1}, {"score": "median"}, {"more": 1}):
        with pytest.raises(ValidationError):
            Rule(**{"score": "max", "choose": "topk", **wrong})
