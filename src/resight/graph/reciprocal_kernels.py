"""The compiled loops of k-reciprocal encoding."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from resight.compiled import compiled

_any_order = partial(compiled, fastmath={"reassoc", "contract"})


@_any_order
def dots(left, rows, right, columns, out):  # type: ignore[no-untyped-def]
    """out (E,): left[rows[e]] · right[columns[e]], float32 rows summed in float64."""
    for e in range(len(out)):
        a, b = left[rows[e]], right[columns[e]]
        total = 0.0
        for i in range(len(a)):
            total += np.float64(a[i]) * np.float64(b[i])
        out[e] = total


@compiled
def _among(ids, row, k, wanted):  # type: ignore[no-untyped-def]
    for c in range(k):  # noqa: SIM110 (any() is not compiled)
        if ids[row, c] == wanted:
            return True
    return False


@compiled
def mark_mutual(ids, half, mutual):  # type: ignore[no-untyped-def]
    """mutual (N, k1 + half): whether the neighbours are reciprocal at k1, then at half."""
    n, k1 = ids.shape
    for i in range(n):
        for c in range(k1):
            j = ids[i, c]
            if j < 0:
                break
            mutual[i, c] = _among(ids, j, k1, i)
            if c < half:
                mutual[i, k1 + c] = _among(ids, j, half, i)


@compiled
def _holds(members, count, wanted):  # type: ignore[no-untyped-def]
    for i in range(count):  # noqa: SIM110
        if members[i] == wanted:
            return True
    return False


@compiled
def _expand(members, count, ids, mutual):  # type: ignore[no-untyped-def]
    """Join R(q, half) of each of the first `count` members by the rule of two thirds; how many
    there are then, rising."""
    k1 = ids.shape[1]
    half = mutual.shape[1] - k1
    total = count
    for m in range(count):
        q = members[m]
        size, common = 1, 1  # q itself is in both
        for c in range(half):
            if mutual[q, k1 + c]:
                size += 1
                common += _holds(members, count, ids[q, c])
        if 3 * common >= 2 * size:
            for c in range(half):
                if mutual[q, k1 + c]:
                    members[total] = ids[q, c]
                    total += 1
    some = members[:total]
    some.sort()
    kept = 0
    for i in range(total):
        if i == 0 or some[i] != some[kept - 1]:
            some[kept] = some[i]
            kept += 1
    return kept


@compiled
def _sets(first, ids, mutual, counts, members):  # type: ignore[no-untyped-def]
    k1 = ids.shape[1]
    for b in range(len(counts)):
        p = first + b
        members[b, 0] = p
        count = 1
        for c in range(k1):
            if mutual[p, c]:
                members[b, count] = ids[p, c]
                count += 1
        counts[b] = _expand(members[b], count, ids, mutual)


@compiled
def _sets_beside(near, similar, ids, similarities, mutual, counts, members):  # type: ignore[no-untyped-def]
    k1 = ids.shape[1]
    for b in range(len(counts)):
        count = 0
        for c in range(near.shape[1]):
            g = near[b, c]
            if g < 0:
                continue
            nearer = 0
            for d in range(k1):
                nearer += ids[g, d] >= 0 and similarities[g, d] >= similar[b, c]
            if nearer < k1:
                members[b, count] = g
                count += 1
        counts[b] = _expand(members[b], count, ids, mutual)


def _room(mutual: NDArray[np.bool_], k1: int) -> int:
    return int((k1 + 1) * (mutual.shape[1] - k1 + 1))


def expanded(
    first: int, last: int, ids: NDArray[np.int32], mutual: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """R*(p, k1) of rows [first, last): how many members, and which (b, room), rising."""
    counts = np.zeros(last - first, np.int64)
    members = np.empty((last - first, _room(mutual, ids.shape[1])), np.int32)
    _sets(first, ids, mutual, counts, members)
    return counts, members


def expanded_beside(
    near: NDArray[np.int32],
    similar: NDArray[np.float32],
    ids: NDArray[np.int32],
    similarities: NDArray[np.float32],
    mutual: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """R*(q, k1) of queries beside the rows, by their nearest; as `expanded`."""
    counts = np.zeros(len(near), np.int64)
    members = np.empty((len(near), _room(mutual, ids.shape[1])), np.int32)
    _sets_beside(near, similar, ids, similarities, mutual, counts, members)
    return counts, members
