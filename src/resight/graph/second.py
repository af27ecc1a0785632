"""A second look at a search: chains of steps applied to a gallery's vectors and to queries.

Every step after the vectors' own turns a query's row of scores s (N,) into weight · s + a sparse
row: so the chain is exact on whole rows (`Rescored`), and on the few best of a search (`Prepared`).

kreciprocal   weight λ,  (1 - λ)(1 - Jaccard distance)
diffusion     weight 1e-4, what arrives
spatial       weight 1,  4 for each inlier of a verified pair: no cosine weighs as much
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.features.rows import Rows
from resight.graph.diffusion import Diffused, diffuse
from resight.graph.expand import augment, expand
from resight.graph.graph import mutual
from resight.graph.neighbours import Ids, Progress, Similarities, nearest_of_all
from resight.graph.outside import from_neighbours
from resight.graph.reciprocal import Encoded, Similar, encode
from resight.graph.rerank import Chain, Diffusion, KReciprocal, parse
from resight.graph.sparse import Ints, Sparse
from resight.graph.unit import best_of, products, unit_rows

PER_INLIER = 4.0
_CELLS = 2**23  # scores of rows made at once
# Places of queries and of gallery rows (P,) each -> how many inliers (P,).
Verify = Callable[[Ints, Ints], NDArray[np.integer]]


@dataclass(frozen=True)
class Prepared:
    """A gallery made ready for a chain: what `prepare` gives.

    vectors (N, D): unit rows, augmented where the chain says so. `encoded` with `inverted`, or
    `diffused`: what the chain's look at neighbourhoods stands on.
    """

    chain: Chain
    vectors: NDArray[np.float32]
    encoded: Encoded | None = None
    inverted: Sparse | None = None
    diffused: Diffused | None = None

    @property
    def near(self) -> int:
        """How many of its nearest a query must bring for the look; 0 where there is none."""
        look = self.chain.look
        if isinstance(look, KReciprocal):
            return max(look.k1, look.k2 - 1)
        return look.n if look is not None else 0

    def looked(
        self, ids: Ids, similarities: NDArray[np.floating], similar: Similar
    ) -> tuple[float, Sparse]:
        """weight and sparse rows of the look, for queries beside the gallery.

        ids, similarities (Q, `near`): their nearest of the gallery; similar: see `reciprocal`.
        """
        look = self.chain.look
        if isinstance(look, KReciprocal):
            assert self.encoded is not None and self.inverted is not None
            shares = self.encoded.beside(ids, similarities, similar, self.inverted)
            return look.weight, _scaled(shares, 1 - look.weight)
        assert look is not None and self.diffused is not None
        return look.weight, from_neighbours(self.diffused, ids, similarities)


def prepare(
    vectors: Rows,
    chain: Chain | str,
    *,
    neighbours: tuple[Ids, Similarities] | None = None,
    progress: Progress = lambda done, total: None,
) -> Prepared:
    """Make what a chain needs of a gallery (N, D), vectors of any length.

    neighbours: ids and similarities of the nearest of each, where they are known and there are
    enough of them (for a chain without dba).

    Raises UserError: a chain that can't be read.
    """
    chain = parse(chain)
    dba, look = chain.dba, chain.look
    unit = unit_rows(vectors) if dba is None else augment(vectors, dba.n, dba.alpha)
    if isinstance(look, KReciprocal):
        encoded = encode(unit, look.k1, look.k2, neighbours=neighbours, progress=progress)
        return Prepared(chain, unit, encoded, encoded.inverted())
    if isinstance(look, Diffusion):
        return Prepared(chain, unit, diffused=diffused_over(unit, look, progress, neighbours))
    return Prepared(chain, unit)


def diffused_over(
    vectors: Rows,
    look: Diffusion,
    progress: Progress,
    neighbours: tuple[Ids, Similarities] | None = None,
) -> Diffused:
    """F over the graph of mutual neighbours of vectors (N, D)."""
    if neighbours is None:
        neighbours = nearest_of_all(vectors, look.k, progress=progress)
    ids, near = neighbours
    graph = mutual(ids[:, : look.k], near[:, : look.k])
    return diffuse(graph, alpha=look.alpha, top=look.top)


def together(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], own: Ints, chain: Chain
) -> tuple[float, Sparse]:
    """weight and sparse rows (Q, N) of the look where all queries and the gallery are one set.

    gallery (N, D), queries (Q, D): unit rows; `own` (Q,): the gallery row that a query itself is,
    -1 for none; it stands in the set once.
    """
    look, count = chain.look, len(gallery)
    new = own < 0
    place = np.where(new, count + np.cumsum(new) - 1, own).astype(np.int64)
    everything = np.concatenate([gallery, queries[new]])
    seen = np.arange(count, dtype=np.int64)
    if isinstance(look, KReciprocal):
        shares = encode(everything, look.k1, look.k2).among(place, seen)
        return look.weight, _scaled(shares, 1 - look.weight)
    assert isinstance(look, Diffusion)
    found = diffused_over(everything, look, lambda done, total: None)
    ids, values = found.neighbours[place], found.values[place]
    ids = np.concatenate([place[:, None].astype(np.int32), ids], axis=1)  # 1 to itself
    values = np.concatenate([np.ones((len(place), 1), np.float32), values], axis=1)
    kept = (ids >= 0) & (ids < count)
    order = np.argsort(np.where(kept, ids, count), axis=1, kind="stable")
    ids, values = np.take_along_axis(ids, order, 1), np.take_along_axis(values, order, 1)
    kept = np.take_along_axis(kept, order, 1)
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
    return look.weight, Sparse(indptr, ids[kept], values[kept])


@dataclass
class Rescored:
    """Scores of queries (Q, D) by a chain, against the whole gallery: rows (Q, N) when sliced.

    `own` (Q,): the gallery row that is the query itself, -1 for none: it is nobody's neighbour of
    its own. `transductive`: queries and gallery are one set (k-reciprocal, diffusion). `verify`:
    counts inliers, for "spatial".
    """

    prepared: Prepared
    queries: Rows
    own: Ints | None = None
    transductive: bool = False
    verify: Verify | None = None
    _together: tuple[float, Sparse] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        chain = self.prepared.chain
        if self.own is None:
            self.own = np.full(len(self.queries), -1, np.int64)
        if self.transductive and chain.look is None:
            raise UserError(f"rerank {chain}: only kreciprocal and diffusion can be transductive")
        if chain.spatial is not None and self.verify is None:
            raise UserError(f"rerank {chain}: spatial compares pictures, and only vectors are here")
        if self.transductive:
            unit = unit_rows(self.queries)
            self._together = together(self.prepared.vectors, unit, self.own, chain)

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, N)."""
        return len(self.queries), len(self.prepared.vectors)

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, key: slice) -> NDArray[np.float64]:
        start, stop, _ = key.indices(len(self))
        out = np.empty((max(0, stop - start), self.shape[1]))
        if not out.size:
            return out
        step = max(1, _CELLS // self.shape[1])
        for at in range(start, stop, step):
            out[at - start : at - start + step] = self._rows(at, min(at + step, stop))
        return out

    def _rows(self, start: int, stop: int) -> NDArray[np.float64]:
        assert self.own is not None
        chain, vectors, own = self.prepared.chain, self.prepared.vectors, self.own[start:stop]
        asked = unit_rows(np.asarray(self.queries[start:stop]))
        scores = products(asked, vectors)
        if chain.aqe is not None:
            ids, near = best_of(scores, chain.aqe.n, own)
            scores = products(expand(asked, vectors, ids, near, chain.aqe.alpha), vectors)
        if chain.look is not None:
            weight, added = self._looked(scores, own, start, stop)
            scores *= weight
            scores[added.rows(), added.indices] += added.values
        if chain.spatial is not None:
            assert self.verify is not None
            ids, _ = best_of(scores, chain.spatial.top, own)
            row, column = np.nonzero(ids >= 0)
            places = ids[row, column].astype(np.int64)
            inliers = np.asarray(self.verify(row + start, places))
            scores[row, places] += PER_INLIER * np.where(
                inliers >= chain.spatial.min_inliers, inliers, 0
            )
        return scores

    def _looked(
        self, scores: NDArray[np.float64], own: Ints, start: int, stop: int
    ) -> tuple[float, Sparse]:
        if self._together is not None:
            weight, rows = self._together
            return weight, rows.take(np.arange(start, stop))
        ids, near = best_of(scores, self.prepared.near, own)
        return self.prepared.looked(ids, near, lambda row, column: scores[row, column])


def rerank(
    queries: Rows,
    gallery: Rows,
    how: str | Chain,
    k: int = 100,
    *,
    transductive: bool = False,
) -> tuple[Ids, NDArray[np.float64]]:
    """The k best of a gallery for each query, looked at a second time.

    queries (Q, D), gallery (N, D): vectors of any length; for the object level rows are centroids.
    how: "kreciprocal", "aqe:n=5+diffusion" and the like (see `resight.graph.rerank`). Returns
    gallery rows (Q, min(k, N)) int32 and scores float64, best first, of equals the lower row.
    transductive: all queries and the gallery are one set; else each query is alone with the
    gallery, and its answer does not depend on the others.

    Raises UserError: a chain that can't be read, or that needs pictures.
    """
    if queries.shape[1] != gallery.shape[1]:
        raise UserError(
            f"queries have {queries.shape[1]} dimensions, the gallery {gallery.shape[1]}"
        )
    rows = Rescored(prepare(gallery, how), queries, transductive=transductive)
    k = max(1, min(k, len(gallery)))
    step = max(1, _CELLS // max(1, len(gallery)))
    parts = [best_of(rows[at : at + step], k) for at in range(0, len(queries), step)]
    return (
        np.concatenate([np.zeros((0, k), np.int32), *(ids for ids, _ in parts)]),
        np.concatenate([np.zeros((0, k)), *(scores for _, scores in parts)]),
    )


def _scaled(rows: Sparse, by: float) -> Sparse:
    return Sparse(rows.indptr, rows.indices, (rows.values * by).astype(np.float32))
