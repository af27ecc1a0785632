"""Tuples of neighbours: who is drawn, with whom, how often."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.sampling.tuples import tuple_batches


def neighbours(count: int, k: int, seed: int = 0) -> np.ndarray:
    """Of each row all others by chance, cut to k."""
    rng = np.random.default_rng(seed)
    found = np.full((count, k), -1, np.int32)
    for row in range(count):
        others = rng.permutation(np.delete(np.arange(count), row))[:k]
        found[row, : len(others)] = others
    return found


def slow(near: np.ndarray, anchor: int, taken: set[int], size: int, views: int) -> list[int]:
    """The tuple of an anchor by the rule, word for word."""
    found = [int(row) for row in near[anchor] if row >= 0 and int(row) not in taken]
    return [anchor] * views + found[: size - views]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    k=st.integers(1, 12),
    tuples=st.integers(1, 9),
    size=st.integers(1, 5),
    views=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_tuples_are_what_the_rule_says(
    count: int, k: int, tuples: int, size: int, views: int, epoch: int
) -> None:
    size = max(size, views)
    near = neighbours(count, k)
    options = {"rows": range(count), "tuples": tuples, "size": size, "views": views, "seed": 3}
    batches = tuple_batches(near, **options, epoch=epoch)  # type: ignore[arg-type]
    assert batches == tuple_batches(near, **options, epoch=epoch)  # type: ignore[arg-type]
    for batch in batches:
        rows = [row for row, _ in batch.draws]
        assert set(rows) == set(batch.tuple_of)
        assert 1 <= len(set(batch.tuple_of.values())) <= tuples
        taken: set[int] = set()
        at = 0
        for number in range(len(set(batch.tuple_of.values()))):
            anchor = rows[at]
            taken.add(anchor)
            expected = slow(near, anchor, taken, size, views)
            assert rows[at : at + len(expected)] == expected
            assert all(batch.tuple_of[row] == number for row in expected)
            taken |= set(expected)
            at += len(expected)
        assert at == len(rows)
        assert all(n == views or n == 1 for n in Counter(rows).values())
    seeds = [seed for batch in batches for _, seed in batch.draws]
    assert len(set(seeds)) == len(seeds)


def test_every_image_is_an_anchor_before_any_is_again() -> None:
    near = neighbours(50, 10)
    batches = tuple_batches(
        near, rows=range(50), tuples=5, size=1, views=1, steps=10, seed=0, epoch=0
    )
    assert sorted(row for batch in batches for row, _ in batch.draws) == list(range(50))


def test_rows_left_out_are_never_drawn() -> None:
    near = neighbours(40, 39)
    batches = tuple_batches(near, rows=range(0, 40, 2), tuples=3, size=4, steps=20, seed=0, epoch=0)
    assert {row % 2 for batch in batches for row, _ in batch.draws} == {0}


def test_an_epoch_draws_as_many_pictures_as_there_are() -> None:
    near = neighbours(640, 20)
    batches = tuple_batches(near, rows=range(640), tuples=16, size=4, seed=0, epoch=0)
    assert len(batches) == 10 and all(len(batch.draws) == 64 for batch in batches)
    assert len(tuple_batches(near, rows=[], tuples=2, size=2, seed=0, epoch=0)) == 0


@pytest.mark.parametrize(("size", "views", "tuples"), [(1, 2, 3), (2, 0, 3), (2, 1, 0)])
def test_senseless_sizes_are_refused(size: int, views: int, tuples: int) -> None:
    with pytest.raises(ValueError, match="tuples of"):
        tuple_batches(
            neighbours(9, 3), rows=range(9), tuples=tuples, size=size, views=views, seed=0, epoch=0
        )
