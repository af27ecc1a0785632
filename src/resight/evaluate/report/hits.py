"""What the page shows beyond the scores: first hits of chosen queries, sampled negatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.csr import Ints
from resight.evaluate.objects import object_sums
from resight.evaluate.protocols import UNKNOWN
from resight.evaluate.scores import Scores
from resight.evaluate.sources import Picked
from resight.evaluate.units import Rows, exact_similarities, unit_rows

_BLOCK = 4096


@dataclass(frozen=True)
class Searched:
    """The gallery as it was searched: its vectors (G, D), and the table row that pictures each.

    `label` (G,): the object's code; -1 for unknown.
    """

    vectors: Rows
    row: Ints
    label: Ints


@dataclass(frozen=True)
class Hit:
    """One retrieved vector: its rank, the row that pictures it, its similarity, right or wrong."""

    rank: int
    row: int
    similarity: float
    right: bool


@dataclass(frozen=True)
class Negatives:
    """Similarities of sampled wrong pairs: `queries` x `gallery` vectors, positives left out."""

    similarity: NDArray[np.float64]
    queries: int
    gallery: int


def searched(scores: Scores, features: Rows) -> Searched:
    """The vectors that these scores' queries searched: images, or centroids of objects."""
    found = scores.matches
    if scores.protocol.level == "image":
        vectors: Rows = Picked(features, found.gallery)
        return Searched(vectors, found.gallery, found.object[found.gallery])
    objects, sums = object_sums(features, found, scores.protocol)
    row = found.gallery[objects.first]
    return Searched(sums.centroids(), row, found.object[row])


def first_hits(
    scores: Scores, features: Rows, gallery: Searched, queries: list[int], count: int
) -> list[list[Hit]]:
    """The first `count` hits of some queries (places in `scores.matches.queries`).

    Ranked as the scores are; at object level with each query's own centroid in its place.
    """
    found, ranks = scores.matches, scores.ranks
    chosen = np.array(sorted(set(queries)), dtype=np.int64)
    asked = unit_rows(Picked(features, found.queries[chosen])[0 : len(chosen)])
    best: list[list[tuple[float, int]]] = [[] for _ in chosen]
    for start in range(0, len(gallery.row), _BLOCK):
        block = unit_rows(np.asarray(gallery.vectors[start : start + _BLOCK]))
        similarity = exact_similarities(asked, block)
        for i, q in enumerate(chosen):
            _settle(scores, int(q), similarity[i], start)
            order = np.argsort(-similarity[i], kind="stable")[:count]
            merged = best[i] + [(-similarity[i, c], int(c) + start) for c in order]
            best[i] = sorted(merged)[:count]
    right = {int(q): set(ranks.index[ranks.indptr[q] : ranks.indptr[q + 1]]) for q in chosen}
    hits = {
        int(q): [
            Hit(rank, int(gallery.row[c]), -falling, c in right[int(q)])
            for rank, (falling, c) in enumerate(best[i], start=1)
            if np.isfinite(falling)
        ]
        for i, q in enumerate(chosen)
    }
    return [hits[q] for q in queries]


def _settle(scores: Scores, q: int, similarity: NDArray[np.float64], start: int) -> None:
    """Put in the positives' own similarities of one query, and hide its junk, in a block."""
    ranks = scores.ranks
    span = slice(ranks.indptr[q], ranks.indptr[q + 1])
    places = ranks.index[span] - start
    inside = (places >= 0) & (places < len(similarity))
    similarity[places[inside]] = ranks.similarity[span][inside]
    if scores.protocol.level == "image":
        junk = scores.matches.junk[q] - start
        similarity[junk[(junk >= 0) & (junk < len(similarity))]] = -np.inf


def first_right(scores: Scores, gallery: Searched, q: int) -> Hit:
    """The best positive of a query, wherever it stands."""
    ranks = scores.ranks
    entry = ranks.indptr[q]
    row = int(gallery.row[ranks.index[entry]])
    return Hit(int(ranks.rank[entry]), row, float(ranks.similarity[entry]), True)


def sample_negatives(
    scores: Scores, features: Rows, gallery: Searched, queries: int = 256, vectors: int = 1024
) -> Negatives:
    """Similarities between some queries and some gallery vectors of other objects (seed 0)."""
    rng = np.random.default_rng(0)
    found = scores.matches

    def pick(total: int, most: int) -> Ints:
        return np.sort(rng.choice(total, min(total, most), replace=False)).astype(np.int64)

    q, g = pick(len(found.queries), queries), pick(len(gallery.row), vectors)
    left = unit_rows(Picked(features, found.queries[q])[0 : len(q)])
    right = unit_rows(Picked(gallery.vectors, g)[0 : len(g)])
    label = gallery.label[g]
    other = (found.object[found.queries[q]][:, None] != label) | (label == UNKNOWN)
    return Negatives(exact_similarities(left, right)[other], len(q), len(g))
