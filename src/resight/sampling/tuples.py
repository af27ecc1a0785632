"""Batches without labels: tuples of an image and its nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.data.loading import Draw

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class TupleBatch:
    """One batch: `draws` (row, augmentation seed), tuple after tuple, the anchor first in each.

    `tuple_of` gives the tuple of each row of the batch.
    """

    draws: list[Draw]
    tuple_of: dict[int, int]


def tuple_batches(
    neighbours: Integers,
    *,
    rows: Sequence[int] | Integers,
    tuples: int,
    size: int,
    views: int = 1,
    steps: int | None = None,
    seed: int,
    epoch: int,
) -> list[TupleBatch]:
    """One epoch of batches of `tuples` anchors, each `views` times, with nearest neighbours.

    neighbours (N, k) rows by falling similarity, -1 where there is none; `rows`: the images that
    may be drawn. A tuple has `size` pictures: its anchor `views` times, the rest neighbours, each
    once; no image is in two tuples of a batch: a neighbour that is in the batch already makes room
    for the next one. Tuples are shorter where neighbours run out. Anchors come in random order,
    each once before any comes again.

    Without `steps` an epoch has as many batches as it takes to draw as many pictures as there are
    `rows`. A pure function of its arguments. Source: InsCLR (AAAI 2022), section 3: tuples of an
    anchor and its 3 nearest neighbours.
    """
    if views < 1 or size < views or tuples < 1:
        raise ValueError(f"tuples of {size} pictures with {views} views, {tuples} a batch")
    usable = np.zeros(len(neighbours), bool)
    usable[np.asarray(rows, np.int64)] = True
    count = int(usable.sum())
    if count == 0:
        return []
    number = steps or max(1, round(count / (tuples * size)))
    anchors = _Anchors(np.flatnonzero(usable), np.random.default_rng([seed, epoch, 1]))
    seeds = np.random.default_rng([seed, epoch, 2])
    batches = []
    for _ in range(number):
        members: dict[int, int] = {}
        drawn: list[int] = []
        for k in range(min(tuples, count)):
            anchor = anchors.next(members)
            if anchor is None:  # all images are in this batch
                break
            group = [anchor]
            members[anchor] = k
            for row in neighbours[anchor] if size > views else ():
                if len(group) > size - views:
                    break
                near = int(row)
                if near >= 0 and usable[near] and near not in members:
                    group.append(near)
                    members[near] = k
            drawn += [anchor] * (views - 1) + group
        numbers = seeds.integers(0, 2**63, size=len(drawn)).tolist()
        batches.append(TupleBatch(list(zip(drawn, numbers, strict=True)), members))
    return batches


def drawn_batches(
    starts: Integers,
    others: Integers,
    *,
    rows: Sequence[int] | Integers,
    tuples: int,
    drawn: int,
    views: int = 2,
    steps: int,
    seed: int,
    epoch: int,
) -> list[TupleBatch]:
    """One epoch of `steps` batches: each anchor `views` times, and `drawn` of its own others.

    Those of row i are others[starts[i]:starts[i + 1]], drawn at random without return, or with it
    where they are fewer; an anchor that has none is seen more often itself. Anchors as in
    `tuple_batches`; a pure function of its arguments.
    """
    if views < 1 or drawn < 0 or tuples < 1:
        raise ValueError(f"{tuples} tuples of {views} views and {drawn} others")
    rows = np.asarray(rows, np.int64)
    if not len(rows):
        return []
    anchors = _Anchors(rows, np.random.default_rng([seed, epoch, 1]))
    random = np.random.default_rng([seed, epoch, 2])
    batches = []
    for _ in range(steps):
        taken: dict[int, int] = {}
        members: list[int] = []
        for k in range(min(tuples, len(rows))):
            anchor = anchors.next(taken)
            if anchor is None:
                break
            taken[anchor] = k
            own = others[starts[anchor] : starts[anchor + 1]]
            more = np.full(drawn, anchor)
            if len(own):
                more = random.choice(own, drawn, replace=len(own) < drawn)
            members += [anchor] * views + [int(row) for row in more]
        tuple_of = {row: at // (views + drawn) for at, row in enumerate(members)} | taken
        numbers = random.integers(0, 2**63, size=len(members)).tolist()
        batches.append(TupleBatch(list(zip(members, numbers, strict=True)), tuple_of))
    return batches


class _Anchors:
    """Rows in random order, round after round; one that is in the batch waits for the next."""

    def __init__(self, rows: Integers, rng: np.random.Generator):
        self._rows, self._rng = rows, rng
        self._line: list[int] = []
        self._waiting: list[int] = []

    def next(self, taken: dict[int, int]) -> int | None:
        """A row that is not in `taken`, or None when all are."""
        if len(taken) == len(self._rows):
            return None
        for k, row in enumerate(self._waiting):
            if row not in taken:
                return self._waiting.pop(k)
        while True:
            if not self._line:
                self._line = self._rows[self._rng.permutation(len(self._rows))].tolist()
            row = self._line.pop()
            if row not in taken:
                return row
            if row not in self._waiting:
                self._waiting.append(row)
