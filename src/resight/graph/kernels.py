"""The compiled loops of the graph: mutual neighbours, and pushes along its edges."""

from __future__ import annotations

import numpy as np

from resight.compiled import compiled


@compiled
def _back(neighbours, similarities, i, j):  # type: ignore[no-untyped-def]
    """The similarity that j gives i, or -2 where i is not among j's."""
    for c in range(neighbours.shape[1]):
        if neighbours[j, c] == i:
            return similarities[j, c]
    return np.float32(-2.0)


@compiled
def count_mutual(neighbours, similarities, counts):  # type: ignore[no-untyped-def]
    """counts (N,): with how many rows each is joined, see `graph.mutual`."""
    for i in range(neighbours.shape[0]):
        for c in range(neighbours.shape[1]):
            j = neighbours[i, c]
            if j >= 0 and j != i:
                back = _back(neighbours, similarities, i, j)
                counts[i] += back > -2.0 and similarities[i, c] + back > 0


@compiled
def fill_mutual(neighbours, similarities, power, indptr, indices, weights):  # type: ignore[no-untyped-def]
    """Fill the CSR arrays of `graph.mutual`, the other ends rising."""
    for i in range(neighbours.shape[0]):
        at = indptr[i]
        for c in range(neighbours.shape[1]):
            j = neighbours[i, c]
            if j < 0 or j == i:
                continue
            back = _back(neighbours, similarities, i, j)
            if back > -2.0 and similarities[i, c] + back > 0:
                indices[at] = j
                weights[at] = (0.5 * (similarities[i, c] + back)) ** power
                at += 1
        part = indices[indptr[i] : at]
        order = np.argsort(part)
        indices[indptr[i] : at] = part[order]
        weights[indptr[i] : at] = weights[indptr[i] : at][order]


@compiled
def push_rows(  # type: ignore[no-untyped-def]
    first, last, indptr, indices, weights, alpha, tolerance,
    estimate, residual, queue, waiting, found, values, own,
):  # fmt: skip
    """Rows [first, last) of (I - alpha S)^-1, the largest entries of each.

    S in CSR. found (rows, top) int32 and values (rows, top) float32 of the entries beside the
    diagonal, largest first, of equals the lower column, -1 and 0 where there are no more; own
    (rows,) the diagonal. estimate, residual (N,) float64 and waiting (N,) bool are zero before and
    after; queue (N + 1,) int32 any.

    What a node holds is left with it and its share passed on, while it is above `tolerance`:
    `residual` is what is still to be passed on, so that row = estimate + residual · (I - αS)^-1.
    """
    room = len(queue)
    touched = np.empty(1024, np.int32)
    for i in range(first, last):
        seen = 1
        touched[0] = i
        residual[i] = 1.0
        waiting[i] = True
        queue[0], head, tail = i, 0, 1
        while head != tail:
            u = queue[head]
            head = head + 1 if head + 1 < room else 0
            waiting[u] = False
            held = residual[u]
            residual[u] = 0.0
            estimate[u] += held
            passed = alpha * held
            for e in range(indptr[u], indptr[u + 1]):
                v = indices[e]
                if residual[v] == 0.0 and estimate[v] == 0.0:
                    if seen == len(touched):
                        longer = np.empty(2 * seen, np.int32)
                        longer[:seen] = touched
                        touched = longer
                    touched[seen] = v
                    seen += 1
                residual[v] += passed * weights[e]
                if residual[v] > tolerance and not waiting[v]:
                    waiting[v] = True
                    queue[tail] = v
                    tail = tail + 1 if tail + 1 < room else 0
        # What was not passed on is at least left where it is.
        own[i - first] = estimate[i] + residual[i]
        estimate[i], residual[i] = 0.0, 0.0
        _largest_entries(touched[1:seen], estimate, residual, found[i - first], values[i - first])


@compiled
def _largest_entries(touched, estimate, residual, found, values):  # type: ignore[no-untyped-def]
    """The largest of estimate + residual over `touched`, sorted; both are zeroed."""
    top, held, least = len(found), 0, np.float32(0)
    found[:], values[:] = -1, 0.0
    for t in range(len(touched)):
        v = touched[t]
        value = np.float32(estimate[v] + residual[v])
        estimate[v], residual[v] = 0.0, 0.0
        if value <= 0.0 or (held == top and (value < least or top == 0)):
            continue
        place = held if held < top else top - 1  # insertion: rows are short
        if held == top and value == least and v > found[place]:
            continue
        while place > 0 and (
            values[place - 1] < value or (values[place - 1] == value and found[place - 1] > v)
        ):
            values[place], found[place] = values[place - 1], found[place - 1]
            place -= 1
        values[place], found[place] = value, v
        held = min(held + 1, top)
        least = values[held - 1]
