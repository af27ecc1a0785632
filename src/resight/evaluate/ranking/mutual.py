"""Ranks where the queries are gallery rows themselves: one tile serves its rows and its columns.

A cosine is the same both ways, so a tile of the product holds similarities of its rows' queries
and, turned, of its columns'. Half of the product is enough. In return the state of all queries is
held at once, ten bytes a positive; exact similarities are looked up again where one is asked for.
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
    low_levels,
    new_asked,
    ranks_of,
    threaded,
)
from resight.evaluate.ranking.counting import Asked, Rules, Seen, count, hide, hide_turned, turn
from resight.evaluate.ranking.csr import Csr, Ints, offsets
from resight.evaluate.ranking.result import Ranks, Tick, Truth
from resight.evaluate.ranking.units import Multiply, Rows, product_error, unit_rows

_NO_EXACT = np.zeros(0)
_A_POSITIVE = 10  # bytes held: index, level, count
_A_BLOCK = 96  # bytes a positive of those that are put in order, or handed out, at once
_SAMPLES, _SAMPLE = 16, 64  # ranges of queries whose positives make the scale, and their length
TILE = 4096, 2048  # rows and columns


def bytes_needed(counts: Ints, n_gallery: int, dimensions: int) -> int:
    """Working memory of `mutual_blocks`; counts (Q,): positives a query."""
    tile = 2 * 2 * TILE[0] * TILE[1] + 2 * 4 * 1024 * 2048
    rows = n_gallery * (4 * dimensions + 24) + 26 * len(counts)
    block = _A_BLOCK * _largest_block(counts)
    return int(_A_POSITIVE * counts.sum() + rows + tile + block)


def _largest_block(counts: Ints) -> int:
    """Positives that are put in order, or handed out, at once."""
    return int(max(counts.max(initial=0), min(2**19, counts.sum())))


class _Places:
    """The queries first, then the other gallery rows: their unit rows, and lists in that order."""

    def __init__(self, gallery: Rows, truth: Truth, mine: Ints, step: int) -> None:
        rest = np.setdiff1d(np.arange(len(gallery)), mine, assume_unique=True)
        self.ids = np.concatenate([mine, rest])
        self.place = np.empty(len(gallery), np.int64)
        self.place[self.ids] = np.arange(len(gallery))
        self.rows = np.empty((len(gallery), gallery.shape[1]), np.float32)
        for start in range(0, len(gallery), step):
            some = unit_rows(np.asarray(gallery[start : start + step]))
            self.rows[self.place[start : start + step]] = some
        self._truth = truth

    def lists(self, start: int, stop: int) -> tuple[Csr, Csr]:
        """As `Truth.lists`, of places."""
        positives, junk = self._truth.lists(start, stop)
        return (
            Csr(positives.indptr, self.place[positives.indices]),
            Csr(junk.indptr, self.place[junk.indices]),
        )

    def exact(self, start: int, stop: int, positives: Csr) -> Exact:
        """The exact similarities of queries [start, stop) to these, by place."""
        out = np.empty(len(positives.indices))
        exact_of(self.rows[start:stop], self.rows, 0, positives, out)
        return out


def mutual_blocks(
    gallery: Rows, truth: Truth, mine: Ints, tile: tuple[int, int], multiply: Multiply, ties: int,
    tick: Tick,
) -> Iterator[Ranks]:  # fmt: skip
    """The ranks of queries that are the gallery rows `mine`, some queries after the other.

    gallery (G, D); mine: as `Truth.places` says; tile: rows and columns.
    """
    n, error = len(mine), product_error(gallery.shape[1])
    places = _Places(gallery, truth, mine, tile[0])
    counts = truth.counts()
    asked, scale, reach = _begin(places, counts, error)
    rules = Rules(reach, error, ties)
    _count(places, n, asked, scale, rules, tile, multiply, tick)
    for start, stop in _blocks(counts):
        _, junk = truth.lists(start, stop)
        part = slice(asked.indptr[start], asked.indptr[stop])
        ends = asked.indptr[start : stop + 1] - asked.indptr[start]
        exact = places.exact(start, stop, Csr(ends, places.place[asked.index[part]]))
        yield ranks_of(asked, start, stop, exact, len(gallery) - junk.counts())


def _blocks(counts: Ints) -> Iterator[tuple[int, int]]:
    ends, start = np.cumsum(counts), 0
    most = _largest_block(counts)
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield start, stop
        start = stop


def _begin(places: _Places, counts: Ints, error: float) -> tuple[Asked, NDArray[np.float32], int]:
    """The state of all queries, the scale, and how many levels are undecided."""
    n, some = len(counts), [_NO_EXACT]
    for start in np.linspace(0, max(0, n - _SAMPLE), _SAMPLES, dtype=np.int64).tolist():
        stop = min(n, start + _SAMPLE)
        some.append(places.exact(start, stop, places.lists(start, stop)[0]))
    scale = cosine_scale(np.concatenate(some), error)
    indptr = offsets(counts)
    index, low = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.uint16)
    reach = 0
    for start, stop in _blocks(counts):
        positives, _ = places.lists(start, stop)
        exact = places.exact(start, stop, positives)
        # By gallery row: among equals the order is theirs.
        rows = Csr(positives.indptr, places.ids[positives.indices])
        order = in_order(rows, exact)
        part = slice(indptr[start], indptr[stop])
        index[part] = rows.indices[order]
        low[part], most = low_levels(exact[order], np.zeros(0, np.int64), scale, error)
        reach = max(reach, most)
    return new_asked(indptr, index, low, _NO_EXACT), scale, reach


def _count(
    places: _Places, n: int, asked: Asked, scale: NDArray[np.float32], rules: Rules,
    tile: tuple[int, int], multiply: Multiply, tick: Tick,
) -> None:  # fmt: skip
    """Show every query every gallery row."""
    n_gallery, dimensions = places.rows.shape
    rows, columns = (-(-min(size, n_gallery) // 4) * 4 for size in tile)
    levels, turned = np.empty((rows, columns), np.uint16), np.empty((columns, rows), np.uint16)
    fours = levels.view(np.uint64), turned.view(np.uint64)
    tiles = Tiles(multiply, dimensions, rows, columns)

    def look(levels: NDArray[np.uint16], r: int, height: int, c: int, width: int) -> None:
        ids, unit = places.ids[c : c + width], places.rows
        seen = Seen(
            NOT_GIVEN, unit[r : r + height], unit[c : c + width], ids, unit, places.place
        )  # fmt: skip
        threaded(count, height, levels, width, r, asked, seen, rules, scale)
        tick(height * width / n_gallery)

    for c in range(0, n, columns):
        width = min(columns, n - c)
        right, lists = places.rows[c : c + width], places.lists(c, c + width)
        for r in range(0, c + width, rows):
            # Above the diagonal the tile is turned; on it, it holds both ways already.
            for first, last in ((r, min(r + rows, c)), (max(r, c), min(r + rows, c + width))):
                height = last - first
                if height <= 0:
                    continue
                tiles.fill(places.rows[first:last], right, scale, levels)
                for some in lists:
                    threaded(
                        hide_turned, width, levels, first, height, some.indptr, some.indices
                    )
                look(levels, first, height, c, width)
                if first < c:
                    threaded(turn, -(-height // 4), -(-width // 4), *fours)
                    look(turned, c, width, first, height)
        for c_rest in range(n, n_gallery, columns):
            others = places.rows[c_rest : c_rest + columns]
            for r in range(0, width, rows):
                height = min(rows, width - r)
                tiles.fill(right[r : r + height], others, scale, levels)
                for some in lists:
                    ends = some.indptr[r : r + height + 1]
                    threaded(
                        hide, height, levels, 0, c_rest, len(others), ends, some.indices
                    )
                look(levels, c + r, height, c_rest, len(others))
