"""The features of all candidates' parts, computed once, and the sums that closed forms stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.features.store import Features
from resight.models.closed_form import (
    Pair,
    discriminant,
    joined,
    pair_discriminant,
    whitening,
)
from resight.models.depths import Maps
from resight.models.moments import Moments, Spread, difference_scatter, moments, spread
from resight.train.fitting.candidates import Candidate
from resight.train.fitting.neighbours import ROUNDS, mutual_pairs

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """Some columns of features, read when asked for."""

    features: Any
    columns: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return len(self.features), len(self.columns)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        return np.asarray(self.features[rows], np.float32)[:, self.columns]


def columns_of(maps: Maps | None, candidate: Candidate, dims: int) -> NDArray[np.int64]:
    """Where a candidate's parts stand in the joined vector; all `dims` of a trained embedder.

    That may end in more than its joined maps: its candidates have no parts.
    """
    if maps is None or not candidate.parts:
        return np.arange(dims)
    starts = np.cumsum([0, *(part.width for part in maps.parts)])
    place = {(part.depth.number, part.grid): k for k, part in enumerate(maps.parts)}
    ranges = [np.arange(starts[place[key]], starts[place[key] + 1]) for key in candidate.parts]
    return np.concatenate(ranges)


@dataclass(frozen=True)
class _Kept:
    """The sums of all candidates of a grid: their columns, and how many parts these are of."""

    columns: NDArray[np.int64]
    parts: int
    total: Moments
    spread: Spread | None


@dataclass
class Sums:
    """Fits candidates to rows of features, each sum made once and sliced.

    `rows` (N,) bool: what is fitted to; `objects` (N,) int, -1 where unknown; `cameras` (N,) int
    or None where unknown. Slices are exact where all parts of a row are of one length. Summed over
    scales they are so only nearly: good enough to compare candidates, and one that is prepared
    alone is exact.
    """

    features: Features
    maps: Maps | None
    rows: NDArray[np.bool_]
    objects: Rows
    cameras: Rows | None = None
    _kept: dict[int, _Kept] = field(default_factory=dict)

    def prepare(self, candidates: Sequence[Candidate]) -> None:
        """Make the sums of these: one pass for each grid, over the columns of all its depths."""
        for grid in {candidate.grid for candidate in candidates}:
            group = [c for c in candidates if c.grid == grid]
            parts = {part for candidate in group for part in candidate.parts}
            columns = np.unique(np.concatenate([self._columns(c) for c in group]))
            view = Columns(self.features, columns)
            labelled = any(c.method == "discriminant" for c in group)
            total = moments(view, self.rows)
            found = spread(view, self.objects, self.rows) if labelled else None
            self._kept[grid] = _Kept(columns, len(parts), total, found)

    def of(self, candidate: Candidate) -> tuple[Moments, Spread | None]:
        """The sums of a candidate's own joined rows; `prepare` must have been called with it."""
        kept = self._kept[candidate.grid]
        inner = np.searchsorted(kept.columns, self._columns(candidate))
        # Rows were of unit length with all parts of the group: with fewer parts each is longer.
        times = (kept.parts / max(1, len(candidate.parts))) ** 0.5 if kept.parts else 1.0
        found = None if kept.spread is None else kept.spread.columns(inner, times)
        return kept.total.columns(inner, times), found

    def fit(self, candidate: Candidate) -> Pair | None:
        """Its projection; None for "raw". `prepare` must have been called with it.

        Raises ValueError when the rows allow none (all alike, too few).
        """
        if candidate.method == "raw":
            return None
        total, found = self.of(candidate)
        dims = candidate.dims
        if candidate.method == "discriminant":
            assert found is not None
            return discriminant(total, found, dims, shrink=candidate.shrink)
        white = whitening(total, dims)
        if candidate.method == "whitening":
            return white
        view = Columns(self.features, self._columns(candidate))
        pair = self._by_neighbours(view, white, total, candidate)
        return pair if candidate.method == "neighbours" else joined(white, pair, total, dims)

    def _columns(self, candidate: Candidate) -> NDArray[np.int64]:
        return columns_of(self.maps, candidate, self.features.shape[1])

    def _by_neighbours(
        self, view: Columns, white: Pair, total: Moments, candidate: Candidate
    ) -> Pair:
        """The discriminant from mutual neighbours: in the whitened space, then in its own."""
        pair = white
        for k in ROUNDS:
            pairs = mutual_pairs(view, self.rows, pair, k, self.cameras)
            if not len(pairs[0]):  # no two images are each other's nearest: nothing is known
                return pair
            scatter = difference_scatter(view, pairs)
            pair = pair_discriminant(total, scatter, candidate.dims, shrink=candidate.shrink)
        return pair
