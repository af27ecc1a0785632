"""The rank of every positive of every query: the one hot core of the evaluation.

Every retrieval metric is a few lines on these ranks (see metrics.py). They are computed from
block-wise products, without ever holding or sorting the query x gallery matrix:

1. The similarities of the positives are computed pair by pair, exactly (see ranking/units.py).
2. Each element of a tile of the float32 product is placed among the positives of its query, which
   says above how many of them it stands (see ranking/kernels.py).
3. An element closer to a positive than the float32 error bound is computed again, exactly.

Where the gallery rows are the queries, a tile serves its rows' queries and, turned, its columns':
about half of the product is made.

So the ranks are those of the full matrix in exact arithmetic under a stable sort, whatever
the block size, the number of threads or the order of the gallery (up to the tie rule).

Ties, at exactly equal similarity: "by-id" puts the lower gallery index first, as a stable sort of
the falling similarities does; "optimistic" puts positives before negatives, "pessimistic" after
them (both give the same metrics for any order of the gallery). Positives among themselves
stand by index under all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.counter import BUCKETS, FEW, Counter
from resight.evaluate.ranking.csr import Csr, Ints
from resight.evaluate.ranking.result import GivenTruth, Ranks, Tick, Ties, Truth, join
from resight.evaluate.ranking.units import (
    SLICE,
    UnitRows,
    multiply_on,
    product,
    product_error,
    threaded,
    unit_rows,
)
from resight.features.rows import Rows

BLOCK_BYTES = 512 * 2**20
_BYTES_A_POSITIVE = 64  # of a block: indices, similarities, bounds, counts
_TILE_ROWS = 1024  # of the product
_MUTUAL = 1984  # rows and columns where both query; no power of two, which caches dislike
_COLUMNS = (2048, 16384)  # at least and at most: wide ones use a row's tables longer
_CACHE = 8 * 2**20  # bytes of gallery rows that near ties look up


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
    then against the other rows. Where the queries are the gallery, pass the same object twice: half
    of the product is enough then. device: "cpu", or a torch device that makes the products.

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
    counts = truth.counts()
    mutual = queries is gallery and positive_rows is None and columns.block >= len(gallery)
    blocks = list(_query_blocks(counts, block_bytes, 0 if mutual else row_bytes))
    if mutual and len(blocks) > 1:  # no room for the state of all of them
        mutual, blocks = False, list(_query_blocks(counts, block_bytes, row_bytes))
    multiply, error = multiply_on(device), product_error(dimensions)
    tile = _tile(block_bytes // 8, dimensions)
    if mutual:
        tile = (min(isqrt(tile[0] * tile[1]), _MUTUAL),) * 2
    for start, stop in blocks:
        positives, junk = truth.lists(start, stop)
        _check_lists(positives, junk, len(gallery))
        if mutual:
            _, left = next(columns.blocks())
        else:
            left = unit_rows(np.asarray(queries[start:stop]))
        exact = np.empty(len(positives.indices))
        if positive_rows is None:
            for first, right in columns.blocks():
                _exact(left, right, first, positives.indptr, positives.indices, exact)
        else:
            first = int(counts[:start].sum())
            own = unit_rows(np.asarray(positive_rows[first : first + len(exact)]))
            _exact(left, own, 0, positives.indptr, np.arange(len(exact)), exact)
        counter = Counter(positives, junk, exact, np.dtype(np.float32), error, ties)
        buffers = np.empty((3 if dimensions > SLICE else 2, tile[0] * tile[1]), np.float32)
        for first, right in columns.blocks():
            for r, c, both in _meetings(len(left), len(right), tile, mutual):
                rows, near = left[r], right[c]
                shape = (len(rows), len(near))
                views = [part[: shape[0] * shape[1]].reshape(shape) for part in buffers]
                product(rows, near, views[0], views[-1], multiply)
                if both:
                    turned = views[1].reshape(shape[::-1])
                    counter.turn(views[0], turned)
                    counter.count(turned, c.start, r.start, near, rows)
                counter.count(views[0], r.start, first + c.start, rows, near)
                tick(len(rows) * len(near) * (1 + both) / len(gallery))
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
        counter = Counter(positives, junk, exact, tile.dtype, 0.0, ties)
        counter.count(tile, 0, 0, none, none)
        tick(stop - start)
        yield counter.ranks(n_gallery)


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
    table = 2 * min(BUCKETS, 16 * most) if most > FEW else 0
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


def _meetings(
    rows: int, columns: int, tile: tuple[int, int], mutual: bool
) -> Iterator[tuple[slice, slice, bool]]:
    """Which rows meet which columns in a tile; and whether it serves the columns' queries, too.

    Where rows and columns are the same, tiles are square, and of two that mirror each other one
    is made.
    """
    for c in range(0, columns, tile[1]):
        for r in range(0, min(rows, c + 1) if mutual else rows, tile[0]):
            ends = slice(r, min(r + tile[0], rows)), slice(c, min(c + tile[1], columns))
            yield *ends, mutual and r < c


def _exact(
    left: NDArray[np.float32], right: NDArray[np.float32], first_column: int,
    indptr: Ints, index: Ints, out: NDArray[np.float64],
) -> None:  # fmt: skip
    """The exact similarities of queries to those of their positives that lie in this block."""
    from resight.evaluate.ranking.kernels import positive_similarities

    threaded(positive_similarities, len(left), left, right, first_column, indptr, index, out)
