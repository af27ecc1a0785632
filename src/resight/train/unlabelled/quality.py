"""How good neighbours and mined positives are: with labels to check against, and without.

Pure functions on arrays. Labels are numbers, (N,) int64, -1 where unknown: a pair with an unknown
label doesn't count. Training never sees them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Integers = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]

BINS = np.linspace(-1, 1, 81)  # edges of the bins of a similarity histogram
HUB_SHARE, HUB_LEAST = 0.1, 50
_WIDTH, _BLOCK = 32, 16384


def codes(objects: pl.Series) -> Rows:
    """(N,) names, null where unknown -> (N,) int64: equal where the names are, -1 for null."""
    ranks = objects.rank("dense").cast(pl.Int64) - 1
    return ranks.fill_null(-1).to_numpy().astype(np.int64)


def first_neighbours(
    neighbours: Integers, rows: Rows, usable: Bools, count: int
) -> tuple[Rows, Rows]:
    """The first `count` usable neighbours of each of some rows.

    neighbours (N, k), -1 where there is none; rows (n,); usable (N,) -> rows (n, count) int64,
    and their columns in `neighbours`, both -1 where neighbours run out.
    """
    found = np.full((len(rows), count), -1, np.int64)
    columns = found.copy()
    # The first width is nearly always enough; other rows are looked through to the end.
    widths = sorted({min(max(_WIDTH, 2 * count), neighbours.shape[1]), neighbours.shape[1]})
    for at in range(0, len(rows), _BLOCK):
        some = np.arange(at, min(at + _BLOCK, len(rows)))
        for width in widths:
            near = np.asarray(neighbours[rows[some]][:, :width], np.int64)
            fit = (near >= 0) & usable[near]
            place = np.where(fit, np.cumsum(fit, axis=1) - 1, count)
            row, column = np.nonzero(place < count)
            found[some[row], place[row, column]] = near[row, column]
            columns[some[row], place[row, column]] = column
            some = some[fit.sum(axis=1) < count]
            if not len(some):
                break
    return found, columns


def precision(labels: Rows, anchors: Rows, found: Rows) -> float | None:
    """Share of pairs (anchor, found) of one object, of those where both objects are known.

    anchors (n,), found (n,) or (n, m) rows, -1 for none. All pairs weigh the same. None without
    such a pair.
    """
    theirs = np.where(found >= 0, labels[found], -1)
    mine = np.broadcast_to(labels[anchors].reshape(-1, *[1] * (found.ndim - 1)), found.shape)
    known = (mine >= 0) & (theirs >= 0)
    return float((mine == theirs)[known].mean()) if known.any() else None


def recall(labels: Rows, pool: Bools, anchors: Rows, found: list[Rows]) -> float | None:
    """Mean share of the images of an anchor's object that are among those found for it.

    pool (N,): the rows that could be found; anchors (n,); found: n lists of rows. Each anchor
    weighs the same; the anchor itself doesn't count, nor do anchors of an unknown object or
    without another image in the pool. None without an anchor that counts.
    """
    sizes = np.bincount(labels[pool & (labels >= 0)], minlength=1)
    shares = []
    for anchor, rows in zip(anchors.tolist(), found, strict=True):
        own = labels[anchor]
        others = int(sizes[own]) - int(pool[anchor]) if 0 <= own < len(sizes) else 0
        if others > 0:
            rows = np.unique(rows[rows >= 0])
            hit = (labels[rows] == own) & pool[rows] & (rows != anchor)
            shares.append(int(hit.sum()) / others)
    return float(np.mean(shares)) if shares else None


def mutual(top: Rows, rows: Rows, count: int) -> float | None:
    """kNN consistency: mean share of an image's first neighbours that have it among theirs.

    top (n, m): the first neighbours of rows (n,), -1 for none; count: N. High where images lie in
    tight groups; near m / n where neighbours mean nothing. None where nobody has a neighbour.
    """
    place = np.full(count, -1, np.int64)
    place[rows] = np.arange(len(rows))
    total, shares = 0, 0.0
    for at in range(0, len(rows), _BLOCK):
        block = top[at : at + _BLOCK]
        there = (block >= 0) & (place[block] >= 0)
        back = top[np.where(there, place[block], 0)]  # (b, m, m)
        both = there & (back == rows[at : at + _BLOCK, None, None]).any(axis=2)
        asked = (block >= 0).sum(axis=1)
        shares += float((both.sum(axis=1)[asked > 0] / asked[asked > 0]).sum())
        total += int((asked > 0).sum())
    return shares / total if total else None


def agreement(top: Rows, before: Rows) -> float | None:
    """Mean share of an image's first neighbours that were among its first ones before.

    top, before (n, m): of the same n images, -1 for none. None where nobody has a neighbour.
    """
    same = (top >= 0) & (top[:, :, None] == before[:, None, :]).any(axis=2)
    asked = (top >= 0).sum(axis=1)
    counts = asked > 0
    return float((same.sum(axis=1)[counts] / asked[counts]).mean()) if counts.any() else None


def hubs(top: Rows, count: int) -> list[tuple[int, int]]:
    """Images that are among the first neighbours of more than a tenth of all: (row, of how many).

    top (n, m) rows, -1 for none; count: N. The worst first. In a small collection it takes 50,
    as everyone is then among the first neighbours of many.
    """
    times = np.bincount(top[top >= 0], minlength=count)
    found = np.flatnonzero(times > max(HUB_SHARE * len(top), HUB_LEAST))
    found = found[np.lexsort((found, -times[found]))]
    return [(int(row), int(times[row])) for row in found]


def random_pairs(n: int, count: int, seed: int) -> tuple[Rows, Rows]:
    """About `count` different pairs of different things of n, or all where there are fewer."""
    order = np.random.default_rng(seed).permutation(n)
    first, second = [], []
    for step in range(1, n // 2 + 1):
        # At a step of n / 2 the second half gives the same pairs once more.
        some = np.arange(n // 2 if 2 * step == n else n)
        first.append(order[some])
        second.append(order[(some + step) % n])
        if sum(map(len, first)) >= count:
            break
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *first])[:count], np.concatenate([none, *second])[:count]


def histogram(similarities: NDArray[Any]) -> list[int]:
    """How many similarities lie in each of the 80 bins of `BINS`; NaN in none."""
    known = similarities[~np.isnan(similarities)]
    counts, _ = np.histogram(np.clip(known, -1, 1), BINS)
    return [int(count) for count in counts]


def above(random: NDArray[Any], nearest: NDArray[Any]) -> float | None:
    """Share of random pairs that are more similar than the median nearest neighbour, or as much.

    0 where neighbours stand apart from chance, .5 where they don't at all. None without either.
    """
    if not len(random) or not len(nearest):
        return None
    return float((random >= np.median(nearest)).mean())
