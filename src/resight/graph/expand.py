"""Vectors made from their neighbours: expanded queries, and an augmented gallery.

αQE: a query becomes the sum of itself and its n nearest, each weighed by its similarity to the
power α; Radenović, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
TPAMI 2019, section 3.2 (α = 0: the average query expansion of Chum et al., ICCV 2007). The same for
the gallery's own vectors, once and for all: database-side augmentation (Turcot and Lowe, 2009;
Arandjelović and Zisserman, CVPR 2012).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resight.features.rows import Rows
from resight.graph.neighbours import Ids, nearest
from resight.graph.unit import unit_rows

NEAREST, ALPHA = 10, 3.0
_CELLS = 2**24  # numbers gathered at once


def expand(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float32],
    ids: Ids,
    similarities: NDArray[np.floating],
    alpha: float = ALPHA,
) -> NDArray[np.float32]:
    """Unit rows (Q, D): each of the unit rows `queries` plus its neighbours, Σ max(s, 0)^α x.

    vectors (N, D): unit rows; ids, similarities (Q, n): rows of these, -1 for none.
    """
    out = np.empty(queries.shape, np.float32)
    step = max(1, _CELLS // max(1, ids.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        there = ids[part] >= 0
        weights = np.maximum(similarities[part], 0).astype(np.float64) ** alpha  # 0 ** 0 is 1
        weights = np.where(there, weights, 0)
        near = vectors[np.where(there, ids[part], 0)].astype(np.float64)
        total = queries[part].astype(np.float64) + np.einsum("qn,qnd->qd", weights, near)
        out[part] = unit_rows(total)
    return out


def augment(vectors: Rows, n: int = NEAREST, alpha: float = ALPHA) -> NDArray[np.float32]:
    """Unit rows (N, D): each row expanded by its n nearest others, by cosine similarity.

    vectors (N, D) of any length. Raises UserError: n below 1.
    """
    unit = unit_rows(vectors)
    out = np.empty_like(unit)
    for start, ids, similarities in nearest(unit, n):
        part = slice(start, start + len(ids))
        out[part] = expand(unit[part], unit, ids, similarities, alpha)
    return out
