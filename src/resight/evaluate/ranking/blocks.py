"""Ranks of one range of queries after the other, against all columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.counter import (
    NO_ROWS,
    NOT_GIVEN,
    Tiles,
    cosine_scale,
    exact_of,
    in_order,
    low_levels,
    new_asked,
    ranks_of,
    scale_of,
    threaded,
)
from resight.evaluate.ranking.counting import Rules, Seen, count, fill, hide
from resight.evaluate.ranking.csr import Csr, Ints
from resight.evaluate.ranking.result import Ranks, Tick
from resight.evaluate.ranking.units import Multiply, Rows, UnitRows, product_error, unit_rows


def ranks_of_block(
    queries: Rows, columns: UnitRows, positives: Csr, junk: Csr, own: Rows | None,
    tile: tuple[int, int], multiply: Multiply, ties: int, tick: Tick,
) -> Ranks:  # fmt: skip
    """The ranks of queries (n, D), by tiles of so many rows and columns.

    own (positives, D): vectors in place of the positives' own rows.
    """
    n, n_gallery = len(queries), len(columns.source)
    dimensions = queries.shape[1]
    error = product_error(dimensions)
    left, exact = unit_rows(np.asarray(queries[0:n])), np.empty(len(positives.indices))
    if own is None:
        for first, right in columns.blocks():
            exact_of(left, right, first, positives, exact)
    else:
        vectors = unit_rows(np.asarray(own[0 : len(exact)]))
        exact_of(left, vectors, 0, Csr(positives.indptr, np.arange(len(exact))), exact)
    order = in_order(positives, exact)  # from worst to best
    exact, scale = exact[order], cosine_scale(exact, error)
    low, reach = low_levels(exact, np.zeros(0, np.int64), scale, error)
    index = positives.indices[order].astype(np.int32)
    asked, rules = new_asked(positives.indptr, index, low, exact), Rules(reach, error, ties)
    ids = np.arange(n_gallery)
    levels = np.empty((min(tile[0], n), min(tile[1], n_gallery)), np.uint16)
    tiles = Tiles(multiply, dimensions, *levels.shape)
    for first, right in columns.blocks():
        for c in range(0, len(right), tile[1]):
            near = right[c : c + tile[1]]
            for r in range(0, n, tile[0]):
                rows = left[r : r + tile[0]]
                tiles.fill(rows, near, scale, levels)
                for lists in (positives, junk):
                    ends = lists.indptr[r : r + len(rows) + 1]
                    threaded(
                        hide, len(rows), levels, 0, first + c, len(near), ends, lists.indices
                    )  # fmt: skip
                seen = Seen(NOT_GIVEN, rows, near, ids[first + c :], NO_ROWS, ids)
                threaded(count, len(rows), levels, len(near), r, asked, seen, rules, scale)
                tick(len(rows) * len(near) / n_gallery)
    return ranks_of(asked, 0, n, exact, n_gallery - junk.counts())


def ranks_of_given(similarity: NDArray[np.float64], positives: Csr, junk: Csr, ties: int) -> Ranks:
    """The ranks of queries whose similarities are given, (n, G) finite; compared as they are."""
    n, n_gallery = similarity.shape
    rows = positives.rows()
    exact = similarity[rows, positives.indices]
    order = in_order(positives, exact)
    exact = exact[order]
    floor, some = similarity.min(axis=1, initial=0), positives.counts() > 0
    base, top = floor.copy(), np.maximum(floor, similarity.max(axis=1, initial=0))
    base[some] = exact[positives.indptr[:-1][some]]
    top[some] = exact[positives.indptr[1:][some] - 1]
    scale = scale_of(floor, base, top, np.float64)
    low, reach = low_levels(exact, rows, scale, 0.0)
    index = positives.indices[order].astype(np.int32)
    asked, rules = new_asked(positives.indptr, index, low, exact), Rules(reach, 0.0, ties)
    levels = np.empty((n, n_gallery), np.uint16)
    threaded(fill, n, similarity, scale, levels, 0, 0)
    for lists in (positives, junk):
        threaded(hide, n, levels, 0, 0, n_gallery, lists.indptr, lists.indices)
    ids = np.arange(n_gallery)
    seen = Seen(similarity, NO_ROWS, NO_ROWS, ids, NO_ROWS, ids)
    threaded(count, n, levels, n_gallery, 0, asked, seen, rules, scale)
    return ranks_of(asked, 0, n, exact, n_gallery - junk.counts())
