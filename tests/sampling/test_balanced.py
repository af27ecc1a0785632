"""Identity-balanced batches: what every epoch must keep, whatever the set."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.sampling.balanced import balanced_batches

counts_of_ids = st.lists(st.integers(1, 13), min_size=1, max_size=12)


def rows_of(batches):
    return [[row for row, _ in batch] for batch in batches]


@st.composite
def sets(draw):
    """Labels in any order, ids and images of a batch, seed and epoch."""
    counts = draw(counts_of_ids)
    labels = np.repeat(np.arange(len(counts)) * 3 + 5, counts)
    labels = np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)
    options = {"ids": draw(st.integers(2, 6)), "images": draw(st.integers(2, 5))}
    options |= {"seed": draw(st.integers(0, 2**40)), "epoch": draw(st.integers(0, 500))}
    return labels.tolist(), options


@settings(max_examples=150, deadline=None)
@given(case=sets())
def test_an_epoch(case):
    labels, options = case
    ids, images = options["ids"], options["images"]
    batches = balanced_batches(labels, **options)
    rows = rows_of(batches)
    used = [row for batch in rows for row in batch]
    assert len(used) == len(set(used)), "an image twice in an epoch"
    assert all(0 <= row < len(labels) and type(row) is int for row in used)
    size = Counter(labels)
    for batch in rows:
        brought = Counter(labels[row] for row in batch)
        assert 2 <= len(brought) <= ids
        for label, count in brought.items():
            # A whole group, or what the id has left; one image alone only if it has no more.
            assert count in (images, size[label] % images)
            assert count > 1 or size[label] == 1
    seeds = [seed for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)

    assert balanced_batches(labels, **options) == batches, "not a function of its arguments"

    # What is left over: single last images, and ids too few to fill half a batch.
    left = size - Counter(labels[row] for row in used)
    behind = [label for label, count in left.items() if count > 1 or size[label] == 1]
    assert len(behind) < max(2, ids / 2)


@settings(max_examples=60, deadline=None)
@given(case=sets(), replicas=st.integers(1, 4))
def test_replicas_share_the_epoch_of_one_process(case, replicas):
    labels, options = case
    whole = balanced_batches(labels, **options)
    parts = [
        balanced_batches(labels, **options, replicas=replicas, replica=replica)
        for replica in range(replicas)
    ]
    assert {len(part) for part in parts} == {len(whole) // replicas}
    together = [batch for step in zip(*parts, strict=True) for batch in step]
    assert together == whole[: len(whole) - len(whole) % replicas]  # hence disjoint


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


def test_every_image_has_its_turn():
    """5 images an id in groups of 4: the fifth is left out, another one each epoch."""
    labels = [row // 5 for row in range(50)]
    seen: Counter[int] = Counter()
    for epoch in range(40):
        batches = balanced_batches(labels, ids=5, images=4, seed=0, epoch=epoch)
        seen.update(row for batch in rows_of(batches) for row in batch)
    assert len(seen) == 50
    assert min(seen.values()) >= 20 and max(seen.values()) <= 40  # about 32 of 40 each


def test_equal_ids_fill_equal_batches_and_nothing_is_left():
    labels = [row % 32 for row in range(32 * 8)]
    batches = balanced_batches(labels, ids=16, images=4, seed=1, epoch=2)
    assert [len(batch) for batch in batches] == [64] * 4


def test_one_id_alone_gives_no_batch():
    assert balanced_batches([4] * 20, ids=4, images=4, seed=0, epoch=0) == []
    assert balanced_batches([], ids=4, images=4, seed=0, epoch=0) == []


@pytest.mark.parametrize(
    ("counts", "one_epoch", "ten_epochs"),
    [
        # As Market-1501: 751 ids of 2 to 59 images.
        (np.random.default_rng(0).integers(2, 60, 751).tolist(), 0.98, 0.999),
        # A long tail over 751 ids: 300 images of the first, 3 of the last.
        ([max(2, int(300 / (k + 1) ** 0.7)) for k in range(751)], 0.97, 0.999),
        # 1/k over 100 ids, 51 of them with 3 images or fewer, the first with a fifth of all.
        ([max(1, 200 // (k + 1)) for k in range(100)], 0.75, 0.98),
    ],
    ids=["market", "long tail", "longer tail than ids"],
)
def test_the_share_of_images_used(counts, one_epoch, ten_epochs):
    labels = [k for k, count in enumerate(counts) for _ in range(count)]
    seen: set[int] = set()
    shares = []
    for epoch in range(10):
        batches = balanced_batches(labels, ids=16, images=4, seed=0, epoch=epoch)
        rows = [row for batch in rows_of(batches) for row in batch]
        shares.append(len(rows) / len(labels))
        seen.update(rows)
    assert min(shares) > one_epoch
    assert len(seen) / len(labels) > ten_epochs


def test_one_giant_id_is_cut_to_the_others():
    """1,000 images of one id, 2 each of 50: there are partners for a few batches only."""
    labels = [0] * 1000 + [1 + k // 2 for k in range(100)]
    batches = rows_of(balanced_batches(labels, ids=16, images=4, seed=0, epoch=0))
    assert all(sum(labels[row] == 0 for row in batch) == 4 for batch in batches)
    small = {row for batch in batches for row in batch if labels[row]}
    assert len(small) >= 100 - 2 * 8  # all but the ids of a batch not half full
