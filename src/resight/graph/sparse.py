"""Rows with few entries, as three flat arrays, and the loops that add, turn and compare them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.compiled import compiled

Ints = NDArray[np.int64]
BLOCK = 4096  # rows made at once
_NO_IDS, _NO_VALUES = np.zeros(0, np.int32), np.zeros(0, np.float32)


@dataclass(frozen=True)
class Sparse:
    """R rows: row r has `values[indptr[r]:indptr[r + 1]]` at the columns `indices` there.

    indptr (R + 1,) int64; indices (E,) int32, rising within a row; values (E,) float32.
    """

    indptr: Ints
    indices: NDArray[np.int32]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, r: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Columns and values of a row."""
        part = slice(int(self.indptr[r]), int(self.indptr[r + 1]))
        return self.indices[part], self.values[part]

    def rows(self) -> Ints:
        """(E,) the row of each entry."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.indptr))

    def take(self, rows: Ints) -> Sparse:
        """These rows, in this order."""
        counts = self.indptr[rows + 1] - self.indptr[rows]
        indptr = _offsets(counts)
        at = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], counts)
        return Sparse(indptr, self.indices[at], self.values[at])

    def turned(self, columns: int) -> Sparse:
        """The transpose: a row for each of so many columns."""
        indptr = _offsets(np.bincount(self.indices, minlength=columns))
        indices = np.empty(len(self.indices), np.int32)
        values = np.empty(len(self.indices), np.float32)
        _turn(self.indptr, self.indices, self.values, indptr[:-1].copy(), indices, values)
        return Sparse(indptr, indices, values)

    def dense(self, columns: int | None = None) -> NDArray[np.float64]:
        """(R, columns), by default as many as rows; for few rows."""
        full = np.zeros((len(self), len(self) if columns is None else columns))
        full[self.rows(), self.indices] = self.values
        return full


def joined(parts: list[Sparse]) -> Sparse:
    """One below the other."""
    counts = [np.diff(part.indptr) for part in parts]
    return Sparse(
        _offsets(np.concatenate([np.zeros(0, np.int64), *counts])),
        np.concatenate([np.zeros(0, np.int32), *(part.indices for part in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(part.values for part in parts)]),
    )


def from_slots(
    starts: Ints, counts: Ints, indices: NDArray[np.int32], values: NDArray[np.float32]
) -> Sparse:
    """Rows that were written with room to spare: row r has `counts[r]` entries from `starts[r]`."""
    indptr = _offsets(counts)
    at = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], counts)
    return Sparse(indptr, indices[at], values[at])


def _offsets(counts: NDArray[np.int64]) -> Ints:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)


def weighted(
    members: NDArray[np.int32],
    weights: NDArray[np.float32],
    rows: Sparse,
    columns: int,
    *,
    diagonal: float = 0.0,
    first: Sparse | None = None,
) -> Sparse:
    """Row b: the sum of weights[b, c] times the row members[b, c], -1 for none.

    members, weights (B, m); `diagonal`: what each member has at its own column beside what its row
    says (1 where the rows leave the diagonal out). `first` (B rows): added too, each times the
    weight after those of the members, weights (B, m + 1). Entries at column -1 count as none.
    """
    parts = []
    first = first or Sparse(np.zeros(len(members) + 1, np.int64), _NO_IDS, _NO_VALUES)
    total, touched = np.zeros(columns), np.empty(columns, np.int32)
    seen = np.zeros(columns, np.bool_)
    lengths = np.diff(rows.indptr)
    for start in range(0, len(members), BLOCK):
        part = np.ascontiguousarray(members[start : start + BLOCK])
        own = first.indptr[start : start + len(part) + 1]
        room = np.where(part >= 0, lengths[part] + 1, 0).sum(axis=1) + np.diff(own)
        starts = _offsets(np.minimum(room, columns))
        indices, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
        counts = np.zeros(len(part), np.int64)
        _add_up(
            part, np.asarray(weights[start : start + BLOCK], np.float32),
            rows.indptr, rows.indices, rows.values, diagonal, own, first.indices, first.values,
            total, seen, touched, starts, counts, indices, values,
        )  # fmt: skip
        parts.append(from_slots(starts[:-1], counts, indices, values))
    return joined(parts)


def overlaps(rows: Sparse, inverted: Sparse, columns: int) -> Sparse:
    """For each row the sum of min(row, other row) over the columns, of all that share one.

    `inverted`: the other rows turned, so that it has one list a column; `columns`: how many other
    rows there are.
    """
    parts = []
    total, touched = np.zeros(columns), np.empty(columns, np.int32)
    seen = np.zeros(columns, np.bool_)
    lengths = np.diff(inverted.indptr)
    step = 256
    for start in range(0, len(rows), step):
        stop = min(start + step, len(rows))
        indptr = rows.indptr[start : stop + 1]
        ends = _offsets(lengths[rows.indices[indptr[0] : indptr[-1]]])
        room = np.minimum(np.diff(ends[indptr - indptr[0]]), columns)
        starts = _offsets(room)
        indices, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
        counts = np.zeros(stop - start, np.int64)
        _overlap(
            indptr, rows.indices, rows.values, inverted.indptr, inverted.indices, inverted.values,
            total, seen, touched, starts, counts, indices, values,
        )  # fmt: skip
        parts.append(from_slots(starts[:-1], counts, indices, values))
    return joined(parts)


@compiled
def _turn(indptr, indices, values, place, out_indices, out_values):  # type: ignore[no-untyped-def]
    for r in range(len(indptr) - 1):
        for e in range(indptr[r], indptr[r + 1]):
            at = place[indices[e]]
            out_indices[at], out_values[at] = r, values[e]
            place[indices[e]] = at + 1


@compiled
def _add(column, amount, total, seen, touched, some):  # type: ignore[no-untyped-def]
    """Add to a column of the row at hand; how many have been touched."""
    total[column] += amount
    if not seen[column]:
        seen[column] = True
        touched[some] = column
        some += 1
    return some


@compiled
def _put_down(total, seen, touched, some, start, indices, values):  # type: ignore[no-untyped-def]
    """Write the touched columns in rising order, and leave the room clean."""
    columns = touched[:some]
    columns.sort()
    for i in range(some):
        column = columns[i]
        indices[start + i], values[start + i] = column, total[column]
        total[column], seen[column] = 0, False


@compiled
def _add_up(  # type: ignore[no-untyped-def]
    members, weights, indptr, others, amounts, diagonal, own, own_others, own_amounts,
    total, seen, touched, starts, counts, indices, values,
):  # fmt: skip
    for b in range(members.shape[0]):
        some = 0
        for c in range(members.shape[1]):
            member = members[b, c]
            if member < 0:
                continue
            weight = np.float64(weights[b, c])
            if diagonal != 0:
                some = _add(member, weight * diagonal, total, seen, touched, some)
            for e in range(indptr[member], indptr[member + 1]):
                if others[e] >= 0:
                    some = _add(others[e], weight * amounts[e], total, seen, touched, some)
        for e in range(own[b], own[b + 1]):
            amount = np.float64(weights[b, members.shape[1]]) * own_amounts[e]
            some = _add(own_others[e], amount, total, seen, touched, some)
        _put_down(total, seen, touched, some, starts[b], indices, values)
        counts[b] = some


@compiled
def _overlap(  # type: ignore[no-untyped-def]
    indptr, columns, amounts, list_ptr, lists, list_amounts,
    total, seen, touched, starts, counts, indices, values,
):  # fmt: skip
    for b in range(len(indptr) - 1):
        some = 0
        for e in range(indptr[b], indptr[b + 1]):
            column, amount = columns[e], amounts[e]
            for f in range(list_ptr[column], list_ptr[column + 1]):
                least = min(amount, list_amounts[f])
                some = _add(lists[f], least, total, seen, touched, some)
        _put_down(total, seen, touched, some, starts[b], indices, values)
        counts[b] = some
