"""Relations of a batch against sets and loops; and what must hold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import mining as oracle
from resight.mining.positives import Mined
from resight.mining.relations import AnchorTuple, Lists, Relations, as_labels, relate

THRESHOLD = 0.6
NEVER = np.zeros(0, dtype=np.int64)


def mined(positive: list[int], undecided: list[int], negative: list[int]) -> Mined:
    rows = np.array(positive + undecided + negative, dtype=np.int64)
    sizes = [len(positive), len(undecided), len(negative)]
    state = np.repeat(np.array([1, 0, -1], dtype=np.int8), sizes)
    order = np.argsort(rows)
    offline = np.full(len(rows), 0.5, dtype=np.float32)
    return Mined(rows[order], offline, state[order], np.zeros(len(rows), dtype=np.int8))


@st.composite
def batches(draw, most: int = 5):
    """Tuples over few images, so that they meet in every way; and similarities with ties."""
    generator = np.random.default_rng(draw(st.integers(0, 99999)))
    images = draw(st.sampled_from([6, 12, 30]))
    tuples = []
    for _ in range(draw(st.integers(1, most))):
        size = int(generator.integers(1, 5))
        members = generator.choice(images, size, replace=bool(generator.random() < 0.2))
        kept = generator.random(size) < 0.6
        kept[0] = True
        found = None
        if generator.random() < 0.8:
            others = np.setdiff1d(np.arange(images), members)
            rows = others[generator.random(len(others)) < generator.random()]
            state = generator.choice([-1, -1, 0, 1], len(rows)).astype(np.int8)
            offline = np.zeros(len(rows), np.float32)
            found = Mined(rows, offline, state, np.where(state > 0, 0, -1).astype(np.int8))
        tuples.append(AnchorTuple(members, kept, found))
    count = sum(len(each.members) for each in tuples)
    values = np.array([0.2, 0.59, 0.6, 0.9], dtype=np.float32)
    half = np.triu(generator.choice(values, (count, count)))
    return tuples, np.maximum(half, half.T)


def sets(relations: Relations) -> list[tuple[set[int], ...]]:
    lists = (relations.positives, relations.negatives, relations.ignored)
    return [tuple(set(each.of(i).tolist()) for each in lists) for i in range(len(relations.batch))]


@settings(max_examples=200, deadline=None)
@given(batches())
def test_relate_is_the_loop(case) -> None:
    tuples, similarity = case
    relations = relate(tuples, similarity, THRESHOLD)
    matrix, lists = oracle.relate(tuples, similarity, THRESHOLD)
    assert relations.batch.dtype == np.int8
    assert relations.batch.tolist() == matrix
    assert sets(relations) == lists
    for each in (relations.positives, relations.negatives, relations.ignored):
        assert each.rows.dtype == each.start.dtype == np.int64
        assert all((np.diff(each.of(i)) > 0).all() for i in range(len(matrix)))  # none twice


@settings(max_examples=150, deadline=None)
@given(batches())
def test_what_every_batch_keeps_to(case) -> None:
    tuples, similarity = case
    relations = relate(tuples, similarity, THRESHOLD)
    rows = np.concatenate([each.members for each in tuples])
    kept = np.concatenate([each.kept for each in tuples])
    which = np.repeat(np.arange(len(tuples)), [len(each.members) for each in tuples])
    batch = relations.batch
    assert (batch == batch.T).all() and not batch.diagonal().any()
    same = rows == rows[:, None]
    assert (batch[same & ~np.eye(len(rows), dtype=bool)] == 1).all()
    # A filtered image is pulled towards nothing but itself.
    assert (batch[~kept][:, :][~same[~kept]] < 1).all()
    for i, (positives, negatives, ignored) in enumerate(sets(relations)):
        assert not (positives & negatives or positives & ignored or negatives & ignored)
        assert rows[i] in ignored
        assert kept[i] or not positives | negatives
        for j in np.flatnonzero(kept & (which != which[i])):
            # What the batch does not push apart, the memory can't push apart unawares.
            if kept[i] and batch[i, j] >= 0:
                assert rows[j] in positives | negatives | ignored


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(0, 999))
def test_order_of_the_tuples_only_permutes(case, seed) -> None:
    tuples, similarity = case
    order = np.random.default_rng(seed).permutation(len(tuples))
    ends = np.cumsum([0] + [len(each.members) for each in tuples])
    moved = np.concatenate([np.arange(ends[t], ends[t + 1]) for t in order])
    once = relate(tuples, similarity, THRESHOLD)
    again = relate([tuples[t] for t in order], similarity[np.ix_(moved, moved)], THRESHOLD)
    assert (again.batch == once.batch[np.ix_(moved, moved)]).all()
    lists = sets(once)
    assert sets(again) == [lists[i] for i in moved]
    rows = np.concatenate([each.members for each in tuples])
    label, ref_rows, ref_labels = as_labels(once, rows)
    label_2, ref_rows_2, ref_labels_2 = as_labels(again, rows[moved])
    equal = label[moved] == label[moved][:, None]
    assert (equal == (label_2 == label_2[:, None])).all()
    assert ref_rows.tolist() == ref_rows_2.tolist()
    assert ((ref_labels < 0) == (ref_labels_2 < 0)).all()


@settings(max_examples=200, deadline=None)
@given(batches(), st.sampled_from(["all", "kept"]))
def test_labels_are_the_loop(case, whose) -> None:
    tuples, similarity = case
    relations = relate(tuples, similarity, THRESHOLD)
    rows = np.concatenate([each.members for each in tuples])
    labels, ref_rows, ref_labels = as_labels(relations, rows, whose)
    matrix, lists = oracle.relate(tuples, similarity, THRESHOLD)
    assert labels.tolist() == oracle.labels(matrix)
    heard = relations.kept if whose == "kept" else [True] * len(rows)
    wanted = oracle.references(labels.tolist(), lists, rows.tolist(), heard)
    given = dict(zip(ref_rows.tolist(), ref_labels.tolist(), strict=True))
    assert len(given) == len(ref_rows)
    own = [label for label in given.values() if label < 0]
    assert sorted(own) == list(range(-len(own), 0))
    assert {row: label if label >= 0 else "own" for row, label in given.items()} == wanted
    assert [each.dtype for each in (labels, ref_rows, ref_labels)] == [np.int64] * 3


def test_one_tuple() -> None:
    members, kept = np.array([5, 3, 8, 1]), np.array([True, True, False, False])
    found = mined([2, 9], [4], [7])
    similarity = np.full((4, 4), 0.2, dtype=np.float32)
    relations = relate([AnchorTuple(members, kept, found)], similarity, THRESHOLD)
    assert relations.batch.tolist() == [
        [0, 1, -1, -1],
        [1, 0, -1, -1],
        [-1, -1, 0, -1],
        [-1, -1, -1, 0],
    ]
    assert (
        sets(relations)
        == [({2, 9}, {1, 7, 8}, {3, 4, 5})] * 2 + [(set(), set(), {1, 2, 3, 4, 5, 7, 8, 9})] * 2
    )
    similarity[2, 3] = 0.6
    alike = relate([AnchorTuple(members, kept, found)], similarity, THRESHOLD)
    assert alike.batch[2, 3] == alike.batch[3, 2] == 0
    labels, ref_rows, _ = as_labels(relations, members)
    assert labels.tolist() == [0, 0, 1, 2] and not len(ref_rows)
    _, ref_rows, ref_labels = as_labels(relations, members, "kept")
    assert ref_rows.tolist() == [2, 9, 7] and ref_labels.tolist() == [0, 0, -1]


def two(first: Mined | None, second: Mined | None, rows: tuple[int, int] = (0, 1)) -> Relations:
    """A batch of two anchors."""
    yes = np.array([True])
    tuples = [
        AnchorTuple(np.array([row]), yes, found)
        for row, found in zip(rows, (first, second), strict=True)
    ]
    return relate(tuples, np.eye(2, dtype=np.float32), THRESHOLD)


def test_two_anchors() -> None:
    assert two(None, None).batch[0, 1] == -1
    assert two(mined([], [], [1]), None).batch[0, 1] == -1
    assert two(mined([1], [], []), None).batch[0, 1] == 1
    assert two(mined([1], [], []), mined([], [], [0])).batch[0, 1] == 1
    assert two(mined([], [1], []), None).batch[0, 1] == 0
    assert two(mined([5], [], []), mined([5], [], [])).batch[0, 1] == 0  # a positive in common
    assert two(mined([5], [], []), mined([], [5], [])).batch[0, 1] == -1
    assert two(mined([5], [], []), mined([], [], [5])).batch[0, 1] == -1
    assert two(None, None, (4, 4)).batch[0, 1] == 1
    # The other's positives are not drawn as negatives either.
    assert sets(two(mined([5], [], []), mined([5, 6], [], [])))[0] == ({5}, set(), {0, 1, 6})


def test_references_of_two_tuples() -> None:
    rows = np.array([0, 1])
    apart = two(mined([5], [7], [6, 8]), mined([6], [], [8, 9, 7]))
    labels, ref_rows, ref_labels = as_labels(apart, rows)
    assert labels.tolist() == [0, 1]
    # 6 is the one's positive and the other's negative, which labels can say; 7 is ignored.
    assert dict(zip(ref_rows.tolist(), ref_labels.tolist(), strict=True)) == {
        5: 0,
        6: 1,
        8: -1,
        9: -2,
    }
    torn = two(mined([1, 5], [], [6]), mined([6], [], [5]))
    assert as_labels(torn, rows)[0].tolist() == [0, 0]
    assert not len(as_labels(torn, rows)[1])


def test_a_chain_of_links_is_one_label() -> None:
    count = 9
    batch = np.full((count, count), -1, dtype=np.int8)
    order = np.random.default_rng(3).permutation(count)[:7]
    for a, b in pairwise(order.tolist()):
        batch[a, b] = batch[b, a] = 1
    np.fill_diagonal(batch, 0)
    empty = Lists(np.zeros(count + 1, dtype=np.int64), NEVER)
    relations = Relations(batch, np.ones(count, dtype=bool), empty, empty, empty)
    labels, ref_rows, ref_labels = as_labels(relations, np.arange(count))
    assert len(set(labels[order].tolist())) == 1 and len(set(labels.tolist())) == 3
    assert not len(ref_rows) and not len(ref_labels)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="at least one"):
        relate([], np.ones((0, 0), np.float32), THRESHOLD)
    alone = AnchorTuple(np.array([1]), np.array([True]))
    with pytest.raises(ValueError, match="1 images"):
        relate([alone], np.ones((2, 2), np.float32), THRESHOLD)
