"""The compiled loops of the ranking: normalise, compare, count. Called from many threads at once.

Compiled by numba on first use and kept on disk. Each works on the rows [first, last) of one tile;
the calls touch different rows, so that they need no locks.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from resight.compiled import compiled

# Only sums that are exact in any order (see units.py) may be reordered.
_any_order = partial(compiled, fastmath={"reassoc", "contract"})
_GRID = 2.0**26
_STEP = 128  # elements compared at once before any of them is looked at
_SQUARE = 16  # elements turned at once, each way
BY_ID, OPTIMISTIC, PESSIMISTIC = 0, 1, 2


@compiled
def normalise(rows, out):  # type: ignore[no-untyped-def]
    """L2-normalise rows (n, D) and round to multiples of 2**-26, into out (n, D) float32.

    The squares are added in eight lanes and these in order, whatever the processor, so that the
    norm has the same digits everywhere.
    """
    lanes = np.zeros(8)
    for r in range(rows.shape[0]):
        row = rows[r]
        largest = 0.0
        for value in row:
            largest = max(largest, abs(np.float64(value)))
        if largest == 0.0:
            out[r] = 0
            continue
        # Squares of huge and tiny float64 values overflow; powers of two take nothing off. Two of
        # them, as the reciprocal of the tiniest would overflow itself.
        one = two = 1.0
        if largest > 1e100 or largest < 1e-100:
            exponent = math.frexp(largest)[1]
            one = math.ldexp(1.0, -exponent // 2)
            two = math.ldexp(1.0, -exponent - -exponent // 2)
        lanes[:] = 0
        whole = row.size // 8 * 8
        for start in range(0, whole, 8):
            for k in range(8):
                value = np.float64(row[start + k]) * one * two
                lanes[k] += value * value
        for k in range(row.size - whole):
            value = np.float64(row[whole + k]) * one * two
            lanes[k] += value * value
        total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + (
            (lanes[4] + lanes[5]) + (lanes[6] + lanes[7])
        )
        scale = _GRID / np.sqrt(total)
        for k in range(row.size):
            out[r, k] = np.rint(np.float64(row[k]) * one * two * scale) * (1.0 / _GRID)


@_any_order
def dot(left, right):  # type: ignore[no-untyped-def]
    """The exact similarity of two unit rows, float64."""
    total = 0.0
    for k in range(left.size):
        total += np.float64(left[k]) * np.float64(right[k])
    return total


@compiled
def positive_similarities(  # type: ignore[no-untyped-def]
    first, last, left, right, first_column, indptr, index, out
):
    """The exact similarity of rows [first, last) to those of their positives in this block.

    left (n, D): the queries' unit rows; right (m, D): the gallery's from `first_column` on;
    indptr, index: the positives of each query; out: aligned to index.
    """
    for r in range(first, last):
        for entry in range(indptr[r], indptr[r + 1]):
            column = index[entry] - first_column
            if 0 <= column < right.shape[0]:
                out[entry] = dot(left[r], right[column])


@compiled
def order_positives(first, last, indptr, index, similarity, order):  # type: ignore[no-untyped-def]
    """For rows [first, last) the order of their positives from worst to best, into `order`.

    Worst is the lowest similarity, and among equal ones the highest index.
    """
    for r in range(first, last):
        start, stop = indptr[r], indptr[r + 1]
        falling = np.argsort(-index[start:stop], kind="mergesort")
        rising = np.argsort(similarity[start:stop][falling], kind="mergesort")
        for k in range(stop - start):
            order[start + k] = start + falling[rising[k]]


@compiled
def _bucket(value, floor, scale, last):  # type: ignore[no-untyped-def]
    """Which of the equal parts above `floor` a value lies in: never falls as the value rises.

    All of one float type, so that it is the same arithmetic wherever it is asked.
    """
    return np.uint32(min(last, (value - floor) * scale))  # in this order: a NaN (inf * 0) is last


@compiled
def _reaching(values, bound):  # type: ignore[no-untyped-def]
    """How many values are at least `bound`."""
    count = 0
    for k in range(values.size):  # by index: so it becomes vector instructions
        count += values[k] >= bound
    return count


@compiled
def _reaching_and_above(values, low, high):  # type: ignore[no-untyped-def]
    """How many values are at least `low`, and how many are above `high`."""
    count = above = 0
    for k in range(values.size):
        count += values[k] >= low
        above += values[k] > high
    return count, above


@compiled
def _stands_above(similarity, column, exact, index, ties):  # type: ignore[no-untyped-def]
    """Whether gallery row `column` stands above a positive: row `index`, of similarity `exact`."""
    before = ties == PESSIMISTIC or (ties == BY_ID and column < index)
    return similarity > exact or (similarity == exact and before)


@compiled
def _pick(values, bound, places):  # type: ignore[no-untyped-def]
    """Write where the values that reach `bound` stand; how many there are."""
    some = 0
    for k in range(values.size):  # without a branch: which ones pass is hard to guess
        places[some] = k
        some += values[k] >= bound
    return some


@compiled
def _find_buckets(values, floor, scale, last, spots):  # type: ignore[no-untyped-def]
    """The bucket of each value; of one below the floor, any."""
    for k in range(values.size):
        spots[k] = _bucket(values[k], floor, scale, last)


@compiled
def _count_sure(places, some, spots, known_of, counts):  # type: ignore[no-untyped-def]
    """Count the elements whose bucket decides; the places of the others, and how many are left."""
    left = 0
    for k in range(some):
        place = places[k]
        known = known_of[spots[place]]
        places[left] = place
        left += known < 0
        counts[max(known, 0)] += 1  # the first counts nothing
    return left


@compiled
def make_tables(first, last, few, indptr, floor, low, high, scale, end, table):  # type: ignore[no-untyped-def]
    """For rows [first, last) of more than `few` positives: what is known of an element by its
    bucket alone, into `table`.

    The number of thresholds that it stands above; or, where a threshold is near the bucket, -1
    minus the number that lie surely below, from which the search goes on.
    """
    buckets = table.shape[1]
    for r in range(first, last):
        start, stop = indptr[r], indptr[r + 1]
        if stop - start <= few:
            continue
        width = high[stop - 1] - floor[r]
        scale[r] = (buckets - 1) / width if width > 1e-30 else 0.0
        below = 0
        for bucket in range(buckets):
            while start + below < stop and (
                _bucket(high[start + below], floor[r], scale[r], end[0]) < bucket
            ):
                below += 1
            near = start + below < stop and (
                _bucket(low[start + below], floor[r], scale[r], end[0]) <= bucket
            )
            table[r, bucket] = -1 - below if near else below


@compiled
def turn(first, last, tile, out):  # type: ignore[no-untyped-def]
    """out[c, r] = tile[r, c] for the columns [first, last), small squares at a time."""
    for c in range(first, last, _SQUARE):
        for r in range(0, tile.shape[0], _SQUARE):
            for column in range(c, min(c + _SQUARE, last)):
                for row in range(r, min(r + _SQUARE, tile.shape[0])):
                    out[column, row] = tile[row, column]


@compiled
def count_tile(  # type: ignore[no-untyped-def]
    first, last, tile, left, right, first_column, given, error, ties, few,
    indptr, low, high, exact, index, floor, scale, end, table, junk_indptr, junk,
    above, best, best_low, best_index,
):  # fmt: skip
    """Count, for rows [first, last) of a tile, the negatives that stand above each positive.

    tile (n, m): the similarities of n queries to the gallery rows from `first_column` on, within
    `error` of the exact ones; `given`: they are the exact ones, and left, right aren't read. left
    (n, D), right (m, D): the unit rows they come from. indptr (n + 1,), exact, index, low, high:
    the positives of each query from worst to best, and float bounds around their similarity. Up to
    `few` of them are compared with one after the other, all elements at once.
    floor (n,): below it nothing counts. scale (n,), end (1,), table (n, buckets): see above.
    junk_indptr, junk: gallery rows that a query doesn't see. Written are: above, where an element
    that stands above the k worst positives of its query counts for the k-th; best, best_low,
    best_index (n,): the best negative.
    """
    last_bucket = end[0]
    width = tile.shape[1]
    places, spots = np.empty(_STEP + 1, dtype=np.uint32), np.empty(_STEP, dtype=np.uint32)
    most = 0
    for r in range(first, last):
        most = max(most, indptr[r + 1] - indptr[r])
    row_above = np.zeros(most + 1, dtype=np.int64)  # for how many positives an element stands above
    for r in range(first, last):
        row = tile[r]
        start, stop = indptr[r], indptr[r + 1]
        for entry in range(start, stop):
            column = index[entry] - first_column
            if 0 <= column < width:
                row[column] = -np.inf
        for entry in range(junk_indptr[r], junk_indptr[r + 1]):
            column = junk[entry] - first_column
            if 0 <= column < width:
                row[column] = -np.inf
        lowest, slope, known_of = floor[r], scale[r], table[r]
        row_above[:] = 0
        for begin in range(0, width, _STEP):
            near = row[begin : min(begin + _STEP, width)]
            gate = best_low[r]
            passing, leading = _reaching(near, lowest), _reaching(near, gate)
            if leading > 0:
                for k in range(near.size):
                    if near[k] < best_low[r]:
                        continue
                    c = begin + k
                    similarity = np.float64(near[k]) if given else dot(left[r], right[c])
                    column = c + first_column
                    if similarity > best[r] or (similarity == best[r] and column < best_index[r]):
                        best[r] = similarity
                        best_index[r] = column
                        best_low[r] = similarity - 2 * error
            if passing == 0:
                continue
            if stop - start <= few:
                for place in range(start, stop):
                    reaching, over = _reaching_and_above(near, low[place], high[place])
                    if reaching == 0:
                        break
                    for k in range(near.size if reaching > over else 0):
                        if low[place] <= near[k] <= high[place]:  # too near to tell
                            c = begin + k
                            similarity = np.float64(near[k]) if given else dot(left[r], right[c])
                            over += _stands_above(
                                similarity, c + first_column, exact[place], index[place], ties
                            )
                    row_above[place - start] -= over
                    row_above[place - start + 1] += over
                continue
            some = _pick(near, lowest, places)
            _find_buckets(near, lowest, slope, last_bucket, spots)
            some = _count_sure(places, some, spots, known_of, row_above)
            for k in range(some):  # those that their bucket doesn't decide
                value = near[places[k]]
                place = start - 1 - int(known_of[spots[places[k]]])
                while place < stop and high[place] < value:
                    place += 1
                if place < stop and low[place] <= value:  # too near to tell
                    c = begin + int(places[k])
                    similarity = np.float64(value) if given else dot(left[r], right[c])
                    while place < stop and _stands_above(
                        similarity, c + first_column, exact[place], index[place], ties
                    ):
                        place += 1
                row_above[place - start] += 1
        for k in range(stop - start):
            above[start + k] += row_above[k + 1]


@compiled
def finish(first, last, indptr, above):  # type: ignore[no-untyped-def]
    """Turn the counts of rows [first, last) into ranks, from worst to best, in place."""
    for r in range(first, last):
        total = 0
        for k in range(indptr[r + 1] - 1, indptr[r] - 1, -1):
            total += above[k]
            above[k] = total + indptr[r + 1] - k
