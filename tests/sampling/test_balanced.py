"""Identity-balanced batches: what every epoch must keep, whatever the set."""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.sampling.balanced import balanced_batches, share
from sampling.sets import check_epoch, group_sizes, rows_of, sets, visits


@settings(max_examples=200, deadline=None)
@given(case=sets())
def test_an_epoch(case):
    labels, options = case
    ids, images = options["ids"], options["images"]
    batches = balanced_batches(labels, **options)
    check_epoch(labels, batches, ids, images)
    assert balanced_batches(labels, **options) == batches, "not a function of its arguments"

    groups = {label: len(group_sizes(n, images)) for label, n in Counter(labels).items()}
    total = sum(groups.values())
    assert len(batches) == max(math.ceil(total / min(ids, len(groups))), *groups.values())

    # Ids come again equally often for what they have, as far as there are batches they are not in.
    seen = visits(labels, batches)
    free = [label for label in groups if seen[label] < len(batches)]
    rounds = min((seen[label] // groups[label] for label in free), default=0)
    assert all(seen[label] <= (rounds + 1) * groups[label] for label in free)


@settings(max_examples=100, deadline=None)
@given(case=sets())
def test_an_image_is_drawn_again_only_to_fill(case):
    labels, options = case
    images = options["images"]
    drawn = Counter(row for batch in rows_of(balanced_batches(labels, **options)) for row in batch)
    seen = visits(labels, balanced_batches(labels, **options))
    for label, count in Counter(labels).items():
        times = [drawn[row] for row in range(len(labels)) if labels[row] == label]
        sizes = group_sizes(count, images)
        assert max(times) <= math.ceil(seen[label] / len(sizes)) * (1 + (sum(sizes) > count))
        if seen[label] == len(sizes):
            assert sum(times) == sum(sizes)


@settings(max_examples=60, deadline=None)
@given(case=sets(), shift=st.integers(0, 1000))
def test_only_which_labels_are_equal_matters(case, shift):
    labels, options = case
    names = np.random.default_rng(shift).permutation(100)
    renamed = [int(names[label]) for label in labels]
    assert balanced_batches(renamed, **options) == balanced_batches(labels, **options)


@settings(max_examples=60, deadline=None)
@given(case=sets(), seed=st.integers(0, 99))
def test_order_of_the_images_does_not_change_the_shape_of_an_epoch(case, seed):
    labels, options = case
    moved = np.random.default_rng(seed).permutation(labels).tolist()
    one, other = balanced_batches(labels, **options), balanced_batches(moved, **options)
    assert len(one) == len(other)
    assert visits(labels, one).total() == visits(moved, other).total()


@given(size=st.integers(0, 40), replicas=st.integers(1, 9))
def test_shares_are_the_batch_in_near_equal_parts(size, replicas):
    batch = [(row, 7 * row) for row in range(size)]
    parts = [share(batch, replica, replicas) for replica in range(replicas)]
    assert [draw for part in parts for draw in part] == batch
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_epochs_and_seeds_differ():
    labels = [row // 6 for row in range(120)]
    drawn = {
        (seed, epoch): balanced_batches(labels, ids=4, images=4, seed=seed, epoch=epoch)
        for seed in range(3)
        for epoch in range(3)
    }
    orders = [tuple(map(tuple, rows_of(batches))) for batches in drawn.values()]
    assert len(set(orders)) == len(orders)
    seeds = [seed for batches in drawn.values() for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)
    # Who meets whom changes too, not the order of the batches alone.
    pairs = [{frozenset(labels[row] for row in batch) for batch in order} for order in orders]
    assert len({frozenset(sets) for sets in pairs}) == len(pairs)


def test_images_of_an_id_change_company():
    """5 images as 3 + 2: each two of them meet in 4 of 10 epochs."""
    labels = [row // 5 for row in range(50)]
    met: Counter[tuple[int, int]] = Counter()
    for epoch in range(200):
        for batch in rows_of(balanced_batches(labels, ids=5, images=4, seed=0, epoch=epoch)):
            own = sorted(row for row in batch if row < 5)
            met.update((a, b) for a in own for b in own if a < b)
    assert len(met) == 10
    assert min(met.values()) > 50 and max(met.values()) < 115  # 80 expected, deviation about 7


def test_small_ids_meet_large_ones_as_often_as_chance_has_it():
    """Sizes do not decide who meets whom: 60 ids of 2 images and 20 of 40, groups of 4."""
    labels = [k for k in range(60) for _ in range(2)] + [
        60 + k for k in range(20) for _ in range(40)
    ]
    small = large = 0
    for epoch in range(40):
        for batch in rows_of(balanced_batches(labels, ids=8, images=4, seed=0, epoch=epoch)):
            kinds = Counter(labels[row] >= 60 for row in {labels.index(labels[r]) for r in batch})
            small += kinds[False] * (kinds[False] - 1)
            large += kinds[False] * kinds[True]
    # 60 of 260 groups are small ones: beside a small one, 59 of 259.
    assert small / (small + large) == pytest.approx(59 / 259, abs=0.05)


def test_an_id_meets_many_others_in_an_epoch():
    """64 ids in 64 batches of 8: each pair is expected in one batch, so 63 % of pairs meet."""
    labels = [row // 32 for row in range(64 * 32)]
    met = set()
    for batch in rows_of(balanced_batches(labels, ids=8, images=4, seed=0, epoch=0)):
        own = {labels[row] for row in batch}
        met |= {(a, b) for a in own for b in own if a < b}
    assert len(met) > 0.5 * 64 * 63 / 2


def test_ids_drawn_again_change():
    """5 ids in 2 batches of 4: three come again, by chance."""
    labels = [row // 2 for row in range(10)]
    again: Counter[int] = Counter()
    for epoch in range(100):
        batches = balanced_batches(labels, ids=4, images=2, seed=0, epoch=epoch)
        seen = visits(labels, batches)
        again.update(label for label in seen if seen[label] > 1)
    assert set(again) == set(range(5)) and max(again.values()) < 80  # 60 expected, deviation 5


def test_equal_ids_fill_equal_batches_and_nothing_is_drawn_again():
    labels = [row % 32 for row in range(32 * 8)]
    batches = balanced_batches(labels, ids=16, images=4, seed=1, epoch=2)
    assert [len(batch) for batch in batches] == [64] * 4
    assert len({row for batch in rows_of(batches) for row in batch}) == 256


def test_one_image_at_a_time():
    batches = balanced_batches([0, 0, 0, 1, 2], ids=2, images=1, seed=0, epoch=0)
    assert sorted(row for batch in rows_of(batches) for row in batch)[:3] == [0, 1, 2]
    assert [len(batch) for batch in batches] == [2, 2, 2]


def test_one_id_alone_gives_no_batch():
    assert balanced_batches([4] * 20, ids=4, images=4, seed=0, epoch=0) == []
    assert balanced_batches([], ids=4, images=4, seed=0, epoch=0) == []


@pytest.mark.parametrize("room", [{"ids": 0, "images": 4}, {"ids": 4, "images": 0}])
def test_no_room(room):
    with pytest.raises(ValueError, match="at least 1 id of 1 image"):
        balanced_batches([1, 1, 2, 2], **room, seed=0, epoch=0)


def test_one_giant_id_takes_the_others_along():
    """1,000 images of one id, 2 each of 50: the giant is in every batch, the others in turn."""
    labels = [0] * 1000 + [1 + k // 2 for k in range(100)]
    batches = balanced_batches(labels, ids=16, images=4, seed=0, epoch=0)
    check_epoch(labels, batches, 16, 4)
    seen = visits(labels, batches)
    assert seen.pop(0) == len(batches) == 250
    assert set(seen.values()) == {75}  # 15 places in 250 batches, for 50 ids


def test_fast_at_330_000_images():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10_000), 33)).tolist()
    start = time.process_time()
    batches = balanced_batches(labels, ids=64, images=4, seed=0, epoch=0)
    assert time.process_time() - start < 3  # 0.3 s on an idle core
    assert len(batches) == math.ceil(10_000 * 9 / 64)
