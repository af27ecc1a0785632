"""Diffusion for a query that is no node of the graph: it starts at its neighbours, who are.

Iscen et al., "Efficient Diffusion on Region Manifolds", CVPR 2017, section 4.2; with the rows of F
made beforehand it is one product: y F, y holding the similarities of the nearest, cubed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resight.graph.diffusion import Diffused
from resight.graph.graph import POWER
from resight.graph.neighbours import Ids
from resight.graph.sparse import Sparse, weighted

NEAREST = 10


def from_neighbours(
    diffused: Diffused, ids: Ids, similarities: NDArray[np.floating], power: float = POWER
) -> Sparse:
    """How much arrives at each image of the graph, (Q, N), at most 1.

    ids, similarities (Q, n): each query's nearest images, -1 for none. Their weights,
    max(s, 0)^power, sum to 1; a query with no similarity above 0 reaches nothing.
    """
    there = ids >= 0
    raw = np.where(there, np.maximum(similarities, 0).astype(np.float64) ** power, 0)
    sums = raw.sum(axis=1, keepdims=True)
    members = np.where(there & (raw > 0), ids, -1).astype(np.int32)
    n, top = diffused.neighbours.shape
    rows = Sparse(
        np.arange(n + 1, dtype=np.int64) * top,
        np.asarray(diffused.neighbours).reshape(-1),
        np.asarray(diffused.values).reshape(-1),
    )
    weights = (raw / np.where(sums > 0, sums, 1)).astype(np.float32)
    return weighted(members, weights, rows, n, diagonal=1.0)


def attached(
    built: Diffused,
    before: NDArray[np.int64],
    ids: Ids,
    similarities: NDArray[np.floating],
    n: int = NEAREST,
) -> Diffused:
    """The rows of a diffusion after a few changes, without another one.

    before (N,): each row's place when F was built, -1 for what came since; ids, similarities
    (N, k): the neighbours now. What is gone is struck out. What came stands outside the graph as a
    query does, at its n nearest that were there: what arrives at these arrives at it, both ways.
    """
    old, top = built.neighbours.shape
    stays, new = np.flatnonzero(before >= 0), np.flatnonzero(before < 0)
    place = np.full(old + 1, -1, np.int32)
    place[before[stays]] = stays
    rows = np.full((len(before), top), -1, np.int32)
    values = np.zeros((len(before), top), np.float32)
    rows[stays] = place[built.neighbours[before[stays]]]
    values[stays] = np.where(rows[stays] >= 0, built.values[before[stays]], 0)
    known = np.where((ids[new] >= 0) & (before[ids[new]] >= 0), ids[new], -1)[:, :n]
    found = from_neighbours(Diffused(rows, values), known, similarities[new, :n])
    for at, row in enumerate(new):
        others, reach = found.row(at)
        order = np.argsort(-reach, kind="stable")[:top]
        rows[row, : len(order)], values[row, : len(order)] = others[order], reach[order]
        least = values[others[order]].argmin(axis=1)  # an empty place is 0
        better = reach[order] > values[others[order], least]
        there = others[order][better]
        rows[there, least[better]], values[there, least[better]] = row, reach[order][better]
    return Diffused(rows, values, dict(built.info) | {"attached": len(new)})
