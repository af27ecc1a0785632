"""What ranks are made from and what they come as."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.csr import Csr, Ints, offsets, ragged_ranges

Ties = Literal["by-id", "optimistic", "pessimistic"]
Tick = Callable[[float], None]


class Truth(Protocol):
    """The positives and the junk of each query, made for a range of queries at a time."""

    def __len__(self) -> int: ...

    def counts(self) -> Ints:
        """Positives a query, (Q,) int64."""

    def lists(self, start: int, stop: int) -> tuple[Csr, Csr]:
        """Positives and junk of queries [start, stop): gallery rows, each at most once a query."""

    def take(self, queries: Ints) -> Truth:
        """That of these queries, in this order."""

    def mutual(self) -> Mutual | None:
        """How the queries are gallery rows themselves; None: they aren't, or it's not known."""


@dataclass(frozen=True)
class Mutual:
    """Queries that are gallery rows, where among them right and junk go both ways.

    rows (Q,) rising: the gallery row that each query is; where i is right for j, or junk, j is so
    for i. order (G,): all gallery rows; start (Q,): the positives of query q are in order from
    start[q] to start[q] + most.
    """

    rows: Ints
    order: Ints
    start: Ints
    most: int

    def kind(self) -> np.dtype[Any]:
        """The least type that holds a place from `start` on."""
        return np.dtype(np.uint16 if self.most <= 2**16 else np.int32)


@dataclass(frozen=True)
class GivenTruth:
    """Lists that are there already; as `Truth`."""

    positives: Csr
    junk: Csr
    same: Ints | None = None

    def __len__(self) -> int:
        return len(self.positives)

    def counts(self) -> Ints:
        """Positives a query."""
        return self.positives.counts()

    def lists(self, start: int, stop: int) -> tuple[Csr, Csr]:
        """Positives and junk of queries [start, stop)."""
        return self.positives.part(start, stop), self.junk.part(start, stop)

    def take(self, queries: Ints) -> GivenTruth:
        """That of these queries, in this order."""
        return GivenTruth(self.positives.take(queries), self.junk.take(queries))

    def mutual(self) -> Mutual | None:
        """As it was given by `same`, the gallery rows that the queries are."""
        if self.same is None:
            return None
        size = int(max(self.positives.indices.max(initial=0), self.same.max(initial=0))) + 1
        return Mutual(self.same, np.arange(size), np.zeros(len(self), np.int64), size)


@dataclass(frozen=True)
class Ranks:
    """For each query its positives in the order they are retrieved.

    `indptr` (Q + 1,) as in `Csr`; per positive `rank` (1 is the first; junk is not counted),
    `index` (gallery row) and `similarity` (float64, the exact cosine of the gridded unit rows);
    per query `n_gallery`, the gallery it searched: all rows but its junk, and the best of its
    negatives: `negative` (gallery row, -1 where it has none) and `negative_similarity` (NaN).
    `queries` (Q,): in blocks that don't come in order, which queries these are.
    """

    indptr: Ints
    rank: Ints
    index: Ints
    similarity: NDArray[np.float64]
    n_gallery: Ints
    negative: Ints
    negative_similarity: NDArray[np.float64]
    queries: Ints | None = None

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def counts(self) -> Ints:
        """Positives a query, (Q,) int64."""
        return np.diff(self.indptr)


def join(blocks: Iterator[Ranks]) -> Ranks:
    """One `Ranks` of those of consecutive queries, or of all queries in any order."""
    parts = list(blocks)
    counts = np.concatenate([np.zeros(0, np.int64), *(part.counts() for part in parts)])

    def all_of(name: str) -> NDArray[Any]:
        kind = np.float64 if name.endswith("similarity") else np.int64
        return np.concatenate([np.zeros(0, kind), *(getattr(part, name) for part in parts)])

    one = Ranks(
        offsets(counts),
        *(all_of(name) for name in ("rank", "index", "similarity", "n_gallery")),
        *(all_of(name) for name in ("negative", "negative_similarity")),
    )  # fmt: skip
    if not any(part.queries is not None for part in parts):
        return one
    order = np.argsort(all_of("queries"))
    entries = ragged_ranges(one.indptr[order], counts[order])
    return Ranks(
        offsets(counts[order]), one.rank[entries], one.index[entries], one.similarity[entries],
        one.n_gallery[order], one.negative[order], one.negative_similarity[order],
    )  # fmt: skip
