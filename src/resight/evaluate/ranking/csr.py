"""Ragged integer lists (positives, junk) as two flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Csr:
    """One list of integers a row: row r holds `indices[indptr[r]:indptr[r + 1]]`.

    `indptr` is (rows + 1,) int64, from 0 to `len(indices)`, never falling; `indices` is int64.
    """

    indptr: Ints
    indices: Ints

    def __post_init__(self) -> None:
        object.__setattr__(self, "indptr", np.ascontiguousarray(self.indptr, dtype=np.int64))
        object.__setattr__(self, "indices", np.ascontiguousarray(self.indices, dtype=np.int64))
        steps = np.diff(self.indptr)
        if len(self.indptr) == 0 or self.indptr[0] != 0 or self.indptr[-1] != len(self.indices):
            raise ValueError("indptr must run from 0 to the number of indices")
        if len(steps) and steps.min() < 0:
            raise ValueError("indptr must never fall")

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, row: int) -> Ints:
        return self.indices[self.indptr[row] : self.indptr[row + 1]]

    def part(self, start: int, stop: int) -> Csr:
        """The lists of rows [start, stop), sharing the indices."""
        indptr = self.indptr[start : stop + 1]
        return Csr(indptr - indptr[0], self.indices[indptr[0] : indptr[-1]])

    def counts(self) -> Ints:
        """How many indices each row holds, (rows,) int64."""
        return np.diff(self.indptr)

    def rows(self) -> Ints:
        """The row of every index, (len(indices),) int64."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.counts())

    def take(self, rows: Ints) -> Csr:
        """The lists of these rows, in this order."""
        counts = self.counts()[rows]
        return Csr(offsets(counts), self.indices[ragged_ranges(self.indptr[:-1][rows], counts)])

    @staticmethod
    def empty(rows: int) -> Csr:
        """`rows` empty lists."""
        return Csr(np.zeros(rows + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))

    @staticmethod
    def from_lists(lists: list[list[int]]) -> Csr:
        """From plain lists, one a row."""
        flat = [value for row in lists for value in row]
        counts = np.array([len(row) for row in lists], dtype=np.int64)
        return Csr(offsets(counts), np.array(flat, dtype=np.int64))


def offsets(counts: Ints) -> Ints:
    """Where each of a row of ragged lists begins, and the total: (len(counts) + 1,) int64."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)


def ragged_ranges(starts: Ints, counts: Ints) -> Ints:
    """`arange(start, start + count)` of every pair, one after the other, without a loop."""
    begins = offsets(counts)
    return np.arange(begins[-1], dtype=np.int64) + np.repeat(starts - begins[:-1], counts)
