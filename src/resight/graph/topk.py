"""The compiled loop behind the exact search: keep the k best of what passes by.

Compiled by numba on first use and kept on disk. A candidate is one uint64 key: its similarity
in the upper half, turned so that more similar is larger, and its row in the lower half, turned
so that an earlier row is larger. The best k keys are then the best k by (-similarity, row),
ties and all, and no two keys are equal.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from resight.compiled import compiled

_STEP = 16  # similarities compared at once before any of them is looked at
_LOW, _SIGN = np.uint64(0xFFFFFFFF), np.uint32(0x80000000)


_any_order = partial(compiled, fastmath={"nnan", "nsz", "reassoc"})


@_any_order
def _largest(row, begin):  # type: ignore[no-untyped-def]
    """The largest of _STEP values; finite ones, so that they may be compared in any order."""
    largest = row[begin]
    for i in range(_STEP):  # of fixed length: so it becomes a few vector instructions
        largest = max(largest, row[begin + np.uint64(i)])
    return largest


@compiled
def keep_best(keys, count, k):  # type: ignore[no-untyped-def]
    """Move the k largest of keys[:count] (count > k) to the front; the k-th largest stands last.

    Quickselect with the median of three as pivot; all keys differ.
    """
    low, high = 0, count  # the k-th largest lies in keys[low:high]
    while high - low > 1:
        a, b, c = low, (low + high) // 2, high - 1
        if keys[a] > keys[b]:
            a, b = b, a
        if keys[b] > keys[c]:
            b = a if keys[a] > keys[c] else c
        pivot = keys[b]
        keys[b] = keys[high - 1]
        place = low
        for i in range(
            low, high - 1
        ):  # without a branch: it would be guessed wrongly half the time
            key = keys[i]
            keys[i] = keys[place]
            keys[place] = key
            place += key > pivot
        keys[high - 1] = keys[place]
        keys[place] = pivot
        if place == k - 1:
            return
        if place < k - 1:
            low = place + 1
        else:
            high = place


@compiled
def _similarity(key):  # type: ignore[no-untyped-def]
    """The similarity in a key, as float32 bits (uint32)."""
    turned = np.uint32(key >> np.uint64(32))
    return np.uint32(turned ^ _SIGN) if turned & _SIGN else np.uint32(~turned)


@compiled
def take(  # type: ignore[no-untyped-def]
    first, last, tile, bits, rows, first_column, width, valid,
    k, keys, counts, bounds, bound_bits,
):  # fmt: skip
    """Take in, for rows [first, last) of a tile, the candidates that may be among the k best.

    tile (n, at least width) float32: similarities of the rows `rows` (n,) to those from
    `first_column` on; bits: the same memory as uint32; valid (N,) bool: rows that may be found.
    keys (n, more than k) uint64 and counts (n,): what each row holds so far; bounds (n,)
    float32: similarities up to it are of no use; bound_bits: the same memory as uint32.
    Columns must come in rising order: of equals the first stay.
    """
    room = keys.shape[1] - _STEP
    places = np.empty(_STEP + 1, np.int64)
    for r in range(first, last):
        row, row_bits, held = tile[r], bits[r], keys[r]
        own = rows[r] - first_column
        count, bound = counts[r], bounds[r]
        for begin in range(np.uint64(0), np.uint64(width), np.uint64(_STEP)):
            if not _largest(row, begin) > bound:
                continue
            some = 0
            for i in range(_STEP):  # without a branch: which ones pass is hard to guess
                places[some] = begin + np.uint64(i)
                some += row[begin + np.uint64(i)] > bound
            for i in range(some):
                c = places[i]
                raw = row_bits[c]
                if raw == _SIGN:
                    raw = np.uint32(0)  # -0.0 is 0.0
                turned = np.uint32(~raw) if raw & _SIGN else np.uint32(raw | _SIGN)
                key = (np.uint64(turned) << np.uint64(32)) | (_LOW - np.uint64(first_column + c))
                held[count] = key
                count += c < width and c != own and valid[first_column + c]
            if count > room:
                keep_best(held, count, k)
                count = k
                bound_bits[r] = _similarity(held[k - 1])
                bound = bounds[r]
        counts[r] = count


@compiled
def finish(first, last, k, keys, counts):  # type: ignore[no-untyped-def]
    """For rows [first, last): only the k best keys, best first; 0 where there are fewer."""
    for r in range(first, last):
        if counts[r] > k:
            keep_best(keys[r], counts[r], k)
        counts[r] = min(counts[r], k)
        held = keys[r, : counts[r]]
        held[:] = np.sort(held)[::-1]
        keys[r, counts[r] :] = 0
