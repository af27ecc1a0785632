"""The rank of every positive of every query: the one hot core of the evaluation.

Every retrieval metric is a few lines on these ranks (see metrics.py). They are computed from
block-wise products, without ever holding or sorting the query x gallery matrix:

1. The similarities of the positives are computed pair by pair, exactly (see ranking/units.py).
2. Each element of a tile of the float32 product becomes a 16-bit level, and is placed by it among
   the positives of its query, which says above how many of them it stands (ranking/counting.py).
3. An element closer to a positive than the float32 error bound is computed again, exactly.

Where the queries are gallery rows themselves, half of the product is enough (ranking/mutual.py),
if the memory allows; else queries go block by block against all columns (ranking/blocks.py).

So the ranks are those of the full matrix in exact arithmetic under a stable sort, whatever
the block size, the number of threads or the order of the gallery (up to the tie rule).

Ties, at exactly equal similarity: "by-id" puts the lower gallery index first, as a stable sort of
the falling similarities does; "optimistic" puts positives before negatives, "pessimistic" after
them (both give the same metrics for any order of the gallery). Positives among themselves
stand by index under all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np

from resight.evaluate.ranking.csr import Csr, Ints
from resight.evaluate.ranking.result import GivenTruth, Mutual, Ranks, Tick, Ties, Truth, join
from resight.evaluate.ranking.units import Rows, UnitRows, multiply_on

__all__ = ["GivenTruth", "Mutual", "Ranks", "Tick", "Ties", "Truth", "join"]
BLOCK_BYTES = 896 * 2**20
_BYTES_A_POSITIVE = 64  # of a block: indices, similarities, levels, counts
_GIVEN_ROWS = 1024  # of given similarities, at once
_TILE = 1024, 16384  # rows and columns, at most


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
    """`positive_ranks` for some queries after the other: in order, or as `Ranks.queries` says.

    Nothing that grows with the number of queries is held, so that the ranks of millions of
    positives can be turned into metrics as they come. tick: called now and then with the queries
    that were done since, as a fraction.
    """
    _check(queries, gallery, truth, ties, positive_rows)
    from resight.evaluate.ranking.blocks import ranks_of_block
    from resight.evaluate.ranking.mutual import TILE, bytes_needed, mutual_blocks

    dimensions, rule = queries.shape[1], get_args(Ties).index(ties)
    multiply, counts, mutual = multiply_on(device), truth.counts(), truth.mutual()
    if (
        mutual is not None
        and positive_rows is None
        and (bytes_needed(truth, mutual, len(gallery), dimensions) <= block_bytes)
    ):
        yield from mutual_blocks(gallery, truth, mutual, TILE, multiply, rule, tick)
        return
    row_bytes = max(1, 4 * dimensions)
    columns = UnitRows(gallery, block_bytes // 2 // row_bytes)
    tile = _tile(block_bytes // 8, dimensions)
    for start, stop in _query_blocks(counts, block_bytes, row_bytes):
        positives, junk = truth.lists(start, stop)
        _check_lists(positives, junk, len(gallery))
        own, some = None, np.asarray(queries[start:stop])
        if positive_rows is not None:
            first = int(counts[:start].sum())
            own = positive_rows[first : first + len(positives.indices)]
        yield ranks_of_block(some, columns, positives, junk, own, tile, multiply, rule, tick)


def matrix_ranks(
    similarity: Rows, truth: Truth, *, ties: Ties = "by-id", block_bytes: int = 2**40,
    tick: Tick = lambda queries: None,
) -> Iterator[Ranks]:  # fmt: skip
    """`rank_blocks` for similarities that are given, (Q, G) of float32 or float64, finite.

    The higher the nearer. They are compared as they are, to the last bit.
    """
    from resight.evaluate.ranking.blocks import ranks_of_given

    n_gallery = similarity.shape[1]
    if len(similarity) != len(truth):
        raise ValueError("positives and junk need a row for every query")
    step = max(1, min(_GIVEN_ROWS, block_bytes // (24 * max(1, n_gallery))))
    for start in range(0, len(truth), step):
        stop = min(start + step, len(truth))
        positives, junk = truth.lists(start, stop)
        _check_lists(positives, junk, n_gallery)
        some = np.asarray(similarity[start:stop]).astype(np.float64)
        yield ranks_of_given(some, positives, junk, get_args(Ties).index(ties))
        tick(stop - start)


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
    cost = np.cumsum(counts * _BYTES_A_POSITIVE * 4 / block_bytes)
    cost += np.arange(1, len(counts) + 1) * row_bytes * 8 / block_bytes
    start = 0
    while start < len(counts):
        before = cost[start - 1] if start else 0.0
        stop = max(start + 1, int(np.searchsorted(cost, before + 1)))
        yield start, stop
        start = stop


def _tile(tile_bytes: int, dimensions: int) -> tuple[int, int]:
    """Rows and columns of a tile: its gallery rows and its levels stay in the cache."""
    elements = max(1, tile_bytes // 4)
    rows = max(1, min(_TILE[0], int(elements**0.5)))
    columns = min(_TILE[1], max(2048, 8 * 2**20 // (4 * max(1, dimensions))))
    return rows, max(1, min(columns, elements // rows))
