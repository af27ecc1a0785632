"""What the page shows beyond the scores: the first hits of chosen queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.csr import Ints
from resight.evaluate.ranking.sources import Picked
from resight.evaluate.ranking.units import exact_similarities, unit_rows
from resight.evaluate.rules.legacy import legacy_gallery
from resight.evaluate.rules.objects import object_sums
from resight.evaluate.rules.parts import Part
from resight.evaluate.scores import Scores
from resight.features.rows import Rows

_BLOCK = 4096


@dataclass(frozen=True)
class Hit:
    """One retrieved vector: its rank, the row that pictures it, its similarity, right or wrong."""

    rank: int
    row: int
    similarity: float
    right: bool


@dataclass(frozen=True)
class _Searched:
    """The gallery of a part as it was searched: its vectors (G, D), and a table row for each.

    `own` (queries,): at object level the column of the query's object, or -1.
    """

    vectors: Rows
    row: Ints
    own: Ints | None


def first_hits(scores: Scores, queries: list[int], count: int) -> list[list[Hit]]:
    """The first `count` hits of some queries (rows of `scores.per_query`).

    Ranked as the scores are; at object level with each query's own centroid in its place. Rows are
    those of `scores.view`.
    """
    sizes = [len(part.matches.queries) for part in scores.parts]
    ends = np.cumsum(sizes)
    found: dict[int, list[Hit]] = {}
    for part, end, size in zip(scores.parts, ends.tolist(), sizes, strict=True):
        inside = sorted({q for q in queries if end - size <= q < end})
        if inside:
            places = np.array(inside, dtype=np.int64) - (end - size)
            found |= dict(zip(inside, _hits_of(scores, part, places, inside, count), strict=True))
    return [found[q] for q in queries]


def _hits_of(
    scores: Scores, part: Part, places: Ints, inside: list[int], count: int
) -> list[list[Hit]]:
    gallery = _searched(scores, part)
    asked = unit_rows(Picked(scores.features, part.matches.queries[places])[0 : len(places)])
    near = scores.per_query["right_similarity"]
    lists = [part.matches.truth.lists(q, q + 1) for q in places.tolist()]
    rescored = np.empty((0, 0))
    if part.scores is not None:
        rescored = np.concatenate([part.scores[q : q + 1] for q in places.tolist()])
    best: list[list[tuple[float, int]]] = [[] for _ in inside]
    for start in range(0, len(gallery.row), _BLOCK):
        block = unit_rows(np.asarray(gallery.vectors[start : start + _BLOCK]))
        similarity = (
            exact_similarities(asked, block)
            if part.scores is None
            else rescored[:, start : start + _BLOCK].copy()
        )
        for i, q in enumerate(inside):
            values = similarity[i]
            if gallery.own is not None:
                column = gallery.own[places[i]] - start
                if 0 <= column < len(values):
                    values[column] = near[q] if near[q] is not None else -np.inf
            else:
                _hide(values, lists[i][1].indices, start)
            order = np.argsort(-values, kind="stable")[:count]
            best[i] = sorted(best[i] + [(-values[c], int(c) + start) for c in order])[:count]
    right = [set(positives.indices.tolist()) for positives, _ in lists]
    if gallery.own is not None:
        right = [{int(gallery.own[q])} for q in places]
    return [
        [
            Hit(rank, int(gallery.row[c]), -falling, c in right[i])
            for rank, (falling, c) in enumerate(best[i], start=1)
            if np.isfinite(falling)
        ]
        for i in range(len(inside))
    ]


def _hide(values: NDArray[np.float64], junk: Ints, start: int) -> None:
    near = junk - start
    values[near[(near >= 0) & (near < len(values))]] = -np.inf


def _searched(scores: Scores, part: Part) -> _Searched:
    found = part.matches
    if scores.protocol.legacy:
        old = legacy_gallery(scores.features, found)
        return _Searched(old.vectors, found.gallery[old.first], None)
    if scores.protocol.level == "image":
        return _Searched(Picked(scores.features, found.gallery), found.gallery, None)
    objects, sums = object_sums(scores.features, found, scores.protocol)
    column = np.full(int(found.object.max(initial=0)) + 2, -1, dtype=np.int64)
    column[found.object[found.gallery]] = objects.code
    own = column[found.object[found.queries]]
    return _Searched(sums.centroids(), found.gallery[objects.first], own)


def first_right(scores: Scores, q: int) -> Hit | None:
    """The best positive of a query, wherever it stands; its row is one of `scores.table`."""
    row = scores.per_query.row(q, named=True)
    if row["right"] is None:
        return None
    return Hit(row["first_rank"], row["right"], row["right_similarity"], True)
