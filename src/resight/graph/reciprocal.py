"""k-reciprocal encoding: how far the neighbourhoods of two images overlap.

Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. With
N(p, k) the k nearest of p:

R(p, k)    p, and those g of N(p, k) with p in N(g, k)                               (eq. 4)
R*(p, k)   R(p, k), joined by every R(q, k / 2), q in R(p, k), of which it holds two thirds (eq. 5)
V_p        exp(-d(p, g)) at each g of R*(p, k1), summing to 1; d = 1 - cosine         (eq. 7)
V'_p       the mean of V over p and its k2 - 1 nearest                               (eq. 11)
Jaccard    1 - sum_j min(V'_p, V'_g) / sum_j max(V'_p, V'_g)                         (eq. 10)

In the paper's form all queries and the gallery are one set (`encode` all of them). A query alone
with a gallery: see `Encoded.beside`. Nothing here is dense: rows of V have some tens of entries,
and those that overlap are found by lists of who has an entry in a column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.features.rows import Rows
from resight.graph.neighbours import Ids, Progress, Similarities, nearest_of_all
from resight.graph.reciprocal_kernels import dots, expanded, expanded_beside, mark_mutual
from resight.graph.sparse import BLOCK, Ints, Sparse, from_slots, joined, overlaps, weighted
from resight.graph.unit import unit_rows

K1, K2 = 20, 6
# Rows of what is asked and of what is there, (E,) int64 each -> their similarities (E,).
Similar = Callable[[Ints, Ints], NDArray[np.floating]]


@dataclass(frozen=True)
class Encoded:
    """N images encoded.

    ids (N, k1), similarities (N, k1): neighbours as `nearest` gives them. `mutual` (N, k1 + half)
    bool: whether the first k1 neighbours are reciprocal at k1, and the first k1 / 2 at that. `own`
    and `mean`: V and V'.
    """

    ids: Ids
    similarities: Similarities
    mutual: NDArray[np.bool_]
    own: Sparse
    mean: Sparse
    k2: int = K2

    def __len__(self) -> int:
        return len(self.ids)

    def among(self, asking: Ints, gallery: Ints) -> Sparse:
        """1 - Jaccard distance of some of the images to others, (len(asking), len(gallery)).

        The paper's form: all of them were encoded together.
        """
        found = self.mean.take(gallery).turned(len(self))
        return _shares(overlaps(self.mean.take(asking), found, len(gallery)), np.ones(len(asking)))

    def inverted(self) -> Sparse:
        """Who has an entry in each column of V': what `beside` looks up."""
        return self.mean.turned(len(self))

    def beside(
        self, ids: Ids, similarities: Similarities, similar: Similar, inverted: Sparse
    ) -> Sparse:
        """1 - Jaccard distance of queries, each alone beside these images: (Q, N).

        ids, similarities (Q, at least max(k1, k2 - 1)): each query's nearest of the images, -1 for
        none. The images' sets stay what they are without the query: q is among the k nearest of
        g where fewer than k of g's neighbours are at least as near to g. V_q has no entry at q
        itself, as none of the others has one there.
        """
        k1 = self.ids.shape[1]
        near = np.ascontiguousarray(ids[:, :k1], np.int32)
        parts = []
        for start in range(0, len(near), BLOCK):
            part = slice(start, start + BLOCK)
            sets = expanded_beside(
                near[part], np.ascontiguousarray(similarities[part, :k1], np.float32),
                self.ids, self.similarities, self.mutual,
            )  # fmt: skip
            own = _gaussian(_rows_of(*sets), similar, start)
            beside = np.ascontiguousarray(ids[part, : self.k2 - 1], np.int32)
            parts.append(_with_neighbours(own, self.own, beside))
        rows = joined(parts)
        sums = np.bincount(rows.rows(), rows.values, len(rows)).astype(np.float64)
        return _shares(overlaps(rows, inverted, len(self)), sums)


def encode(
    vectors: Rows,
    k1: int = K1,
    k2: int = K2,
    *,
    neighbours: tuple[Ids, Similarities] | None = None,
    progress: Progress = lambda done, total: None,
) -> Encoded:
    """Encode N images by their vectors (N, D), of any length.

    neighbours: ids and similarities (N, at least k1) of their nearest, best first, where they are
    known already. Equal similarities: the lower row is nearer. Memory: the unit vectors as float32
    (once more while neighbours are searched), and about 1 KB an image.
    """
    n = len(vectors)
    if neighbours is None:
        neighbours = nearest_of_all(vectors, max(k1, k2 - 1), progress=progress)
    wide = neighbours[0]
    ids = np.ascontiguousarray(wide[:, :k1])
    similarities = np.ascontiguousarray(neighbours[1][:, :k1])
    half = round(k1 / 2)
    mutual = np.zeros((n, k1 + half), np.bool_)
    mark_mutual(ids, half, mutual)
    unit = unit_rows(vectors)

    def similar(rows: Ints, columns: Ints) -> NDArray[np.float64]:
        out = np.empty(len(rows))
        dots(unit, rows, unit, columns, out)
        return out

    parts = [
        _gaussian(_rows_of(*expanded(start, min(start + BLOCK, n), ids, mutual)), similar, start)
        for start in range(0, n, BLOCK)
    ]
    own = joined(parts)
    return Encoded(ids, similarities, mutual, own, _mean(own, wide[:, : k2 - 1]), k2)


def _rows_of(counts: Ints, members: NDArray[np.int32]) -> Sparse:
    """Sets (b, room) of which the first `counts` count, without values yet."""
    starts = np.arange(len(members), dtype=np.int64) * members.shape[1]
    return from_slots(starts, counts, members.ravel(), np.zeros(members.size, np.float32))


def _gaussian(sets: Sparse, similar: Similar, first: int) -> Sparse:
    """V: exp(-(1 - cosine)), summing to 1 in each row."""
    rows = sets.rows()
    raw = np.exp(np.asarray(similar(rows + first, sets.indices.astype(np.int64)), np.float64) - 1)
    sums = np.bincount(rows, raw, minlength=len(sets))
    return Sparse(sets.indptr, sets.indices, (raw / sums[rows]).astype(np.float32))


def _mean(own: Sparse, near: Ids) -> Sparse:
    """V': the mean of V over each row and its neighbours."""
    members = np.concatenate([np.arange(len(own), dtype=np.int32)[:, None], near], axis=1)
    counts = (members >= 0).sum(axis=1, keepdims=True)
    weights = np.broadcast_to(1 / counts, members.shape).astype(np.float32)
    return weighted(members, weights, own, len(own))


def _with_neighbours(asked: Sparse, own: Sparse, near: Ids) -> Sparse:
    """The mean of each asked row and the rows of its neighbours."""
    counts = 1 + (near >= 0).sum(axis=1, keepdims=True)
    weights = np.broadcast_to(1 / counts, (len(near), near.shape[1] + 1)).astype(np.float32)
    return weighted(near, weights, own, len(own), first=asked)


def _shares(minima: Sparse, sums: NDArray[np.float64]) -> Sparse:
    """sum min / sum max, from sum min: the others' rows sum to 1, those asked to `sums`."""
    least = minima.values.astype(np.float64)
    values = least / (1 + sums[minima.rows()] - least)
    return Sparse(minima.indptr, minima.indices, values.astype(np.float32))
