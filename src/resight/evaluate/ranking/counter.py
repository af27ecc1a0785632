"""Tiles of similarities in, ranks out: what is known of a block of queries in between."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.csr import Csr
from resight.evaluate.ranking.result import Ranks, Ties
from resight.evaluate.ranking.units import threaded

FEW = 16  # positives: compared with one by one
BUCKETS = 4096  # at most, in the table that finds a place among many positives


class Counter:
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
        threaded(
            kernels.order_positives, n, self.indptr, positives.indices, exact, order
        )  # from worst to best
        self.exact, self.index = exact[order], positives.indices[order]
        self.low, self.high = self.exact.astype(kind), self.exact.astype(kind)
        if error:  # rounded outwards: below `low` or above `high` is decided
            self.low = np.nextafter((self.exact - error).astype(kind), kind.type(-np.inf))
            self.high = np.nextafter((self.exact + error).astype(kind), kind.type(np.inf))
        most = int(positives.counts().max(initial=0))
        buckets = 1 if most <= FEW else min(BUCKETS, 2 ** int(np.ceil(np.log2(16 * most))))
        self.floor = np.full(n, np.inf, dtype=kind)
        some = positives.counts() > 0
        self.floor[some] = self.low[self.indptr[:-1][some]]
        self.scale = np.zeros(n, dtype=kind)
        self.end = np.array([buckets - 1], dtype=kind)
        small = np.int16 if most < 2**15 - 1 else np.int32
        self.table = np.zeros((n, buckets), dtype=small)
        threaded(
            kernels.make_tables, n, FEW, self.indptr, self.floor, self.low, self.high, self.scale,
            self.end, self.table,
        )  # fmt: skip
        self.above = np.zeros(len(exact), dtype=np.int64)
        self.best = np.full(n, -np.inf)
        self.best_low = np.full(n, np.finfo(kind).min, dtype=kind)
        self.best_index = np.full(n, -1, dtype=np.int64)

    def turn(self, tile: NDArray[Any], out: NDArray[Any]) -> None:
        """Write tile (n, m) turned into out (m, n)."""
        threaded(self._kernels.turn, len(out), tile, out)

    def count(
        self, tile: NDArray[Any], first_row: int, first_column: int,
        left: NDArray[np.float32], right: NDArray[np.float32],
    ) -> None:  # fmt: skip
        """Add what one tile holds: rows from `first_row`, columns from `first_column` on."""
        rows = slice(first_row, first_row + len(tile))
        ends = slice(first_row, first_row + len(tile) + 1)
        threaded(
            self._kernels.count_tile, len(tile), tile, left, right, first_column,
            self.error == 0, self.error, self.ties, FEW,
            self.indptr[ends], self.low, self.high, self.exact, self.index,
            self.floor[rows], self.scale[rows], self.end, self.table[rows],
            self.junk.indptr[ends], self.junk.indices, self.above,
            self.best[rows], self.best_low[rows], self.best_index[rows],
        )  # fmt: skip

    def ranks(self, n_gallery: int) -> Ranks:
        """The outcome, after all tiles; each query's positives from best to worst."""
        threaded(self._kernels.finish, len(self.best), self.indptr, self.above)
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
