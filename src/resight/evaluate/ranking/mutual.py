"""Ranks where the queries are gallery rows themselves: one tile serves its rows and its columns.

A cosine is the same both ways, so a tile of the product holds similarities of its rows' queries
and, turned, of its columns'. Half of the product is enough. In return the state of all queries is
held at once, ten bytes a positive; exact similarities are made again where one is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.counter import (
    NOT_GIVEN,
    Exact,
    Tiles,
    cosine_scale,
    exact_of,
    in_order,
    new_asked,
    new_levels,
    ranks_of,
    threaded,
)
from resight.evaluate.ranking.counting import (
    STRIP,
    Asked,
    Rules,
    Seen,
    count,
    count_columns,
    hide,
    hide_turned,
)
from resight.evaluate.ranking.csr import Csr, Ints, offsets
from resight.evaluate.ranking.result import Mutual, Ranks, Tick, Truth
from resight.evaluate.ranking.units import Multiply, Rows, product_error, unit_rows

_ROUNDED = 2.0**-23  # what float32 of a cosine may be off it, and more
_A_BLOCK = 96  # bytes a positive of those that are put in order, or handed out, at once
_SAMPLES, _SAMPLE = 16, 64  # ranges of queries whose positives make the scale, and their length
TILE = 2048, 2048  # rows and columns


def bytes_needed(truth: Truth, mutual: Mutual, n_gallery: int, dimensions: int) -> int:
    """Working memory of `mutual_blocks`."""
    counts = truth.counts()
    tile = 2 * TILE[0] * TILE[1] + 2**22
    rows = n_gallery * (4 * dimensions + 24) + 34 * len(counts)
    block = _A_BLOCK * _largest_block(counts)
    return int((8 + mutual.kind().itemsize) * counts.sum()) + rows + tile + block


def _largest_block(counts: Ints) -> int:
    """Positives that are put in order, or handed out, at once."""
    return int(max(counts.max(initial=0), min(2**18, counts.sum())))


class _Places:
    """The queries first, those of one object side by side, then the other gallery rows.

    So the rows of a query's positives are near each other. `asking` (Q,): the queries in this
    order; ids (G,): the gallery rows; place (G,): where each of them is; rows (G, D): unit rows.
    """

    def __init__(self, gallery: Rows, truth: Truth, mutual: Mutual, step: int) -> None:
        self.asking = np.argsort(mutual.start, kind="stable")
        rest = np.setdiff1d(np.arange(len(gallery)), mutual.rows, assume_unique=True)
        self.ids = np.concatenate([mutual.rows[self.asking], rest])
        self.place = np.empty(len(gallery), np.int64)
        self.place[self.ids] = np.arange(len(gallery))
        self.rows = np.empty((len(gallery), gallery.shape[1]), np.float32)
        for start in range(0, len(gallery), step):
            some = unit_rows(np.asarray(gallery[start : start + step]))
            self.rows[self.place[start : start + step]] = some
        self._truth = truth.take(self.asking)
        self.counts = self._truth.counts()

    def lists(self, start: int, stop: int) -> tuple[Csr, Csr]:
        """As `Truth.lists`, for queries in this order, of gallery rows."""
        return self._truth.lists(start, stop)

    def of(self, lists: Csr) -> Csr:
        """Lists of gallery rows as lists of places."""
        return Csr(lists.indptr, self.place[lists.indices])

    def exact(self, start: int, stop: int, positives: Csr) -> Exact:
        """The exact similarities of queries to their positives, by place."""
        out = np.empty(len(positives.indices))
        exact_of(self.rows[start:stop], self.rows, 0, positives, out)
        return out


def mutual_blocks(
    gallery: Rows, truth: Truth, mutual: Mutual, tile: tuple[int, int], multiply: Multiply,
    ties: int, tick: Tick,
) -> Iterator[Ranks]:  # fmt: skip
    """The ranks of queries that are gallery rows themselves, those of one object after another's.

    gallery (G, D); mutual: of the truth; tile: rows and columns, multiples of 32.
    """
    places, error = _Places(gallery, truth, mutual, tile[0]), product_error(gallery.shape[1])
    asked, junk, scale = _begin(places, mutual, error)
    rules = Rules(error + 2 * _ROUNDED, _ROUNDED, ties)
    _count(places, mutual, asked, scale, rules, tile, multiply, tick)
    for start, stop in _blocks(places.counts):
        part = slice(asked.indptr[start], asked.indptr[stop])
        counts = places.counts[start:stop]
        rows = mutual.order[asked.index[part] + np.repeat(asked.start[start:stop], counts)]
        exact = places.exact(start, stop, Csr(offsets(counts), places.place[rows]))
        queries = places.asking[start:stop]
        yield ranks_of(asked, start, exact, rows, len(gallery) - junk[start:stop], queries)


def _blocks(counts: Ints) -> Iterator[tuple[int, int]]:
    ends, start = np.cumsum(counts), 0
    most = _largest_block(counts)
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield start, stop
        start = stop


def _begin(
    places: _Places, mutual: Mutual, error: float
) -> tuple[Asked, Ints, NDArray[np.float32]]:
    """The state of all queries, how much junk each has, and the scale of levels."""
    counts = places.counts
    n, some = len(counts), [np.zeros(0)]
    for start in np.linspace(0, max(0, n - _SAMPLE), _SAMPLES, dtype=np.int64).tolist():
        stop = min(n, start + _SAMPLE)
        positives, _ = places.lists(start, stop)
        some.append(places.exact(start, stop, places.of(positives)))
    scale, indptr = cosine_scale(np.concatenate(some), error), offsets(counts)
    asked = new_asked(
        indptr, np.empty(indptr[-1], np.float32), np.empty(indptr[-1], mutual.kind()),
        mutual.start[places.asking],
    )  # fmt: skip
    junk = np.empty(n, np.int64)
    turned = np.empty(len(mutual.order), np.int64)  # where in `order` a gallery row is
    turned[mutual.order] = np.arange(len(turned))
    for start, stop in _blocks(counts):
        positives, hidden = places.lists(start, stop)
        junk[start:stop] = hidden.counts()
        exact = places.exact(start, stop, places.of(positives))
        order = in_order(positives, exact)
        part = slice(indptr[start], indptr[stop])
        asked.exact[part] = exact[order]
        starts = np.repeat(asked.start[start:stop], counts[start:stop])
        asked.index[part] = turned[positives.indices[order]] - starts
    return asked, junk, scale


def _count(
    places: _Places, mutual: Mutual, asked: Asked, scale: NDArray[np.float32], rules: Rules,
    tile: tuple[int, int], multiply: Multiply, tick: Tick,
) -> None:  # fmt: skip
    """Show every query every gallery row."""
    n_gallery, dimensions = places.rows.shape
    n, (rows, columns) = len(mutual.rows), tile
    size = min(rows, n_gallery), min(columns, n_gallery)
    levels, tiles = new_levels(*size), Tiles(multiply, dimensions, *size)
    unit, ids = places.rows, places.ids

    def seen(r: int, height: int, c: int, width: int) -> Seen:
        near, names = unit[c : c + width], ids[c : c + width]
        return Seen(NOT_GIVEN, unit[r : r + height], near, names, mutual.order, unit, places.place)

    for c in range(0, n, columns):
        width = min(columns, n - c)
        right = unit[c : c + width]
        lists = [places.of(some) for some in places.lists(c, c + width)]
        for r in range(0, c + width, rows):
            # Before the diagonal a tile is looked at both ways; on it, it holds both already.
            for first, last in ((r, min(r + rows, c)), (max(r, c), min(r + rows, c + width))):
                height = last - first
                if height <= 0:
                    continue
                tiles.fill(unit[first:last], right, scale, levels)
                for some in lists:
                    threaded(
                        hide_turned, width, levels, first, height, some.indptr, some.indices
                    )  # fmt: skip
                args = asked, seen(first, height, c, width), rules, scale
                threaded(count, height, levels, width, first, *args)
                tick(height * width / n_gallery)
                if first < c:
                    args = asked, seen(c, width, first, height), rules, scale
                    strips = -(-width // STRIP)
                    threaded(count_columns, strips, levels, height, width, c, *args)
                    tick(height * width / n_gallery)
        for other in range(n, n_gallery, columns):
            near = unit[other : other + columns]
            for r in range(0, width, rows):
                height = min(rows, width - r)
                tiles.fill(right[r : r + height], near, scale, levels)
                for some in lists:
                    ends = some.indptr[r : r + height + 1]
                    threaded(hide, height, levels, other, len(near), ends, some.indices)
                args = asked, seen(c + r, height, other, len(near)), rules, scale
                threaded(count, height, levels, len(near), c + r, *args)
                tick(height * len(near) / n_gallery)
