"""Hierarchical batches: ids of two super-classes, and all that balanced ones keep."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.sampling.hierarchical import hierarchical_batches
from sampling.sets import check_epoch, rows_of, sets, visits


@st.composite
def nested(draw):
    """As `sets`, with one of up to four super-classes for each id."""
    labels, options = draw(sets())
    home = {label: draw(st.sampled_from("abcd")) for label in sorted(set(labels))}
    options["per_batch"] = draw(st.integers(1, min(3, options["ids"])))
    return labels, [home[label] for label in labels], options


def met(labels, supers, batch):
    """super-class -> ids it brings to a batch of rows."""
    return Counter(supers[row] for row in {labels[r]: r for r in batch}.values())


@settings(max_examples=200, deadline=None)
@given(case=nested())
def test_an_epoch(case):
    labels, supers, options = case
    batches = hierarchical_batches(labels, supers, **options)
    check_epoch(labels, batches, options["ids"], options["images"])
    assert hierarchical_batches(labels, supers, **options) == batches

    ids = min(options["ids"], len(set(labels)))
    sizes = Counter(dict(zip(labels, supers, strict=True)).values())
    wanted = min(options["per_batch"], len(sizes))
    for batch in rows_of(batches):
        brought = met(labels, supers, batch)
        assert len(brought) >= wanted
        # More than asked for only if those without any one of them have too few ids.
        if len(brought) > wanted:
            assert sum(sizes[name] for name in brought) - max(sizes[n] for n in brought) < ids
        # As equal as can be: who brings fewer than another has no more.
        most = max(brought.values())
        assert all(n >= most - 1 or n == sizes[name] for name, n in brought.items())


@settings(max_examples=100, deadline=None)
@given(
    homes=st.lists(st.integers(0, 3), min_size=2, max_size=14),
    each=st.integers(1, 9),
    ids=st.integers(2, 6),
    seed=st.integers(0, 999),
)
def test_equal_ids_of_a_super_class_are_seen_equally_often(homes, each, ids, seed):
    labels = [k for k in range(len(homes)) for _ in range(each)]
    supers = [homes[label] for label in labels]
    batches = hierarchical_batches(labels, supers, ids=ids, images=3, seed=seed, epoch=0)
    seen = visits(labels, batches)
    for name in set(homes):
        own = [seen[k] for k, home in enumerate(homes) if home == name]
        assert max(own) - min(own) <= 1


@settings(max_examples=50, deadline=None)
@given(case=nested(), seed=st.integers(0, 99))
def test_only_which_labels_are_equal_matters(case, seed):
    labels, supers, options = case
    names = np.random.default_rng(seed).permutation(100)
    renamed = [int(names[label]) for label in labels]
    rehomed = [{"a": 7, "b": 1, "c": 4, "d": 0}[name] for name in supers]
    before = hierarchical_batches(labels, supers, **options)
    assert hierarchical_batches(renamed, rehomed, **options) == before


def test_two_super_classes_half_each_and_hardly_anything_twice():
    """As SOP: 12 super-classes of about 100 ids, batches of 24 ids."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1200), rng.integers(2, 10, 1200)).tolist()
    supers = [label % 12 for label in labels]
    batches = hierarchical_batches(labels, supers, ids=24, images=4, seed=0, epoch=0)
    brought = [met(labels, supers, batch) for batch in rows_of(batches)]
    assert all(sorted(counts.values()) == [12, 12] for counts in brought)
    assert len({frozenset(counts) for counts in brought}) > 30  # of 66 pairs
    drawn = sum(map(len, batches))
    assert len(labels) <= drawn < 1.1 * len(labels)


def test_pairs_are_drawn_in_proportion():
    """The first super-class has half of the ids and is in nearly every batch."""
    labels = [k for k in range(400) for _ in range(4)]
    supers = ["big" if k < 200 else f"small {k % 4}" for k in labels]
    seen: Counter[str] = Counter()
    for epoch in range(10):
        batches = hierarchical_batches(labels, supers, ids=8, images=4, seed=0, epoch=epoch)
        seen.update(name for batch in rows_of(batches) for name in met(labels, supers, batch))
    small = [count for name, count in seen.items() if name != "big"]
    assert max(small) < 1.25 * min(small)
    assert 0.8 < sum(small) / seen["big"] < 1.6


def test_super_classes_too_small_for_a_batch():
    """Three ids each where a batch has eight: more than two come, and batches are full."""
    labels = [k for k in range(30) for _ in range(4)]
    supers = [label // 3 for label in labels]
    batches = hierarchical_batches(labels, supers, ids=8, images=4, seed=0, epoch=0)
    for batch in rows_of(batches):
        assert sorted(met(labels, supers, batch).values()) == [2, 3, 3]


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="id 7 is in two super-classes, shoe and hat"):
        hierarchical_batches([3, 7, 7], ["hat", "shoe", "hat"], ids=2, images=2, seed=0, epoch=0)
    with pytest.raises(ValueError, match="per_batch must be from 1 to ids"):
        hierarchical_batches([1, 2], [0, 0], ids=2, images=2, seed=0, epoch=0, per_batch=3)
    with pytest.raises(ValueError, match="2 labels, but 1 super-classes"):
        hierarchical_batches([1, 2], [0], ids=2, images=2, seed=0, epoch=0)
    assert hierarchical_batches([1, 1], [0, 0], ids=2, images=2, seed=0, epoch=0) == []
    assert hierarchical_batches([], [], ids=2, images=2, seed=0, epoch=0) == []


def test_fast_at_330_000_images():
    labels = np.repeat(np.arange(10_000), 33).tolist()
    supers = [label % 12 for label in labels]
    start = time.process_time()
    batches = hierarchical_batches(labels, supers, ids=64, images=4, seed=0, epoch=0)
    assert time.process_time() - start < 4  # 0.5 s on an idle core
    assert len(batches) < 1.02 * 10_000 * 9 / 64
