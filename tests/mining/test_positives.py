"""Mining one tuple against sets and loops, in every option; and what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from mining_rules import MARKS, SEEDS, any_rule, mark
from pydantic import ValidationError

from oracles import mining as oracle
from resight.mining.positives import Mined, Mining, candidate_set, mine
from resight.mining.selection import Rule

IMAGES, DIM = 14, 4


def any_mining(generator: np.random.Generator) -> Mining:
    low, high = sorted([mark(generator), mark(generator)])
    return Mining(
        initial=generator.choice(["anchor", "batch", "batch+pool"]),
        initial_at=high,
        candidate_at=low,
        rule=any_rule(generator),
        leftover=generator.choice(["ignore", "negative"]),
    )


def tuple_(seed: int):
    """members, kept, neighbours, scores, vectors and options; products of vectors are exact."""
    generator = np.random.default_rng(seed)
    size, k = int(generator.integers(1, 5)), int(generator.integers(0, 7))
    members = generator.permutation(IMAGES)[:size]
    kept = generator.random(size) < 0.6
    kept[0] = True
    neighbours = generator.integers(-1, IMAGES, (size, k)).astype(np.int32)
    scores = generator.choice(np.array(MARKS, np.float32), (size, k))
    vectors = (generator.integers(-3, 6, (IMAGES, DIM)) / 8).astype(np.float32)
    return members, kept, neighbours, scores, vectors, any_mining(generator)


def as_dict(mined: Mined) -> dict[int, tuple]:
    columns = (mined.offline, mined.state, mined.joined)
    values = zip(*(column.tolist() for column in columns), strict=True)
    return dict(zip(mined.rows.tolist(), values, strict=True))


@settings(max_examples=1000, deadline=None)
@given(SEEDS)
def test_mine_is_the_loop(seed) -> None:
    members, kept, neighbours, scores, vectors, options = tuple_(seed)
    asked: list[int] = []

    def features(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return vectors[rows]

    mined = mine(members, kept, neighbours, scores, features, options)
    similarity = vectors @ vectors.T
    wanted = oracle.mine(members, kept, neighbours, scores, similarity, options)
    assert as_dict(mined) == wanted
    assert len(set(asked)) == len(asked)  # a vector is read once
    assert (np.diff(mined.rows) > 0).all()
    assert not set(mined.rows.tolist()) & set(members.tolist())
    assert ((mined.state == 1) == (mined.joined >= 0)).all()
    types = [column.dtype for column in (mined.rows, mined.offline, mined.state, mined.joined)]
    assert types == [np.int64, np.float32, np.int8, np.int8]


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_lower_marks_let_more_in(seed) -> None:
    members, kept, neighbours, scores, vectors, options = tuple_(seed)
    other = mark(np.random.default_rng(seed + 1))

    def states(**changes: object) -> dict[int, tuple]:
        changed = options.model_copy(update=changes)
        return as_dict(mine(members, kept, neighbours, scores, lambda rows: vectors[rows], changed))

    def sure(found: dict[int, tuple]) -> set[int]:
        return {row for row, (_, _, joined) in found.items() if joined == 0}

    low, high = sorted([max(other, options.candidate_at), options.initial_at])
    assert sure(states(initial_at=low)) >= sure(states(initial_at=high))
    low, high = sorted([min(other, options.initial_at), options.candidate_at])
    pushed = [
        {
            row
            for row, (_, state, _) in states(candidate_at=at, leftover="ignore").items()
            if state < 0
        }
        for at in (low, high)
    ]
    assert pushed[0] <= pushed[1]
    told = [states(leftover=what) for what in ("ignore", "negative")]
    assert [j for *_, j in told[0].values()] == [j for *_, j in told[1].values()]
    assert not any(state == 0 for _, state, _ in told[1].values())


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_order_of_the_neighbours_and_the_pools_of_the_filtered_do_not_matter(seed) -> None:
    members, kept, neighbours, scores, vectors, options = tuple_(seed)
    generator = np.random.default_rng(seed + 1)
    order = np.argsort(generator.random(neighbours.shape), axis=1)
    others = np.take_along_axis(neighbours, order, 1), np.take_along_axis(scores, order, 1)
    for pools in others:
        pools[~kept] = generator.permutation(pools[~kept], axis=1)[:, ::-1]
    others[1][~kept] = 1.0
    once = mine(members, kept, neighbours, scores, lambda rows: vectors[rows], options)
    again = mine(members, kept, *others, lambda rows: vectors[rows], options)
    assert as_dict(once) == as_dict(again)


def test_the_story_of_one_tuple() -> None:
    # On a circle, by angle: each step is within reach of the one before.
    angles = np.radians([0, 10, 20, 65, 110, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    pools = np.array([[1, 2, 3, 4, 5, -1], [2, 0, 3, -1, -1, -1]])
    scores = np.array([[0.9, 0.76, 0.74, 0.5, 0.49, 1], [0.8, 0.9, 0.74, 1, 1, 1]], np.float32)
    members, kept = np.array([0, 5]), np.array([True, False])
    rule = Rule(score="max", choose="topk", top=1, rounds=3, floor=0.6)
    asked: list[list[int]] = []

    def features(rows: np.ndarray) -> np.ndarray:
        asked.append(rows.tolist())
        return vectors[rows]

    mined = mine(members, kept, pools, scores, features, Mining(rule=rule))
    assert mined.rows.tolist() == [1, 2, 3, 4]  # 5 is a filtered member
    assert mined.joined.tolist() == [0, 0, 1, 2]  # 4 is near 3 only
    assert asked == [[0, 1, 2, 3, 4]]
    once = rule.model_copy(update={"rounds": 1})
    mined = mine(members, kept, pools, scores, features, Mining(rule=once))
    assert mined.state.tolist() == [1, 1, 1, 0]
    mined = mine(members, kept, pools, scores, features, Mining(rule=once, candidate_at=0.6))
    assert mined.state.tolist() == [1, 1, 1, -1]
    mined = mine(members, kept, pools, scores, features, Mining(rule=once, initial="anchor"))
    assert mined.joined.tolist() == [1, -1, -1, -1]


def test_nothing_to_mine() -> None:
    def features(rows: np.ndarray) -> np.ndarray:
        raise AssertionError("nothing to ask for")

    members, kept = np.array([3]), np.array([True])
    for pool, state in (([], []), ([-1, 3], []), ([7, 7], [-1])):
        scores = np.full((1, len(pool)), 0.2, np.float32)
        mined = mine(members, kept, np.array([pool], np.int32), scores, features, Mining())
        assert mined.state.tolist() == state


def test_candidates_keep_their_best_similarity() -> None:
    pools = np.array([[4, 1, -1], [9, 4, 2]], dtype=np.int32)
    scores = np.array([[0.5, 0.9, 1], [0.1, 0.7, np.nan]], dtype=np.float32)
    rows, best = candidate_set(pools, scores, np.array([1]))
    assert rows.tolist() == [2, 4, 9] and rows.dtype == np.int64
    assert best.tolist()[1:] == [np.float32(0.7), np.float32(0.1)]


def test_mistakes_are_told() -> None:
    pool, scores = np.array([[1], [2]]), np.ones((2, 1), np.float32)
    two, yes = np.array([0, 3]), np.array([True, True])
    for wrong in (
        (two[:1], yes, pool, scores),
        (two, yes[:1], pool, scores),
        (two, yes, pool, scores[:1]),
    ):
        with pytest.raises(ValueError, match="same tuple"):
            mine(*wrong, lambda rows: rows, Mining())
    with pytest.raises(ValueError, match="anchor"):
        mine(two, ~yes, pool, scores, lambda rows: rows, Mining())
    with pytest.raises(ValidationError, match="candidate_at"):
        Mining(initial_at=0.4)
