"""The rounds of the official centroid triplet loss on a processor, as one compiled call.

What ctl_rounds.py does in sixty calls of torch, with the same formulas: at batch sizes of training
most of their time is the calls'. In one thread, float32 or float64 as the embeddings.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from resight.compiled import compiled

# Sums in any order: several at once. Nothing else of fastmath, so that NaN and infinity show.
_any_order = partial(compiled, fastmath={"reassoc", "contract"})


@_any_order
def _dot(left, right):  # type: ignore[no-untyped-def]
    total = left[0] * 0
    for k in range(left.size):
        total += left[k] * right[k]
    return total


@compiled
def _add(out, by, values):  # type: ignore[no-untyped-def]
    """out += by * values, vectors."""
    for k in range(out.size):
        out[k] += by * values[k]


@compiled
def _mix(out, a, left, b, right):  # type: ignore[no-untyped-def]
    """out = a * left + b * right, vectors."""
    for k in range(out.size):
        out[k] = a * left[k] + b * right[k]


@compiled
def _gather(f, others, rows, owner, extra, extra_owner, left_out, queries, sums):  # type: ignore[no-untyped-def]
    """Queries (N, D) and the sums of ids' images (C, D), about the queries' mean."""
    middle = np.zeros(f.shape[1], f.dtype)
    for row in rows:
        _add(middle, f.dtype.type(1), f[row])
    middle /= f.dtype.type(len(rows))
    for i in range(len(rows)):
        _mix(queries[i], f.dtype.type(1), f[rows[i]], f.dtype.type(-1), middle)
        if left_out:
            _add(sums[owner[i]], f.dtype.type(1), queries[i])
    for i in range(len(extra)):
        _add(sums[extra_owner[i]], f.dtype.type(1), others[extra[i]])
        _add(sums[extra_owner[i]], f.dtype.type(-1), middle)
