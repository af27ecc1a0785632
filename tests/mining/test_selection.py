"""Growing a query set against a loop over everything, in every option; and what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_rules import EIGHTHS, RULES
from pydantic import ValidationError

from oracles import mining as oracle
from resight.mining.selection import CLOSE_TO_ANCHOR, Rule, grow, select


def similarities(seed: int, rows: int, columns: int, ties: bool) -> np.ndarray:
    """Some with many equal values, .6 among them, some with none equal."""
    generator = np.random.default_rng(seed)
    if ties:
        values = np.append(np.arange(-8, 9) / 8, [0.6, 0.7]).astype(np.float32)
        return generator.choice(values, (rows, columns))
    return generator.uniform(-1, 1, (rows, columns)).astype(np.float32)


@st.composite
def growths(draw):
    """similarity (C, C), initial, candidates, rule, start (q, C) or none."""
    count, seed, ties = draw(st.integers(0, 9)), draw(st.integers(0, 9999)), draw(st.booleans())
    flags = st.lists(st.booleans(), min_size=count, max_size=count).map(
        lambda bits: np.array(bits, dtype=bool)
    )
    outside = draw(st.none() | st.integers(0, 3))
    start = None if outside is None else similarities(seed + 1, outside, count, ties)
    return similarities(seed, count, count, ties), draw(flags), draw(flags), draw(RULES), start


@settings(max_examples=150, deadline=None)
@given(growths())
def test_grow_is_the_loop(case) -> None:
    similarity, initial, candidates, rule, start = case
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


@settings(max_examples=40, deadline=None)
@given(growths(), st.integers(0, 999))
def test_order_of_candidates_does_not_matter_without_ties(case, seed) -> None:
    similarity, initial, candidates, rule, _ = case
    similarity = similarities(seed, *similarity.shape, ties=False)
    order = np.random.default_rng(seed).permutation(len(initial))
    joined = grow(lambda rows: similarity[rows], initial, candidates, rule)
    moved = similarity[np.ix_(order, order)]
    again = grow(lambda rows: moved[rows], initial[order], candidates[order], rule)
    assert again.tolist() == joined[order].tolist()


@settings(max_examples=40, deadline=None)
@given(growths(), EIGHTHS)
def test_what_is_monotone(case, other) -> None:
    similarity, initial, candidates, rule, start = case

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
