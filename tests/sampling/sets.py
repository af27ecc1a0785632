"""Labels to draw batches from, and what every sampler must keep."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import strategies as st

counts_of_ids = st.lists(st.integers(1, 13), min_size=2, max_size=12)


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


def group_sizes(count: int, images: int) -> list[int]:
    """An id's images dealt out one by one to the fewest groups that hold them."""
    groups = [0] * -(-count // images)
    for k in range(count):
        groups[k % len(groups)] += 1
    return [2 if size == 1 < count else size for size in groups]


def check_epoch(labels, batches, ids, images):
    """Every image, full batches, even groups, no image twice in a batch, seeds all different."""
    size = Counter(labels)
    rows = rows_of(batches)
    assert {row for batch in rows for row in batch} == set(range(len(labels)))
    assert all(type(row) is int for batch in rows for row in batch)
    for batch in rows:
        assert len(batch) == len(set(batch)), "an image twice in a batch"
        brought = Counter(labels[row] for row in batch)
        assert len(brought) == min(ids, len(size))
        assert all(n in group_sizes(size[label], images) for label, n in brought.items())
    seeds = [seed for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def visits(labels, batches) -> Counter[int]:
    """In how many batches each id is."""
    return Counter(label for batch in rows_of(batches) for label in {labels[row] for row in batch})
