"""The rounds of the official centroid triplet loss on a processor, as one compiled call.

The formulas of ctl_rounds.py, whose sixty calls of torch take most of their time for themselves at
the batch sizes of training. In one thread; float32 or float64, as the embeddings are.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from resight.compiled import compiled

# Sums in any order, several at once; nothing else of fastmath, so that NaN and infinity show.
_any_order = partial(compiled, fastmath={"reassoc", "contract"})


@_any_order
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = left.dtype.type(0)  # of the type of the vectors
    for k in range(left.size):
        total += left[k] * right[k]
    return total


@_any_order
def _dots(left, rows, first, out):  # type: ignore[no-untyped-def]
    """out[j] = left . rows[j] for j from `first` on; four at a time, as left is read once then."""
    none = left.dtype.type(0)
    j, n = first, len(out)
    while j + 4 <= n:
        a, b, c, d = none, none, none, none
        for k in range(left.size):
            value = left[k]
            a += value * rows[j, k]
            b += value * rows[j + 1, k]
            c += value * rows[j + 2, k]
            d += value * rows[j + 3, k]
        out[j], out[j + 1], out[j + 2], out[j + 3] = a, b, c, d
        j += 4
    while j < n:
        out[j] = _dot(left, rows[j])
        j += 1


@compiled
def _add(out, by, values):  # type: ignore[no-untyped-def]
    """out += by * values, vectors; by: of their type."""
    for k in range(out.size):
        out[k] += by * values[k]


@compiled
def _mix(out, a, left, b, right):  # type: ignore[no-untyped-def]
    """out = a * left + b * right, vectors; a, b: of their type."""
    for k in range(out.size):
        out[k] = a * left[k] + b * right[k]


@compiled
def _gather(f, others, plan, left_out, queries, sums):  # type: ignore[no-untyped-def]
    """Queries (N, D) and sums of ids' images (C, D), about the queries' mean."""
    rows, owner, _, extra, extra_owner, _ = plan
    one = f.dtype.type(1)
    middle = np.zeros(f.shape[1], f.dtype)
    for row in rows:
        _add(middle, one, f[row])
    middle /= len(rows)
    for i in range(len(rows)):
        _mix(queries[i], one, f[rows[i]], -one, middle)
        if left_out:
            _add(sums[owner[i]], one, queries[i])
    for i in range(len(extra)):
        _add(sums[extra_owner[i]], one, others[extra[i]])
        _add(sums[extra_owner[i]], -one, middle)


@compiled
def _nearest(queries, sums, share, sizes, left_out, near):  # type: ignore[no-untyped-def]
    """For each query, then each centroid, its nearest point of another id in its round.

    near (2, N): queries are 0..N-1, centroids N..2N-1; as ctl_rounds._nearest.
    """
    n, most = len(queries), sizes[0]
    qq = np.empty((most, most), queries.dtype)
    qs, ss = np.empty_like(qq), np.empty_like(qq)
    for i in range(most):
        _dots(sums[i], sums[:most], i, ss[i])
        for j in range(i):
            ss[i, j] = ss[j, i]
    squares, product = np.empty(2 * most, queries.dtype), np.empty(2 * most, queries.dtype)
    start = 0
    for size in sizes:
        block = queries[start : start + size]
        for i in range(size):
            _dots(block[i], block, i, qq[i, :size])
            _dots(block[i], sums[:size], 0, qs[i, :size])
            for j in range(i):
                qq[i, j] = qq[j, i]
        for i in range(size):
            square = ss[i, i] - 2 * qs[i, i] + qq[i, i] if left_out else ss[i, i]
            squares[i], squares[size + i] = qq[i, i], square * share[i] * share[i]
        for i in range(size):
            for side in range(2):
                for j in range(size):
                    to_sum, to_query = qs[i, j], qq[i, j]
                    if side == 1:
                        to_sum, to_query = ss[i, j], qs[j, i]
                        if left_out:
                            to_sum, to_query = to_sum - qs[i, j], to_query - qq[i, j]
                    if left_out:
                        to_sum -= to_query
                    by = share[i] if side == 1 else share.dtype.type(1)
                    product[j], product[size + j] = by * to_query, by * to_sum * share[j]
                best, least = -1, 0.0
                for other in range(2 * size):
                    score = squares[other] - 2 * product[other]
                    if other % size != i and (best < 0 or score < least):
                        best, least = other, score
                near[side, start + i] = best + start if best < size else best - size + start + n
        start += size


@compiled
def _triplets(queries, sums, plan, share, near, margin, left_out, want, to_f, to_sums):  # type: ignore[no-untyped-def]
    """The loss of all queries and centroids; the gradients by the images and by the sums are added.

    As ctl_rounds._triplets: [ d(x, c) - d(p, its nearest) + margin ]_+ for p = x and p = c. A
    gradient by a point a * query + b * sum goes to both.
    """
    rows, owner, sizes, _, _, _ = plan
    n, dim = queries.shape
    kind = queries.dtype.type
    one, none = kind(1), kind(0)
    points = np.empty((2, dim), queries.dtype)  # x and c
    apart, away = np.empty(dim, queries.dtype), np.empty(dim, queries.dtype)
    loss, start = 0.0, 0
    for size in sizes:
        weight = 1 / (2 * size * len(sizes))
        for i in range(start, start + size):
            mine = owner[i]
            b = share[mine]
            a = -b if left_out else none
            points[0] = queries[i]
            _mix(points[1], a, queries[i], b, sums[mine])
            _mix(apart, one, points[0], -one, points[1])
            far = math.sqrt(_dot(apart, apart))
            active = 0
            for side in range(2):
                other = near[side, i] % n
                theirs = owner[other]
                other_a, other_b = one, none
                if near[side, i] >= n:
                    other_b = share[theirs]
                    other_a = -other_b if left_out else none
                _mix(away, other_a, queries[other], other_b, sums[theirs])
                _add(away, -one, points[side])
                close = math.sqrt(_dot(away, away))
                hinge = far - close + margin
                if hinge <= 0:
                    continue
                loss += weight * hinge  # NaN too
                active += 1
                if not want or close == 0:
                    continue
                push = kind(weight / close)
                if other_a != 0:
                    _add(to_f[rows[other]], -push * other_a, away)
                if other_b != 0:
                    _add(to_sums[theirs], -push * other_b, away)
                if side == 0:
                    _add(to_f[rows[i]], push, away)
                else:
                    _add(to_f[rows[i]], push * a, away)
                    _add(to_sums[mine], push * b, away)
            if want and active and far != 0:
                pull = kind(weight * active / far)
                _add(to_f[rows[i]], pull * (one - a), apart)
                _add(to_sums[mine], -pull * b, apart)
        start += size
    return loss


@compiled
def rounds(f, others, plan, left_out, margin, want, to_f, to_others):  # type: ignore[no-untyped-def]
    """The loss; its gradients are added to to_f (B, D) and to_others, if wanted.

    f (B, D); others (R, D): the references, or f again (left_out), and to_others is to_f then.
    plan: as ctl_rounds.Plan, arrays of int64.
    """
    rows, owner, sizes, extra, extra_owner, images = plan
    queries = np.empty((len(rows), f.shape[1]), f.dtype)
    sums = np.zeros((len(images), f.shape[1]), f.dtype)
    _gather(f, others, plan, left_out, queries, sums)
    share = (1 / (images - 1 if left_out else images)).astype(f.dtype)
    near = np.empty((2, len(rows)), np.int64)
    _nearest(queries, sums, share, sizes, left_out, near)
    to_sums = np.zeros_like(sums)
    loss = _triplets(queries, sums, plan, share, near, margin, left_out, want, to_f, to_sums)
    if want:
        one = f.dtype.type(1)
        if left_out:
            for i in range(len(rows)):
                _add(to_f[rows[i]], one, to_sums[owner[i]])
        for i in range(len(extra)):
            _add(to_others[extra[i]], one, to_sums[extra_owner[i]])
    return loss
