"""Ranks of one range of queries after the other, against all columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.counter import (
    NO_ROWS,
    NOT_GIVEN,
    Tiles,
    cosine_scale,
    exact_of,
    in_order,
    new_asked,
    new_levels,
    ranks_of,
    scale_of,
    threaded,
)
from resight.evaluate.ranking.counting import Rules, Seen, count, fill, hide
from resight.evaluate.ranking.csr import Csr
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
    index, ids = positives.indices[order], np.arange(n_gallery)
    asked = new_asked(positives.indptr, exact, index, np.zeros(n, np.int64))
    rules, shape = Rules(error, 0.0, ties), (min(tile[0], n), min(tile[1], n_gallery))
    levels, tiles = new_levels(*shape), Tiles(multiply, dimensions, *shape)
    for first, right in columns.blocks():
        for c in range(0, len(right), tile[1]):
            near = right[c : c + tile[1]]
            for r in range(0, n, tile[0]):
                rows = left[r : r + tile[0]]
                tiles.fill(rows, near, scale, levels)
                for lists in (positives, junk):
                    ends = lists.indptr[r : r + len(rows) + 1]
                    threaded(hide, len(rows), levels, first + c, len(near), ends, lists.indices)
                seen = Seen(NOT_GIVEN, rows, near, ids[first + c :], ids, NO_ROWS, ids)
                threaded(count, len(rows), levels, len(near), r, asked, seen, rules, scale)
                tick(len(rows) * len(near) / n_gallery)
    return ranks_of(asked, 0, exact, index, n_gallery - junk.counts())


def ranks_of_given(similarity: NDArray[np.float64], positives: Csr, junk: Csr, ties: int) -> Ranks:
    """The ranks of queries whose similarities are given, (n, G) finite; compared as they are."""
    n, n_gallery = similarity.shape
    exact = similarity[positives.rows(), positives.indices]
    order = in_order(positives, exact)
    exact = exact[order]
    floor, some = similarity.min(axis=1, initial=0), positives.counts() > 0
    base, top = floor.copy(), np.maximum(floor, similarity.max(axis=1, initial=0))
    base[some] = exact[positives.indptr[:-1][some]]
    top[some] = exact[positives.indptr[1:][some] - 1]
    scale = scale_of(floor, base, top, np.float64)
    index, ids = positives.indices[order], np.arange(n_gallery)
    asked = new_asked(positives.indptr, exact, index, np.zeros(n, np.int64))
    levels = np.empty((n, n_gallery), np.uint16)
    threaded(fill, n, similarity, scale, levels, 0, 0)
    for lists in (positives, junk):
        threaded(hide, n, levels, 0, n_gallery, lists.indptr, lists.indices)
    seen = Seen(similarity, NO_ROWS, NO_ROWS, ids, ids, NO_ROWS, ids)
    threaded(count, n, levels, n_gallery, 0, asked, seen, Rules(0.0, 0.0, ties), scale)
    return ranks_of(asked, 0, exact, index, n_gallery - junk.counts())
