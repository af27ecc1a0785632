"""The rank of every positive of every query: the one hot core of the evaluation.

Every retrieval metric is a few lines on these ranks (see metrics.py). They are computed from
block-wise products, without ever holding or sorting the query x gallery matrix:

1. The similarities of the positives are computed pair by pair, exactly (see units.py).
2. For each tile of the float32 product, the elements that may stand above a query's worst
   positive survive a comparison; sorted, they say how many stand above each positive.
3. An element closer to a positive than the float32 error bound is undecided: these few
   are computed again, exactly.

So the ranks are those of the full matrix in exact arithmetic under a stable sort, whatever
the block size, the number of threads or the order of the gallery (up to the tie rule).

Ties, at exactly equal similarity: "by-id" puts the lower gallery index first, as a stable sort of
the falling similarities does; "optimistic" puts positives before negatives, "pessimistic" after
them (both give the same metrics for any order of the gallery). Positives among themselves
stand by index under all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.csr import Csr, Ints
from resight.evaluate.units import (
    Rows,
    UnitRows,
    exact_similarities,
    in_threads,
    pair_similarities,
    product,
    product_error,
)

Ties = Literal["by-id", "optimistic", "pessimistic"]
BLOCK_BYTES = 512 * 2**20
# A survivor is sorted as one integer: query in the tile, similarity (32 bits), column.
_ROW_BITS, _COLUMN_BITS = 10, 22
_BYTES_AN_ELEMENT = 16  # of a tile: the product, and room for its next slice
_PATCH = (64, 2048)  # of a tile, counted at once: small, so that its lists stay in the cache
_PAIR_COST = 64  # a pair looked up alone costs about so many elements of a float64 product


@dataclass(frozen=True)
class Ranks:
    """For each query its positives in the order they are retrieved.

    `indptr` (Q + 1,) as in `Csr`; per positive `rank` (1 is the first; junk is not counted),
    `index` (gallery row) and `similarity` (float64, the exact cosine of the gridded unit rows);
    per query `n_gallery`, the gallery it searched: all rows but its junk.
    """

    indptr: Ints
    rank: Ints
    index: Ints
    similarity: NDArray[np.float64]
    n_gallery: Ints

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def counts(self) -> Ints:
        """Positives a query, (Q,) int64."""
        return np.diff(self.indptr)


def positive_ranks(
    queries: Rows,
    gallery: Rows,
    positives: Csr,
    junk: Csr,
    *,
    block_bytes: int = BLOCK_BYTES,
    ties: Ties = "by-id",
    positive_rows: Rows | None = None,
) -> Ranks:
    """Rank every positive of every query by cosine similarity, junk removed.

    queries (Q, D), gallery (G, D): any real type, finite, sliced block by block; rows are
    L2-normalised here. positives, junk: gallery rows of each query; within a query each row at
    most once, and in one of the two. `block_bytes` bounds the working memory (beyond the inputs
    and the result), not the answer. positive_rows (len(positives.indices), D): vectors that take
    the place of the positives' own gallery rows, as object-level retrieval needs; the ranks are
    then against the other rows.

    Raises ValueError when the shapes, indices or the tie rule don't fit together.
    """
    _check(queries, gallery, positives, junk, ties, positive_rows)
    dimensions = queries.shape[1]
    row_bytes = max(1, 4 * dimensions)
    query_blocks = UnitRows(queries, block_bytes // 8 // row_bytes)
    gallery_blocks = UnitRows(gallery, block_bytes // 4 // row_bytes)
    if positive_rows is None:
        similarity = _own_similarities(query_blocks, gallery_blocks, positives)
    else:
        blocks = UnitRows(positive_rows, block_bytes // 4 // row_bytes)
        similarity = _given_similarities(query_blocks, blocks, positives)

    # Within a query from worst to best: rising thresholds make the searches below cheap.
    query_of = positives.rows()
    order = np.lexsort((-positives.indices, similarity, query_of))
    thresholds = _Thresholds(
        indptr=positives.indptr, query=query_of, index=positives.indices[order],
        similarity=similarity[order], error=product_error(dimensions), ties=ties,
    )  # fmt: skip
    counter = _Counter(thresholds, positives, junk, block_bytes // 4, dimensions)
    for first_column, columns in gallery_blocks.blocks():
        for first_query, rows in query_blocks.blocks():
            counter.count(rows, first_query, columns, first_column)

    counts = positives.counts()
    place = np.repeat(positives.indptr[1:], counts) - np.arange(len(query_of))  # 1 is the best
    back = np.arange(len(query_of)) + 2 * place - 1 - np.repeat(counts, counts)  # reverse each row
    return Ranks(
        indptr=positives.indptr,
        rank=(counter.above + place)[back],
        index=thresholds.index[back],
        similarity=thresholds.similarity[back],
        n_gallery=len(gallery) - junk.counts(),
    )


def _check(
    queries: Rows, gallery: Rows, positives: Csr, junk: Csr, ties: str, own: Rows | None
) -> None:
    if ties not in get_args(Ties):
        raise ValueError(f"ties {ties!r} is none of {', '.join(get_args(Ties))}")
    shapes = [rows.shape for rows in (queries, gallery, own) if rows is not None]
    if any(len(shape) != 2 for shape in shapes) or len({shape[1] for shape in shapes}) != 1:
        raise ValueError(f"queries, gallery must be (n, D) with the same D, not {shapes}")
    if not len(positives) == len(junk) == len(queries):
        raise ValueError("positives and junk need a row for every query")
    for lists in (positives, junk):
        indices = lists.indices
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(gallery):
            raise ValueError(f"an index is outside the gallery of {len(gallery)} rows")
    if own is not None and len(own) != len(positives.indices):
        raise ValueError("positive_rows needs a row for every positive")


def _own_similarities(queries: UnitRows, gallery: UnitRows, positives: Csr) -> NDArray[np.float64]:
    """The exact similarity of each query to each of its positives, (positives,) float64."""
    out = np.empty(len(positives.indices), dtype=np.float64)
    rows = positives.rows()
    for first_column, columns in gallery.blocks():
        for first, block in queries.blocks():
            span = slice(positives.indptr[first], positives.indptr[first + len(block)])
            here = _within(positives.indices[span], first_column, len(columns))
            entries = np.flatnonzero(here) + span.start
            out[entries] = pair_similarities(
                block, columns, rows[entries] - first, positives.indices[entries] - first_column,
                threads=True,
            )  # fmt: skip
    return out


def _given_similarities(queries: UnitRows, own: UnitRows, positives: Csr) -> NDArray[np.float64]:
    """The exact similarity of each query to the vectors given for its positives."""
    out = np.empty(len(positives.indices), dtype=np.float64)
    rows = positives.rows()
    for first_entry, vectors in own.blocks():
        for first, block in queries.blocks():
            start = max(positives.indptr[first], first_entry)
            stop = min(positives.indptr[first + len(block)], first_entry + len(vectors))
            entries = np.arange(start, stop)
            out[entries] = pair_similarities(
                block, vectors, rows[entries] - first, entries - first_entry, threads=True
            )
    return out


def _within(indices: Ints, first: int, length: int) -> NDArray[np.bool_]:
    return (indices >= first) & (indices < first + length)


@dataclass(frozen=True)
class _Thresholds:
    """The positives by query, from worst to best; `indptr` as in `Csr`."""

    indptr: Ints
    query: Ints
    index: Ints
    similarity: NDArray[np.float64]
    error: float
    ties: Ties


class _Counter:
    """Counts, tile by tile, the negatives above each positive (`above`, aligned to thresholds)."""

    def __init__(
        self, thresholds: _Thresholds, positives: Csr, junk: Csr, budget: int, dimensions: int
    ) -> None:
        self.thresholds = thresholds
        self.hidden = (positives, junk)
        self.above = np.zeros(len(thresholds.query), dtype=np.int64)
        elements = max(1, min(budget // _BYTES_AN_ELEMENT, 2**23))
        self.tile_rows = max(1, min(2**_ROW_BITS, int(elements**0.5)))
        self.tile_columns = max(1, min(2**_COLUMN_BITS, elements // self.tile_rows))
        self._buffers = np.empty((2, self.tile_rows * self.tile_columns), dtype=np.float32)
        # float32 bounds, rounded outwards: below `low` or above `high` is decided.
        error, exact = thresholds.error, thresholds.similarity
        self.low = np.nextafter((exact - error).astype(np.float32), np.float32(-np.inf))
        self.high = np.nextafter((exact + error).astype(np.float32), np.float32(np.inf))
        self.floor = np.full(len(positives), np.inf, dtype=np.float32)
        some = positives.counts() > 0
        self.floor[some] = self.low[positives.indptr[:-1][some]]

    def count(
        self, rows: NDArray[np.float32], first_row: int,
        columns: NDArray[np.float32], first_column: int,
    ) -> None:  # fmt: skip
        """Add what one pair of blocks holds, tile by tile."""
        for r in range(0, len(rows), self.tile_rows):
            left = rows[r : r + self.tile_rows]
            if not np.isfinite(self.floor[first_row + r : first_row + r + len(left)]).any():
                continue
            for c in range(0, len(columns), self.tile_columns):
                right = columns[c : c + self.tile_columns]
                self._multiply(left, first_row + r, right, first_column + c)

    def _multiply(
        self, left: NDArray[np.float32], first_row: int,
        right: NDArray[np.float32], first_column: int,
    ) -> None:  # fmt: skip
        """Make one tile of the product and count it, patch by patch."""
        shape = (len(left), len(right))
        tile, spare = (b[: shape[0] * shape[1]].reshape(shape) for b in self._buffers)
        product(left, right, tile, spare)
        for lists in self.hidden:
            _hide(tile, lists, first_row, first_column)

        def count(r: int) -> None:
            rows = slice(r, r + _PATCH[0])
            for c in range(0, shape[1], _PATCH[1]):
                columns = slice(c, c + _PATCH[1])
                self._count_patch(
                    tile[rows, columns], left[rows], first_row + r,
                    right[columns], first_column + c,
                )  # fmt: skip

        in_threads(count, range(0, shape[0], _PATCH[0]))

    def _count_patch(
        self, tile: NDArray[np.float32], left: NDArray[np.float32], first_row: int,
        right: NDArray[np.float32], first_column: int,
    ) -> None:  # fmt: skip
        """Add what one patch of the product holds; left, right: the unit rows it is made of."""
        keys, ends = _survivors(tile, self.floor[first_row : first_row + len(left)])
        if not len(keys):
            return

        span = slice(
            self.thresholds.indptr[first_row], self.thresholds.indptr[first_row + len(left)]
        )
        row = self.thresholds.query[span] - first_row
        last = (1 << _COLUMN_BITS) - 1
        start = np.searchsorted(keys, _keys(row, self.low[span], 0), side="left")
        stop = np.searchsorted(keys, _keys(row, self.high[span], last), side="right")
        above = ends[row] - stop  # the decided: from `stop` to the end of the query's survivors
        unsure = np.flatnonzero(start < stop)
        if len(unsure):
            near = _covered(start[unsure], stop[unsure], len(keys))
            # Decide the near ones exactly, also where another positive had them decided.
            sure = np.concatenate(([0], np.cumsum(~near)))
            above[unsure] = sure[ends[row[unsure]]] - sure[stop[unsure]]
            above[unsure] += self._count_near(
                left, right, keys[near], first_column, span.start + unsure, row[unsure]
            )
        self.above[span] += above

    def _count_near(
        self, left: NDArray[np.float32], right: NDArray[np.float32], keys: NDArray[np.uint64],
        first_column: int, entries: Ints, row: Ints,
    ) -> Ints:  # fmt: skip
        """How many of the near elements stand before each of the positives `entries`.

        keys: the near elements, sorted; row: the tile's row of each entry. One sort of both by
        (query, falling similarity, tie rule) answers it.
        """
        near_row = (keys >> np.uint64(32 + _COLUMN_BITS)).astype(np.int64)
        near_column = (keys & np.uint64((1 << _COLUMN_BITS) - 1)).astype(np.int64)
        exact = self._exact(left, right, near_row, near_column)
        ties = self.thresholds.ties
        if ties == "by-id":
            tie = np.concatenate((near_column + first_column, self.thresholds.index[entries]))
        else:
            positives_last = ties == "pessimistic"
            tie = np.repeat([not positives_last, positives_last], [len(exact), len(entries)])
        falling = -np.concatenate((exact, self.thresholds.similarity[entries]))
        order = np.lexsort((tie, falling, np.concatenate((near_row, row))))
        before = np.empty(len(order), dtype=np.int64)
        before[order] = np.cumsum(order < len(exact))
        # `before` also counts the near elements of the tile's earlier queries.
        result: Ints = before[len(exact) :] - np.searchsorted(near_row, row)
        return result

    def _exact(
        self, left: NDArray[np.float32], right: NDArray[np.float32], row: Ints, column: Ints
    ) -> NDArray[np.float64]:
        if len(row) * _PAIR_COST < len(left) * len(right):
            return pair_similarities(left, right, row, column)
        return exact_similarities(left, right)[row, column]


def _hide(tile: NDArray[np.float32], lists: Csr, first_row: int, first_column: int) -> None:
    """Set the listed elements of a tile to -inf."""
    start, stop = lists.indptr[first_row], lists.indptr[first_row + tile.shape[0]]
    indices = lists.indices[start:stop]
    entries = np.flatnonzero(_within(indices, first_column, tile.shape[1]))
    row = np.searchsorted(lists.indptr, start + entries, side="right") - 1
    tile[row - first_row, indices[entries] - first_column] = -np.inf


def _survivors(
    tile: NDArray[np.float32], floor: NDArray[np.float32]
) -> tuple[NDArray[np.uint64], Ints]:
    """The sorted keys of the elements at or above their row's floor; where each row's keys end."""
    flat = np.flatnonzero(tile >= floor[:, None])
    rows, width = tile.shape
    edges = np.searchsorted(flat, np.arange(rows + 1) * width)
    row = np.repeat(np.arange(rows), np.diff(edges))
    keys = _keys(row, tile.ravel()[flat], flat - row * width)
    keys.sort()
    return keys, edges[1:]


def _keys(row: Ints, value: NDArray[np.float32], column: Ints | int) -> NDArray[np.uint64]:
    """One integer that sorts like (row, value, column)."""
    bits = value.view(np.int32).astype(np.int64)
    # The bits of a float rise with it, but fall where it is negative.
    rising = np.where(bits >= 0, bits + 2**31, -bits - 1)
    return (row << (32 + _COLUMN_BITS) | rising << _COLUMN_BITS | column).view(np.uint64)


def _covered(start: Ints, stop: Ints, length: int) -> NDArray[np.bool_]:
    """Which of `length` places lie in any of the ranges [start, stop)."""
    change = np.bincount(start, minlength=length + 1) - np.bincount(stop, minlength=length + 1)
    return np.asarray(np.cumsum(change[:length]) > 0)
