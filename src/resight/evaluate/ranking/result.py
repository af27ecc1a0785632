"""What is asked and what comes out: the right answers of each query, and their ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.csr import Csr, Ints

Ties = Literal["by-id", "optimistic", "pessimistic"]
Tick = Callable[[float], None]


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
