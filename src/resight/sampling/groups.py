"""What all samplers share: each id's images cut into groups, and groups turned into draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from resight.data.loading import Draw

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """An epoch's images in groups of one id each; group g is `rows[first[g] : first[g] + size[g]]`.

    `counts` (K,) is each id's number of groups, which are adjacent: those of id k start at
    `start[k]`. Ids are numbered in the order in which they first appear among the labels.
    """

    rows: Integers
    first: Integers
    size: Integers
    counts: Integers
    start: Integers

    def draws(self, batches: Integers, seed: int, epoch: int) -> list[list[Draw]]:
        """Batches (N, P) of groups as lists of (row, augmentation seed)."""
        chosen = batches.ravel()
        length = self.size[chosen]
        shift = self.first[chosen] - (np.cumsum(length) - length)
        total = int(length.sum())
        rows = self.rows[np.repeat(shift, length) + np.arange(total)]
        seeds = np.random.default_rng([seed, epoch, 1]).integers(0, 2**63, total)
        draws = list(zip(rows.tolist(), seeds.tolist(), strict=True))
        ends = np.cumsum(length.reshape(batches.shape).sum(axis=1)).tolist()
        return [draws[begin:end] for begin, end in pairwise([0, *ends])]


def cut(labels: Sequence[int], images: int, rng: np.random.Generator) -> Groups:
    """Shuffle each id's images and cut them into the fewest groups of at most `images`.

    An id's groups are as even as possible: five images in groups of four are 3 + 2. A group of one
    image (no pair) is left to ids that have a single one: in groups of two, the last of an odd
    number takes an image of the group before along.
    """
    _, seen, codes = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    codes = np.argsort(np.argsort(seen))[codes]
    rows = np.lexsort((rng.random(len(codes)), codes))
    held = np.bincount(codes)
    counts = -(-held // images)
    start = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(owner)) - start[owner]
    size = held[owner] // counts[owner] + (within < held[owner] % counts[owner])
    first = np.cumsum(size) - size
    if images > 1:
        alone = (size == 1) & (held[owner] > 1)
        first, size = first - alone, size + alone
    return Groups(rows, first, size, counts, start)


def check(ids: int, images: int) -> None:
    """ValueError unless a batch has room for something."""
    if ids < 1 or images < 1:
        raise ValueError(f"a batch needs at least 1 id of 1 image, got ids={ids}, images={images}")
