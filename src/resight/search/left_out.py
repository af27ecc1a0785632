"""The gallery's own images as queries: each left out of its object, and of the whole gallery.

Everything is read off one table, the similarity of each image to each object: at image level that
to the object's most similar image, at object level that to its centroid (the sum of un-normalised
features, CTL, section 3.3). In the column of its own object an image is left out: it is no
neighbour of itself, and its centroid is (sum - x). The table comes in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resight.search.centroids import CentroidSums, l2_normalise

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Level = Literal["image", "object"]
# Similarities held at once: 32 MiB of float64.
_CELLS = 2**22


@dataclass(frozen=True)
class Nearest:
    """What M queries find in a gallery of objects.

    other (M,) float64 and other_object (M,): the best of the objects that are not the query's own
    (what it finds were its own not there). own (M,): the similarity to its own, the query itself
    left out. similarity (M, k) falling and objects (M, k): the k best. Nothing is -inf and -1.
    right (M, k): whether the hit is its own. Equal similarities: the object with the lower code
    first, its own last.
    """

    other: Floats
    other_object: Ints
    own: Floats
    similarity: Floats
    objects: Ints
    right: Bools

    @property
    def possible(self) -> Bools:
        """(M,): whether there is anything right to be found; not for an object's only image."""
        return np.isfinite(self.own)


def gaps(similarity: Floats) -> Floats:
    """The gap of each hit to the best other one, (Q, k) from falling similarities (Q, k).

    The first hit's is s_1 - s_2, 0 or more; that of a later one s_r - s_1, 0 or less. Where there
    is no other hit, the other counts as -1, the lowest cosine; of what is no hit (-inf) it is -inf.
    Ask for two hits at least, also where one is shown.
    """
    best = np.maximum(similarity[:, :1], -1.0)
    second = similarity[:, 1:2] if similarity.shape[1] > 1 else np.full_like(best, -1.0)
    first = similarity[:, :1] - np.maximum(second, -1.0)
    return np.concatenate([first, similarity[:, 1:] - best], axis=1)


def nearest(table: NDArray[Any], own: Ints, k: int = 5) -> Nearest:
    """Read a table (M, P) of similarities to objects 0..P-1; own (M,): the query's, -1 for none.

    Pairs that can't be compared are -inf. Raises ValueError for k below 2.
    """
    if k < 2:
        raise ValueError("k must be 2 at least: a gap is between two hits")
    rows, known = np.arange(len(table)), own >= 0
    others = np.array(table, np.float64)
    similarity = np.full((len(table), k + 1), -np.inf)
    objects = np.full((len(table), k + 1), -1, np.int64)
    similarity[known, k], objects[:, k] = others[known, own[known]], own
    others[known, own[known]] = -np.inf
    for place in range(min(k, others.shape[1])):
        objects[:, place] = others.argmax(axis=1)
        similarity[:, place] = others[rows, objects[:, place]]
        others[rows, objects[:, place]] = -np.inf
    objects[similarity == -np.inf] = -1
    first, first_object, mine = similarity[:, 0], objects[:, 0], similarity[:, k]
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    similarity = np.take_along_axis(similarity, order, axis=1)
    objects = np.take_along_axis(objects, order, axis=1)
    right = (objects == own[:, None]) & known[:, None]
    return Nearest(first, first_object, mine, similarity, objects, right)


def best_other(
    features: NDArray[Any],
    objects: Ints,
    level: Level,
    *,
    cameras: Ints | None = None,
    rows: Ints | None = None,
    k: int = 5,
) -> Nearest:
    """Every image as a query, left out of its object: what it finds, and were that not there.

    features (N, D) un-normalised; objects (N,) codes from 0; `rows` (M,): only these as queries.
    `cameras` (N,), -1 unknown: at image level, images of the query's camera are no neighbours; at
    object level its own centroid is without them (the protocol of re-identification).

    It costs M x N x D multiplications at image level, M x P x D at object level.
    """
    rows = np.arange(len(objects)) if rows is None else rows
    queried = None if cameras is None else cameras[rows]
    blocks = object_similarity(
        features[rows],
        features,
        objects,
        level,
        own=objects[rows],
        itself=rows,
        cameras=cameras,
        query_cameras=queried,
    )
    return _joined(blocks, objects[rows], k)


def queries_other(
    queries: NDArray[Any],
    own: Ints,
    features: NDArray[Any],
    objects: Ints,
    level: Level,
    *,
    query_cameras: Ints | None = None,
    cameras: Ints | None = None,
    k: int = 5,
) -> Nearest:
    """The same of separate query photos: queries (Q, D), own (Q,) the code of each one's object.

    -1 for a query whose object the gallery does not have. The rest as in `best_other`.
    """
    blocks = object_similarity(
        queries,
        features,
        objects,
        level,
        own=own,
        cameras=cameras,
        query_cameras=query_cameras,
    )
    return _joined(blocks, own, k)


def object_similarity(
    queries: NDArray[Any],
    features: NDArray[Any],
    objects: Ints,
    level: Level,
    *,
    own: Ints | None = None,
    itself: Ints | None = None,
    cameras: Ints | None = None,
    query_cameras: Ints | None = None,
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Blocks (rows, table (rows, P)) of the similarity of queries (M, D) to objects 0..P-1.

    `itself` (M,): each query's row among the features, left out of its object `own` (M,); -inf
    where nothing is left. P is the highest code + 1; a code without images has -inf.
    """
    if level == "image":
        yield from _by_image(queries, features, objects, itself, cameras, query_cameras)
    else:
        own = np.full(len(queries), -1) if own is None else own
        itself = np.full(len(queries), -1) if itself is None else itself
        yield from _by_centroid(queries, features, objects, own, itself, cameras, query_cameras)


def _by_image(
    queries: NDArray[Any],
    features: NDArray[Any],
    objects: Ints,
    itself: Ints | None,
    cameras: Ints | None,
    query_cameras: Ints | None,
) -> Iterator[tuple[slice, NDArray[Any]]]:
    order = np.argsort(objects, kind="stable")
    codes, starts = np.unique(objects[order], return_index=True)
    n_objects = int(codes[-1]) + 1 if len(codes) else 0
    dtype = np.result_type(queries, features, np.float32)
    gallery = np.empty((len(order), features.shape[1]), dtype)
    for block in _blocks(len(order), features.shape[1]):
        gallery[block] = l2_normalise(features[order[block]])
    place = np.argsort(order)  # of each image in the order
    for block in _blocks(len(queries), len(order)):
        tile = l2_normalise(queries[block]).astype(dtype) @ gallery.T
        if cameras is not None and query_cameras is not None:
            same = query_cameras[block][:, None] == cameras[order][None, :]
            tile[same & (cameras[order] >= 0)] = -np.inf
        if itself is not None:
            tile[np.arange(len(tile)), place[itself[block]]] = -np.inf
        table = np.full((len(tile), n_objects), -np.inf, dtype)
        if len(codes):
            table[:, codes] = np.maximum.reduceat(tile, starts, axis=1)
        yield block, table


def _by_centroid(
    queries: NDArray[Any],
    features: NDArray[Any],
    objects: Ints,
    own: Ints,
    itself: Ints,
    cameras: Ints | None,
    query_cameras: Ints | None,
) -> Iterator[tuple[slice, NDArray[Any]]]:
    sums = CentroidSums.of(features, objects, cameras)
    centroids = sums.centroids()
    taken = np.full(len(queries), -1) if query_cameras is None else query_cameras
    for block in _blocks(len(queries), len(centroids) + queries.shape[1]):
        unit = l2_normalise(queries[block])
        table = unit @ centroids.T
        table[:, sums.counts == 0] = -np.inf
        known = np.flatnonzero((own[block] >= 0) & ((itself[block] >= 0) | (taken[block] >= 0)))
        mine, camera, image = own[block][known], taken[block][known], itself[block][known]
        left, counts = sums.without_camera(mine, camera)
        # Its camera took the image as well, if known; else it is still to be taken off.
        still = np.flatnonzero((camera < 0) & (image >= 0))
        left[still] -= features[image[still]]
        counts[still] -= 1
        cosines = np.einsum("nd,nd->n", unit[known], l2_normalise(left))
        table[known, mine] = np.where(counts > 0, cosines, -np.inf)
        yield block, table


def _blocks(n_rows: int, width: int) -> Iterator[slice]:
    step = max(1, _CELLS // max(width, 1))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def _joined(blocks: Iterator[tuple[slice, NDArray[Any]]], own: Ints, k: int) -> Nearest:
    parts = [nearest(table, own[rows], k) for rows, table in blocks]
    if not parts:
        parts = [nearest(np.zeros((0, 0)), own, k)]
    names = ("other", "other_object", "own", "similarity", "objects", "right")
    return Nearest(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
