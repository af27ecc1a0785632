"""The photos whose nearest other photo is not the same under two embedders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.evaluate.uncertainty import Floats, Ints
from resight.features.rows import Rows
from resight.graph.pool import Pool, build_pool
from resight.mining.twins import representatives, twins

LOOKED_AT = 64  # neighbours of each photo that a rank is looked up in
_AMONG = 8  # of these, the ones that may be copies of it; a group's copies chain up
_COPIES_FROM = 0.5  # least similarity of a copy; low, as a whitened space sets copies apart too

Progress = Callable[[int, int], None]
Bar = Callable[[str], Progress]


@dataclass(frozen=True)
class Differing:
    """`rows` (M,): photos of which `a` (M,), the nearest under A, is not `b` (M,), that under B.

    ranks (M, 2): the place of A's nearest under B, and of B's under A, from 2 on; one beyond the
    last place looked at where it is further off. photos: how many there are, without copies and
    those that can't be read; copies: how many were left out.
    """

    rows: Ints
    a: Ints
    b: Ints
    ranks: Ints
    photos: int
    copies: int

    def useful(self) -> Floats:
        """How much an answer is worth, (M,): the two ranks' product, as a number of doublings.

        Where each has the other's choice second, the two show the same thing more often than
        not, or both are wrong, and the answer is that there is no difference.
        """
        found: Floats = np.log2(self.ranks.astype(np.float64)).sum(axis=1)
        return found


def differing(
    a: Rows,
    b: Rows,
    images: ImageSet,
    valid: NDArray[np.bool_],
    bar: Bar = lambda what: lambda done, total: None,
) -> Differing:
    """Compare two sets of features of the same N images, (N, D) each, D may differ.

    valid (N,): rows that count. Of near-duplicates, files of one picture, only the first counts:
    that an embedder finds a copy says nothing. Exact search; two lists of N x 64 are held.
    """
    pools = [
        build_pool(one, k=LOOKED_AT, valid=valid, progress=bar(f"neighbours under {name}"))
        for name, one in (("A", a), ("B", b))
    ]
    first = representatives(_copies(pools, images, bar("looking for copies")), len(images))
    counts = valid & (first == np.arange(len(images)))
    lists = [_Lists(pool.neighbours, counts) for pool in pools]
    nearest_a, nearest_b = (one.nearest for one in lists)
    asking = counts & (nearest_a >= 0) & (nearest_b >= 0)
    rows = np.flatnonzero(asking & (nearest_a != nearest_b)).astype(np.int64)
    to_a, to_b = nearest_a[rows], nearest_b[rows]
    ranks = np.stack([lists[1].rank(rows, to_a), lists[0].rank(rows, to_b)], axis=1)
    copies = int(valid.sum() - counts.sum())
    return Differing(rows, to_a, to_b, ranks, int(asking.sum()), copies)


def _copies(pools: list[Pool], images: ImageSet, progress: Progress) -> Ints:
    """Pairs (P, 2) of files of one picture, among the nearest under either embedder."""
    both = Pool(
        np.concatenate([pool.neighbours[:, :_AMONG] for pool in pools], axis=1),
        np.concatenate([pool.similarities[:, :_AMONG] for pool in pools], axis=1),
    )
    return twins(both, images, _COPIES_FROM, progress=progress)


class _Lists:
    """Neighbours (N, k), most similar first, of which only the rows that count are there."""

    def __init__(self, neighbours: NDArray[np.int32], counts: NDArray[np.bool_]):
        self._ids = neighbours
        self._there = (neighbours >= 0) & counts[neighbours]
        at = self._there.argmax(axis=1)
        every = np.arange(len(neighbours))
        self.nearest = np.where(self._there[every, at], neighbours[every, at], -1).astype(np.int64)

    def rank(self, rows: Ints, others: Ints) -> Ints:
        """The place, from 1, of one other photo in the list of each row."""
        there = self._there[rows]
        found = there & (self._ids[rows] == others[:, None])
        place = np.cumsum(there, axis=1)
        beyond = self._ids.shape[1] + 1
        ranks: Ints = np.where(found.any(axis=1), (place * found).max(axis=1), beyond)
        return ranks.astype(np.int64)
