"""The rank of every positive of every query: the one hot core of the evaluation.

Every retrieval metric is a few lines on these ranks (see metrics.py). They are computed from
block-wise products, without ever holding or sorting the query x gallery matrix:

1. The similarities of the positives are computed pair by pair, exactly (see ranking/units.py).
2. Each element of a tile of the float32 product is placed among the positives of its query, which
   says above how many of them it stands (see ranking/kernels.py).
3. An element closer to a positive than the float32 error bound is computed again, exactly.

So the ranks are those of the full matrix in exact arithmetic under a stable sort, whatever
the block size, the number of threads or the order of the gallery (up to the tie rule).

Ties, at exactly equal similarity: "by-id" puts the lower gallery index first, as a stable sort of
the falling similarities does; "optimistic" puts positives before negatives, "pessimistic" after
them (both give the same metrics for any order of the gallery). Positives among themselves
stand by index under all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.csr import Csr, Ints
from resight.evaluate.ranking.units import (
    SLICE,
    Rows,
    UnitRows,
    in_threads,
    multiply_on,
    product,
    product_error,
    unit_rows,
)

Ties = Literal["by-id", "optimistic", "pessimistic"]
Tick = Callable[[float], None]
BLOCK_BYTES = 512 * 2**20
_BYTES_A_POSITIVE = 64  # of a block: indices, similarities, bounds, counts
_TILE_ROWS = 1024  # of the product
_COLUMNS = (2048, 16384)  # at least and at most: wide ones use a row's tables longer
_CACHE = 8 * 2**20  # bytes of gallery rows that near ties look up
_FEW = 4  # positives: looked through one by one
_BUCKETS = 4096  # at most, in the table that finds a place among many positives


class Truth(Protocol):
    """The positives and the junk of each query, made for a range of queries at a time."""

    def __len__(self) -> int: ...

    def counts(self) -> Ints:
        """Positives a query, (Q,) int64."""

    def lists(self, start: int, stop: int) -> tuple[Csr, Csr]:
        """Positives and junk of queries [start, stop): gallery rows, each at most once a query."""


@dataclass(frozen=True)
class GivenTruth:
    """Lists that are there already; as `Truth`."""

    positives: Csr
    junk: Csr

    def __len__(self) -> int:
        return len(self.positives)

    def counts(self) -> Ints:
        """Positives a query."""
        return self.positives.counts()

    def lists(self, start: int, stop: int) -> tuple[Csr, Csr]:
        """Positives and junk of queries [start, stop)."""
        return self.positives.part(start, stop), self.junk.part(start, stop)


@dataclass(frozen=True)
class Ranks:
    """For each query its positives in the order they are retrieved.

    `indptr` (Q + 1,) as in `Csr`; per positive `rank` (1 is the first; junk is not counted),
    `index` (gallery row) and `similarity` (float64, the exact cosine of the gridded unit rows);
    per query `n_gallery`, the gallery it searched: all rows but its junk, and the best of its
    negatives: `negative` (gallery row, -1 where it has none) and `negative_similarity` (NaN).
    """

    indptr: Ints
    rank: Ints
    index: Ints
    similarity: NDArray[np.float64]
    n_gallery: Ints
    negative: Ints
    negative_similarity: NDArray[np.float64]

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
    device: str = "cpu",
) -> Ranks:
    """Rank every positive of every query by cosine similarity, junk removed.

    queries (Q, D), gallery (G, D): any real type, finite, sliced block by block; rows are
    L2-normalised here. positives, junk: gallery rows of each query; within a query each row at
    most once, and in one of the two. `block_bytes` bounds the working memory (beyond the inputs
    and the result), not the answer. positive_rows (len(positives.indices), D): vectors that take
    the place of the positives' own gallery rows, as object-level retrieval needs; the ranks are
    then against the other rows. device: "cpu", or a torch device that makes the products.

    Raises ValueError when the shapes, indices or the tie rule don't fit together.
    """
    truth = GivenTruth(positives, junk)
    blocks = rank_blocks(
        queries, gallery, truth,
        block_bytes=block_bytes, ties=ties, positive_rows=positive_rows, device=device,
    )  # fmt: skip
    return join(blocks)


def rank_blocks(
    queries: Rows,
    gallery: Rows,
    truth: Truth,
    *,
    block_bytes: int = BLOCK_BYTES,
    ties: Ties = "by-id",
    positive_rows: Rows | None = None,
    device: str = "cpu",
    tick: Tick = lambda queries: None,
) -> Iterator[Ranks]:
    """`positive_ranks` for one range of queries after the other, in order.

    Nothing that grows with the number of queries is held, so that the ranks of millions of
    positives can be turned into metrics as they come. tick: called now and then with the queries
    that were done since, as a fraction.
    """
    _check(queries, gallery, truth, ties, positive_rows)
    dimensions = queries.shape[1]
    row_bytes = max(1, 4 * dimensions)
    columns = UnitRows(gallery, block_bytes // 2 // row_bytes)
    multiply, error = multiply_on(device), product_error(dimensions)
    tile = _tile(block_bytes // 8, dimensions)
    counts = truth.counts()
    for start, stop in _query_blocks(counts, block_bytes, row_bytes):
        positives, junk = truth.lists(start, stop)
        _check_lists(positives, junk, len(gallery))
        left = unit_rows(np.asarray(queries[start:stop]))
        exact = np.empty(len(positives.indices))
        if positive_rows is None:
            for first, right in columns.blocks():
                _exact(left, right, first, positives.indptr, positives.indices, exact)
        else:
            first = int(counts[:start].sum())
            own = unit_rows(np.asarray(positive_rows[first : first + len(exact)]))
            _exact(left, own, 0, positives.indptr, np.arange(len(exact)), exact)
        counter = _Counter(positives, junk, exact, np.dtype(np.float32), error, ties)
        n_rows, n_columns = tile
        buffers = np.empty((2 if dimensions > SLICE else 1, n_rows * n_columns), np.float32)
        for first, right in columns.blocks():
            for c in range(0, len(right), n_columns):
                near = right[c : c + n_columns]
                for r in range(0, stop - start, n_rows):
                    rows = left[r : r + n_rows]
                    shape = (len(rows), len(near))
                    views = [part[: shape[0] * shape[1]].reshape(shape) for part in buffers]
                    product(rows, near, views[0], views[-1], multiply)
                    counter.count(views[0], r, first + c, rows, near)
                    tick(len(rows) * len(near) / len(gallery))
        yield counter.ranks(len(gallery))


def matrix_ranks(
    similarity: Rows, truth: Truth, *, ties: Ties = "by-id", block_bytes: int = 2**40,
    tick: Tick = lambda queries: None,
) -> Iterator[Ranks]:  # fmt: skip
    """`rank_blocks` for similarities that are given, (Q, G) of float32 or float64, finite.

    The higher the nearer. They are compared as they are, to the last bit.
    """
    n_gallery = similarity.shape[1]
    if len(similarity) != len(truth):
        raise ValueError("positives and junk need a row for every query")
    none = np.zeros((0, 0), np.float32)
    step = max(1, min(_TILE_ROWS, block_bytes // (24 * max(1, n_gallery))))
    for start in range(0, len(truth), step):
        stop = min(start + step, len(truth))
        positives, junk = truth.lists(start, stop)
        _check_lists(positives, junk, n_gallery)
        tile = np.array(similarity[start:stop])
        if tile.dtype not in (np.float32, np.float64):
            tile = tile.astype(np.float32 if tile.dtype == np.float16 else np.float64)
        exact = tile[positives.rows(), positives.indices].astype(np.float64)
        counter = _Counter(positives, junk, exact, tile.dtype, 0.0, ties)
        counter.count(tile, 0, 0, none, none)
        tick(stop - start)
        yield counter.ranks(n_gallery)


def join(blocks: Iterator[Ranks]) -> Ranks:
    """One `Ranks` of those of consecutive queries."""
    parts = list(blocks)
    ends = np.cumsum([part.indptr[-1] for part in parts])
    starts = [0, *ends[:-1].tolist()] if parts else []

    def all_of(name: str) -> NDArray[Any]:
        kind = np.float64 if name.endswith("similarity") else np.int64
        return np.concatenate([np.zeros(0, kind), *(getattr(part, name) for part in parts)])

    indptr = [part.indptr[:-1] + start for part, start in zip(parts, starts, strict=True)]
    return Ranks(
        np.concatenate([*indptr, [ends[-1] if parts else 0]]).astype(np.int64),
        *(all_of(name) for name in ("rank", "index", "similarity", "n_gallery")),
        *(all_of(name) for name in ("negative", "negative_similarity")),
    )  # fmt: skip


def _check(queries: Rows, gallery: Rows, truth: Truth, ties: str, own: Rows | None) -> None:
    if ties not in get_args(Ties):
        raise ValueError(f"ties {ties!r} is none of {', '.join(get_args(Ties))}")
    shapes = [rows.shape for rows in (queries, gallery, own) if rows is not None]
    if any(len(shape) != 2 for shape in shapes) or len({shape[1] for shape in shapes}) != 1:
        raise ValueError(f"queries, gallery must be (n, D) with the same D, not {shapes}")
    if len(truth) != len(queries):
        raise ValueError("positives and junk need a row for every query")
    if own is not None and len(own) != truth.counts().sum():
        raise ValueError("positive_rows needs a row for every positive")


def _check_lists(positives: Csr, junk: Csr, n_gallery: int) -> None:
    if len(positives) != len(junk):
        raise ValueError("positives and junk need a row for every query")
    for lists in (positives, junk):
        indices = lists.indices
        if len(indices) and not 0 <= indices.min() <= indices.max() < n_gallery:
            raise ValueError(f"an index is outside the gallery of {n_gallery} rows")


def _query_blocks(counts: Ints, block_bytes: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of queries whose rows and positives fit an eighth and a quarter of the memory."""
    most = int(counts.max(initial=0))
    table = 2 * min(_BUCKETS, 16 * most) if most > _FEW else 0
    cost = np.cumsum((counts * _BYTES_A_POSITIVE + table) * 4 / block_bytes)
    cost += np.arange(1, len(counts) + 1) * row_bytes * 8 / block_bytes
    start = 0
    while start < len(counts):
        before = cost[start - 1] if start else 0.0
        stop = max(start + 1, int(np.searchsorted(cost, before + 1)))
        yield start, stop
        start = stop


def _tile(tile_bytes: int, dimensions: int) -> tuple[int, int]:
    """Rows and columns of a tile: its gallery rows and its elements stay in the cache."""
    elements = max(1, tile_bytes // (4 * (1 + (dimensions > SLICE))))
    columns = min(_COLUMNS[1], max(_COLUMNS[0], _CACHE // (4 * max(1, dimensions))))
    rows = max(1, min(_TILE_ROWS, int(elements**0.5)))
    return rows, max(1, min(columns, elements // rows))


def _exact(
    left: NDArray[np.float32], right: NDArray[np.float32], first_column: int,
    indptr: Ints, index: Ints, out: NDArray[np.float64],
) -> None:  # fmt: skip
    """The exact similarities of queries to those of their positives that lie in this block."""
    from resight.evaluate.ranking.kernels import positive_similarities

    def fill(first: int, last: int) -> None:
        positive_similarities(first, last, left, right, first_column, indptr, index, out)

    in_threads(fill, len(left))


class _Counter:
    """Counts, tile by tile, the negatives above each positive of a block of queries."""

    def __init__(
        self, positives: Csr, junk: Csr, exact: NDArray[np.float64], kind: np.dtype[Any],
        error: float, ties: Ties,
    ) -> None:  # fmt: skip
        from resight.evaluate.ranking import kernels

        self._kernels = kernels
        n, self.indptr = len(positives), positives.indptr
        self.junk, self.error, self.ties = junk, error, get_args(Ties).index(ties)
        order = np.empty(len(exact), dtype=np.int64)
        self._in_threads(
            kernels.order_positives, self.indptr, positives.indices, exact, order
        )  # from worst to best
        self.exact, self.index = exact[order], positives.indices[order]
        self.low, self.high = self.exact.astype(kind), self.exact.astype(kind)
        if error:  # rounded outwards: below `low` or above `high` is decided
            self.low = np.nextafter((self.exact - error).astype(kind), kind.type(-np.inf))
            self.high = np.nextafter((self.exact + error).astype(kind), kind.type(np.inf))
        most = int(positives.counts().max(initial=0))
        buckets = 1 if most <= _FEW else min(_BUCKETS, 2 ** int(np.ceil(np.log2(16 * most))))
        self.floor = np.full(n, np.inf, dtype=kind)
        some = positives.counts() > 0
        self.floor[some] = self.low[self.indptr[:-1][some]]
        self.scale = np.zeros(n, dtype=kind)
        self.end = np.array([buckets - 1], dtype=kind)
        small = np.int16 if most < 2**15 - 1 else np.int32
        self.table = np.zeros((n, buckets), dtype=small)
        self._in_threads(
            kernels.make_tables,
            self.indptr,
            self.floor,
            self.low,
            self.high,
            self.scale,
            self.end,
            self.table,
        )
        self.above = np.zeros(len(exact), dtype=np.int64)
        self.best = np.full(n, -np.inf)
        self.best_low = np.full(n, np.finfo(kind).min, dtype=kind)
        self.best_index = np.full(n, -1, dtype=np.int64)

    def _in_threads(self, kernel: Any, *arrays: Any) -> None:
        def work(first: int, last: int) -> None:
            kernel(first, last, *arrays)

        in_threads(work, len(self.indptr) - 1)

    def count(
        self, tile: NDArray[Any], first_row: int, first_column: int,
        left: NDArray[np.float32], right: NDArray[np.float32],
    ) -> None:  # fmt: skip
        """Add what one tile holds: rows from `first_row`, columns from `first_column` on."""
        rows = slice(first_row, first_row + len(tile))
        ends = slice(first_row, first_row + len(tile) + 1)

        def work(first: int, last: int) -> None:
            self._kernels.count_tile(
                first, last, tile, left, right, first_column,
                self.error == 0, self.error, self.ties,
                self.indptr[ends], self.low, self.high, self.exact, self.index,
                self.floor[rows], self.scale[rows], self.end, self.table[rows],
                self.junk.indptr[ends], self.junk.indices, self.above,
                self.best[rows], self.best_low[rows], self.best_index[rows],
            )  # fmt: skip

        in_threads(work, len(tile))

    def ranks(self, n_gallery: int) -> Ranks:
        """The outcome, after all tiles; each query's positives from best to worst."""
        self._in_threads(self._kernels.finish, self.indptr, self.above)
        counts = np.diff(self.indptr)
        ends = np.repeat(self.indptr[:-1] + self.indptr[1:], counts)
        back = ends - 1 - np.arange(len(self.above))  # reverse each query's
        found = self.best_index >= 0
        return Ranks(
            indptr=self.indptr,
            rank=self.above[back],
            index=self.index[back],
            similarity=self.exact[back],
            n_gallery=n_gallery - self.junk.counts(),
            negative=self.best_index,
            negative_similarity=np.where(found, self.best, np.nan),
        )
