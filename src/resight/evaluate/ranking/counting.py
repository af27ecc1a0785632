"""The compiled loops that count what stands above each positive, on similarities as 16-bit levels.

A level is a whole number from 1 to 65535 that never falls as the similarity rises; 0 is hidden.
Levels decide all but the elements near a positive, which are looked at again, exactly. They take
half the room of float32, are compared sixteen and more at once, and make a tile cheap to turn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from resight.compiled import compiled
from resight.evaluate.ranking.kernels import dot_of

BY_ID, OPTIMISTIC, PESSIMISTIC = 0, 1, 2
KNEE = 8192  # the level where the finer part of a scale begins
TOP = 65000  # the level of its end: the rest is for what stands above
_PASSES = 12  # comparisons of all elements that cost as much as finding some of them
_PIECE = 128  # elements that are passed over when none of them counts
_FEW = 32  # one in so many elements is few
_CHUNK = 1024  # elements compared at once, before any of them is looked at
STRIP = 128  # columns turned at once: whole lines of the cache


class Asked(NamedTuple):
    """The state of Q queries with P positives in all, each query's from worst to best.

    indptr (Q + 1,) int64. exact (P,): similarities of the positives, float64; or float32, nearest
    to them, to save room. index (P,), start (Q,) int64: a positive of query q is the gallery row
    seen.order[start[q] + index]. above (P,) int32: how many elements stand above. best (Q,)
    float64, best_index (Q,) int64: the best negative; best_level (Q,) uint16: another's at least.
    """

    indptr: Any
    exact: Any
    index: Any
    start: Any
    above: Any
    best: Any
    best_level: Any
    best_index: Any


class Seen(NamedTuple):
    """What the levels of a tile (n, m) stand for.

    given (n, m) float64: the similarities; or (0, 0), and left (n, D), right (m, D) are the unit
    rows. ids (m,) int64: gallery rows of the columns. order (G,) int64: see `Asked`. rows (G, D)
    and place (G,) int64, where `exact` is rounded: the unit rows, and where a gallery row's is.
    """

    given: Any
    left: Any
    right: Any
    ids: Any
    order: Any
    rows: Any
    place: Any


class Rules(NamedTuple):
    """error: of what levels come from; slack: of `Asked.exact`; ties: a number from above."""

    error: float
    slack: float
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
def _turn(levels, column, columns, rows, out):  # type: ignore[no-untyped-def]
    """Turn fours of columns and rows: out[c, r] = levels[r, column + c].

    levels (n, m / 4), out (columns * 4, n / 4) uint64: four levels a number, exchanged by shifts,
    which is several times as fast as one by one.
    """
    low, half = np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00000000FFFFFFFF)
    one, two = np.uint64(16), np.uint64(32)
    for r in range(rows):
        for c in range(columns):
            at = column + c
            a, b = levels[4 * r, at], levels[4 * r + 1, at]
            d, e = levels[4 * r + 2, at], levels[4 * r + 3, at]
            even, odd = (a & low) | ((b & low) << one), ((a >> one) & low) | (b & ~low)
            even_too, odd_too = (d & low) | ((e & low) << one), ((d >> one) & low) | (e & ~low)
            out[4 * c, r] = (even & half) | (even_too << two)
            out[4 * c + 1, r] = (odd & half) | (odd_too << two)
            out[4 * c + 2, r] = (even >> two) | (even_too & ~half)
            out[4 * c + 3, r] = (odd >> two) | (odd_too & ~half)


@compiled
def hide(first, last, levels, column, width, indptr, index):  # type: ignore[no-untyped-def]
    """Hide from queries [first, last), rows of levels, what their lists name.

    index: places; levels holds `width` of them, from `column` on.
    """
    for r in range(first, last):
        for entry in range(indptr[r], indptr[r + 1]):
            place = index[entry] - column
            if 0 <= place < width:
                levels[r, place] = 0


@compiled
def hide_turned(first, last, levels, row, height, indptr, index):  # type: ignore[no-untyped-def]
    """As `hide`, for queries that are the columns of levels; its lines are places from `row` on."""
    for r in range(first, last):
        for entry in range(indptr[r], indptr[r + 1]):
            place = index[entry] - row
            if 0 <= place < height:
                levels[place, r] = 0


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
def _reaching_ones(levels, bound, places):  # type: ignore[no-untyped-def]
    """Write where the levels that reach `bound` stand; how many there are."""
    some = 0
    for k in range(levels.size):  # without a branch: which ones pass is hard to guess
        places[some] = k
        some += levels[k] >= bound
    return some


@compiled
def _between_ones(levels, low, high, places):  # type: ignore[no-untyped-def]
    """As `_reaching_ones`, of the levels from low to high: few, so most pieces are passed over."""
    some = 0
    for begin in range(0, levels.size, _PIECE):
        piece = levels[begin : begin + _PIECE]
        reaching, above = _reaching_and_above(piece, low, high)
        if reaching > above:
            for k in range(piece.size):
                places[some] = begin + k
                some += low <= piece[k] <= high
    return some


@compiled
def _bounds(exact, error, scale, low, high):  # type: ignore[no-untyped-def]
    """The levels around positives (P,): what lies outside of them is decided."""
    cell = np.empty(2, scale.dtype)
    cell[0] = error
    for k in range(exact.size):
        cell[1] = exact[k]
        low[k], high[k] = _level(cell[1] - cell[0], scale), _level(cell[1] + cell[0], scale)


@compiled
def _make_table(high, n, table):  # type: ignore[no-untyped-def]
    """How many of n positives lie surely below each 256 levels."""
    table[:] = n
    for k in range(n - 1, -1, -1):
        table[high[k] >> 8] = k
    for spot in range(len(table) - 2, -1, -1):
        table[spot] = min(table[spot], table[spot + 1])


@compiled
def _place(levels, some, places, low, high, table, first, steps, begin, open_, some_open, n):  # type: ignore[no-untyped-def]
    """Place elements among the n positives from `first` on; add the undecided ones to `open_`."""
    for k in range(some):
        level = levels[places[k]]
        place = max(first, np.int64(table[level >> 8]))
        for _ in range(3):  # more than this are rare: without a branch
            place += high[place] < level
        while high[place] < level:
            place += 1
        steps[place] -= 1
        if low[place] <= level:
            open_[some_open, 0], open_[some_open, 1] = begin + places[k], place
            open_[some_open, 2] = n
            some_open += 1
    steps[first] += some
    return some_open


@compiled
def _similarity(given, left, right, r, c):  # type: ignore[no-untyped-def]
    if given.size:
        return given[r, c]
    return dot_of(left, r, right, c)


@compiled
def _find_best(levels, begin, r, q, asked, seen, error, scale):  # type: ignore[no-untyped-def]
    """The best negative of query q, with elements of its row r, of which some reach its level."""
    cell = np.empty(1, scale.dtype)  # makes it of the scale's type
    best, best_index, least = asked.best[q], asked.best_index[q], asked.best_level[q]
    for start in range(0, levels.size, _PIECE):
        piece = levels[start : start + _PIECE]
        if not _reaching(piece, least):
            continue
        for k in range(piece.size):
            if piece[k] < least:
                continue
            c = begin + start + k
            similarity = _similarity(seen.given, seen.left, seen.right, r, c)
            if similarity > best or (similarity == best and seen.ids[c] < best_index):
                best, best_index = similarity, seen.ids[c]
                cell[0] = similarity - 2 * error
                least = _level(cell[0], scale)
    asked.best[q], asked.best_index[q], asked.best_level[q] = best, best_index, least


@compiled
def _settle(  # type: ignore[no-untyped-def]
    open_, some, r, start, exact, index, first, given, left, right, ids, order, rows, places,
    slack, ties, steps,
):  # fmt: skip
    """Move elements of row r, exactly, above as many positives as they are.

    open_ (some or more, 3): the column, and the positives to look at: first, and end. start, first:
    of the query, in exact and index, and in order. The arrays, not what holds them, as this is
    called for each row.
    """
    for one in range(some):
        c = open_[one, 0]
        similarity = _similarity(given, left, right, r, c)
        for place in range(open_[one, 1], open_[one, 2]):
            apart = similarity - exact[start + place]
            if abs(apart) <= slack:
                row = order[first + np.int64(index[start + place])]
                if slack > 0:
                    apart = similarity - dot_of(left, r, rows, places[row])
                if apart == 0:
                    before = ties == BY_ID and ids[c] < row
                    apart = 1 if before or ties == PESSIMISTIC else -1
            if apart < 0:
                break
            steps[place] += 1
            steps[place + 1] -= 1


@compiled
def count(first, last, levels, width, row, asked, seen, rules, scales):  # type: ignore[no-untyped-def]
    """Count, for rows [first, last) of a tile, the elements that stand above each positive.

    levels (n, width or more) uint16: row r is that of query `row + r`; its positives, and what it
    doesn't see, are hidden. scales: see `fill`. Written are asked's above and best.

    The positives of a query are compared from the worst one on, all elements at once. When few
    elements are left, or many positives have been, the others are placed among the positives that
    are left, one by one. An element above positives k to m adds 1 to steps[k] and takes it from
    steps[m].
    """
    indptr, exact, index, starts, above, _, best_level, _ = asked
    given, left, right, ids, order, unit, where = seen
    most = 0
    for q in range(row + first, row + last):
        most = max(most, indptr[q + 1] - indptr[q])
    low, high = np.empty(most + 4, np.uint16), np.empty(most + 4, np.uint16)
    steps, table = np.zeros(most + 5, np.int32), np.empty(257, np.int32)
    places, open_ = np.empty(_CHUNK + 1, np.uint16), np.empty((4 * _CHUNK, 3), np.int64)
    for r in range(first, last):
        q, some_open = row + r, 0
        start, n = indptr[q], indptr[q + 1] - indptr[q]
        scale = scales[min(r, len(scales) - 1)]
        _bounds(exact[start : start + n], rules.error, scale, low, high)
        low[n:], high[n:] = 65535, 65535  # what lies above all stays there
        if n > _PASSES:
            _make_table(high, n, table)
        for begin in range(0, width, _CHUNK):
            chunk = levels[r, begin : min(begin + _CHUNK, width)]
            if _reaching(chunk, best_level[q]):
                _find_best(chunk, begin, r, q, asked, seen, rules.error, scale)
            for k in range(n):
                reaching, sure = _reaching_and_above(chunk, low[k], high[k])
                if reaching == 0:
                    break
                if some_open + _CHUNK > len(open_):
                    _settle(
                        open_, some_open, r, start, exact, index, starts[q], given, left, right,
                        ids, order, unit, where, rules.slack, rules.ties, steps,
                    )  # fmt: skip
                    some_open = 0
                if n - k > _PASSES and (k >= 2 * _PASSES or reaching * _FEW < chunk.size):
                    some = _reaching_ones(chunk, low[k], places)
                    some_open = _place(
                        chunk, some, places, low, high, table, k, steps, begin, open_, some_open,
                        n,
                    )  # fmt: skip
                    break
                steps[k] += sure
                steps[k + 1] -= sure
                if reaching > sure:
                    some = _between_ones(chunk, low[k], high[k], places)
                    for one in range(some):
                        open_[some_open, 0], open_[some_open, 1] = begin + places[one], k
                        open_[some_open, 2] = k + 1
                        some_open += 1
        if some_open:
            _settle(
                open_, some_open, r, start, exact, index, starts[q], given, left, right, ids,
                order, unit, where, rules.slack, rules.ties, steps,
            )  # fmt: skip
        total = 0
        for k in range(n):
            total += steps[k]
            steps[k] = 0
            above[start + k] += total
        steps[n] = 0


@compiled
def count_columns(first, last, levels, height, width, row, asked, seen, rules, scales):  # type: ignore[no-untyped-def]
    """`count` for strips [first, last) of a tile's columns: column c is that of query `row + c`.

    levels (height or more, width or more), of whole strips; seen: of the turned tile.
    """
    turned = np.empty((STRIP, levels.shape[0] + STRIP), np.uint16)
    for strip in range(first, last):
        begin = strip * STRIP
        end = min(begin + STRIP, width)
        _turn(
            levels.view(np.uint64), begin // 4, (end - begin + 3) // 4, (height + 3) // 4,
            turned.view(np.uint64),
        )  # fmt: skip
        part = Seen(
            seen.given, seen.left[begin:end], seen.right, seen.ids, seen.order, seen.rows,
            seen.place,
        )  # fmt: skip
        count(0, end - begin, turned, height, row + begin, asked, part, rules, scales)
