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
