"""The compiled loops that count what stands above each positive, on similarities as 16-bit levels.

A level is a whole number from 1 to 65535 that never falls as the similarity rises; 0 is hidden.
Levels decide all but the elements near a positive, which are looked at again, exactly. They take
half the room of float32, are compared sixteen and more at once, and make a tile cheap to turn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from resight.compiled import compiled
from resight.evaluate.ranking.kernels import dot

BY_ID, OPTIMISTIC, PESSIMISTIC = 0, 1, 2
KNEE = 8192  # the level where the finer part of a scale begins
TOP = 65000  # the level of its end: the rest is for what stands above
_FEW = 16  # positives: compared with one after the other
_CHUNK = 1024  # elements compared at once, before any of them is looked at
_RUN = 16384  # elements counted into buckets at once: below 2**15
_NEAR = 2**15  # marks a bucket that doesn't decide
_BUCKETS = 64, 2048  # at least and at most
_UNDER = 32  # buckets that take turns for what counts for nothing


class Asked(NamedTuple):
    """The state of Q queries with P positives in all, each query's from worst to best.

    indptr (Q + 1,) int64; index (P,) int32: gallery rows; low (P,) uint16: what lies below this
    level stands surely below the positive; exact (P,) float64 similarities, or (0,), and they are
    looked up in `Seen`; above (P,) int32: how many elements stand above. best (Q,) float64,
    best_index (Q,) int64: the best negative; best_level (Q,) uint16: the level it asks of others.
    """

    indptr: Any
    index: Any
    low: Any
    exact: Any
    above: Any
    best: Any
    best_level: Any
    best_index: Any


class Seen(NamedTuple):
    """What the levels of a tile (n, m) stand for.

    given (n, m) float64: the similarities; or (0, 0), and left (n, D), right (m, D) are the unit
    rows. ids (m,) int64: gallery rows of the columns. rows (G, D) and place (G,) int64, where
    queries hold no exact similarities: the unit rows, and which of them is which gallery row's.
    """

    given: Any
    left: Any
    right: Any
    ids: Any
    rows: Any
    place: Any


class Rules(NamedTuple):
    """reach: from `low` up this many levels are undecided; error: of what levels come from."""

    reach: int
    error: float
    ties: int


@compiled
def _level(value, scale):  # type: ignore[no-untyped-def]
    """The level of a value: a coarse line up to the knee, a fine one from there on.

    scale (7,): see `Levels`. All of one float type: the same arithmetic wherever it is asked.
    """
    fine = (value - scale[2]) * scale[3] + scale[4]
    coarse = (value - scale[0]) * scale[1]
    return np.int32(min(max(max(fine, min(coarse, scale[4])), scale[5]), scale[6]))


@compiled
def levels_of(values, scale, out):  # type: ignore[no-untyped-def]
    """The levels of values (n,), into out (n or more,) uint16."""
    for k in range(values.size):
        out[k] = _level(values[k], scale)


@compiled
def fill(first, last, tile, scales, out, row, column):  # type: ignore[no-untyped-def]
    """The levels of rows [first, last) of a tile, into out from (row, column) on.

    scales: (1, 7), or a row for each of the tile's.
    """
    for r in range(first, last):
        levels_of(tile[r], scales[min(r, len(scales) - 1)], out[row + r, column:])


@compiled
def hide(first, last, levels, row, column, width, indptr, index):  # type: ignore[no-untyped-def]
    """Hide from queries [first, last), whose lines begin at `row`, what their lists name.

    index: places; levels holds `width` of them, from `column` on.
    """
    for r in range(first, last):
        for entry in range(indptr[r], indptr[r + 1]):
            place = index[entry] - column
            if 0 <= place < width:
                levels[row + r, place] = 0


@compiled
def hide_turned(first, last, levels, row, height, indptr, index):  # type: ignore[no-untyped-def]
    """As `hide`, for queries that are the columns of levels; its lines are places from `row` on."""
    for r in range(first, last):
        for entry in range(indptr[r], indptr[r + 1]):
            place = index[entry] - row
            if 0 <= place < height:
                levels[place, r] = 0


@compiled
def turn(first, last, columns, levels, out):  # type: ignore[no-untyped-def]
    """Turn fours of rows [first, last) and all fours of columns: out[c, r] = levels[r, c].

    levels (n, m / 4) and out (m, n / 4) uint64: four levels a number, which are exchanged by
    shifts, several times as fast as one by one.
    """
    low, half = np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00000000FFFFFFFF)
    one, two = np.uint64(16), np.uint64(32)
    for c in range(columns):
        for r in range(first, last):
            a, b = levels[4 * r, c], levels[4 * r + 1, c]
            d, e = levels[4 * r + 2, c], levels[4 * r + 3, c]
            even, odd = (a & low) | ((b & low) << one), ((a >> one) & low) | (b & ~low)
            even_too, odd_too = (d & low) | ((e & low) << one), ((d >> one) & low) | (e & ~low)
            out[4 * c, r] = (even & half) | (even_too << two)
            out[4 * c + 1, r] = (odd & half) | (odd_too << two)
            out[4 * c + 2, r] = (even >> two) | (even_too & ~half)
            out[4 * c + 3, r] = (odd >> two) | (odd_too & ~half)


@compiled
def _similarity(seen, r, c):  # type: ignore[no-untyped-def]
    if seen.given.size:
        return seen.given[r, c]
    return dot(seen.left[r], seen.right[c])


@compiled
def _of_positive(asked, seen, r, entry):  # type: ignore[no-untyped-def]
    if asked.exact.size:
        return asked.exact[entry]
    return dot(seen.left[r], seen.rows[seen.place[asked.index[entry]]])


@compiled
def _stands_above(similarity, id_, positive, index, ties):  # type: ignore[no-untyped-def]
    if similarity != positive:
        return similarity > positive
    return ties == PESSIMISTIC or (ties == BY_ID and id_ < index)


@compiled
def _reaching(levels, bound):  # type: ignore[no-untyped-def]
    """How many levels are at least `bound`; of fewer than 2**16, so that sixteen go at once."""
    count = np.uint16(0)
    for k in range(levels.size):
        count = np.uint16(count + np.uint16(levels[k] >= bound))
    return np.int64(count)


@compiled
def _reaching_and_above(levels, low, high):  # type: ignore[no-untyped-def]
    """How many levels are at least `low`, and above `high`."""
    count, above = np.uint16(0), np.uint16(0)
    for k in range(levels.size):
        count = np.uint16(count + np.uint16(levels[k] >= low))
        above = np.uint16(above + np.uint16(levels[k] > high))
    return np.int64(count), np.int64(above)


@compiled
def _find_best(levels, r, q, asked, seen, error, scale):  # type: ignore[no-untyped-def]
    """The best negative of query q, with the elements of its row r."""
    cell = np.empty(1, scale.dtype)  # makes it of the scale's type
    for begin in range(0, levels.size, _CHUNK):
        chunk = levels[begin : begin + _CHUNK]
        if not _reaching(chunk, asked.best_level[q]):
            continue
        for k in range(chunk.size):
            if chunk[k] < asked.best_level[q]:
                continue
            c = begin + k
            similarity, best = _similarity(seen, r, c), asked.best[q]
            if similarity > best or (similarity == best and seen.ids[c] < asked.best_index[q]):
                asked.best[q], asked.best_index[q] = similarity, seen.ids[c]
                cell[0] = similarity - 2 * error
                asked.best_level[q] = _level(cell[0], scale)


@compiled
def _count_few(levels, r, start, stop, asked, seen, rules):  # type: ignore[no-untyped-def]
    """Compare the elements with one positive after the other, until none is reached."""
    for begin in range(0, levels.size, _CHUNK):
        chunk = levels[begin : begin + _CHUNK]
        for entry in range(start, stop):
            low = asked.low[entry]
            high = np.uint16(min(65535, np.int64(low) + rules.reach))
            reaching, sure = _reaching_and_above(chunk, low, high)
            if reaching == 0:
                break
            if reaching > sure:
                positive, index = _of_positive(asked, seen, r, entry), asked.index[entry]
                for k in range(chunk.size):
                    if low <= chunk[k] <= high:
                        c = begin + k
                        sure += _stands_above(
                            _similarity(seen, r, c), seen.ids[c], positive, index, rules.ties
                        )
            asked.above[entry] += sure


@compiled
def _find_buckets(levels, base, top, factor, buckets, spots):  # type: ignore[no-untyped-def]
    """The bucket of each level: equal parts of [base, top], one above it, and many below."""
    for k in range(levels.size):
        level = min(max(levels[k], base), top)
        spot = np.uint16((np.uint32(np.uint16(level - base)) * np.uint32(factor)) >> np.uint32(16))
        spot = spot if levels[k] <= top else np.uint16(buckets - 1)
        under = np.uint16(buckets + (k & (_UNDER - 1)))  # not one: each would wait for the last
        spots[k] = spot if levels[k] >= base else under


@compiled
def _count_into(spots, some, found, places):  # type: ignore[no-untyped-def]
    """Count the first `some` spots; the places of those that are marked near, and how many."""
    left = 0
    for k in range(some):
        spot = spots[k]
        count = np.int64(found[spot]) + 1
        found[spot] = count
        places[left] = k  # without a branch: which ones stay is hard to guess
        left += count >> 15
    return left


@compiled
def _mark(low, reach, base, top, factor, found, below, end):  # type: ignore[no-untyped-def]
    """Mark the buckets that a positive is near.

    below: how many positives lie surely below such a bucket; end (P,): the last bucket of each.
    """
    for k in range(low.size - 1, -1, -1):
        first = ((np.int64(low[k]) - base) * factor) >> 16
        last = ((min(np.int64(low[k]) + reach, top) - base) * factor) >> 16
        end[k] = last
        for spot in range(first, last + 1):
            found[spot] = _NEAR
            below[spot] = k


@compiled
def _count_many(levels, begin, r, start, stop, asked, seen, rules, buckets, rooms):  # type: ignore[no-untyped-def]
    """Count the elements by buckets; look at those whose bucket a positive is near."""
    spots, places, found, below, end, extra = rooms
    low, reach = asked.low[start:stop], rules.reach
    base = np.int64(low[0])
    top = min(65535, np.int64(low[-1]) + reach)
    factor = min(65535, ((buckets - 2) << 16) // (top - base + 1))
    found[: buckets + _UNDER] = 0
    _mark(low, reach, base, top, factor, found, below, end)
    _find_buckets(
        levels, np.uint16(base), np.uint16(top), np.uint16(factor), np.uint16(buckets), spots
    )
    left = _count_into(spots, levels.size, found, places)
    extra[: low.size + 1] = 0
    for k in range(left):
        level, place = np.int64(levels[places[k]]), below[spots[places[k]]]
        while place < low.size and np.int64(low[place]) + reach < level:
            place += 1
        if place < low.size and low[place] <= level:  # too near to tell
            c = begin + places[k]
            similarity = _similarity(seen, r, c)
            while place < low.size and _stands_above(
                similarity, seen.ids[c], _of_positive(asked, seen, r, start + place),
                asked.index[start + place], rules.ties,
            ):  # fmt: skip
                place += 1
        extra[place] += 1
    total, spot = 0, buckets
    for k in range(low.size - 1, -1, -1):
        total += extra[k + 1]
        while spot > end[k]:
            spot -= 1
            count = np.int64(found[spot])
            total += count if count < _NEAR else 0
        asked.above[start + k] += total


@compiled
def count(first, last, levels, width, row, asked, seen, rules, scales):  # type: ignore[no-untyped-def]
    """Count, for rows [first, last) of a tile, the elements that stand above each positive.

    levels (n, width or more) uint16: row r is that of query `row + r`; its positives, and what it
    doesn't see, are hidden. scales: see `fill`. Written are asked's above and best.
    """
    most = 0
    for q in range(row + first, row + last):
        most = max(most, asked.indptr[q + 1] - asked.indptr[q])
    run = min(_RUN, width) if most > _FEW else 0
    rooms = (
        np.empty(run, np.uint16), np.empty(run + 1, np.uint16),
        np.empty(_BUCKETS[1] + _UNDER, np.uint16), np.empty(_BUCKETS[1], np.int64),
        np.empty(most, np.int64), np.empty(most + 1, np.int64),
    )  # fmt: skip
    for r in range(first, last):
        line, q = levels[r, :width], row + r
        start, stop = asked.indptr[q], asked.indptr[q + 1]
        scale = scales[min(r, len(scales) - 1)]
        _find_best(line, r, q, asked, seen, rules.error, scale)
        if stop - start <= _FEW:
            _count_few(line, r, start, stop, asked, seen, rules)
            continue
        buckets = _BUCKETS[0]
        while buckets < min(_BUCKETS[1], 4 * (stop - start)):
            buckets *= 2
        for begin in range(0, width, _RUN):
            part = line[begin : begin + _RUN]
            _count_many(part, begin, r, start, stop, asked, seen, rules, buckets, rooms)
