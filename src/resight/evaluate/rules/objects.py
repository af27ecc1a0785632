"""Object level: the gallery is one centroid an object, each query's own object with care.

For a query of object p by camera c, p's centroid is built without the query's own image and, under
the cross-camera rule, without any image that c took; every other object competes with all its
images. It is image-level ranking on the centroids where the column of the query's own object
is replaced by a vector of the query's own (CTL, ICONIP 2021). CTL's released code does otherwise:
see legacy.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking.csr import Csr, Ints, offsets
from resight.evaluate.ranking.result import GivenTruth, Ranks, Tick
from resight.evaluate.ranking.sources import Picked
from resight.evaluate.ranks import rank_blocks
from resight.evaluate.rules.truth import UNKNOWN, Matches
from resight.features.rows import Rows
from resight.search.centroids import CentroidSums


@dataclass(frozen=True)
class ObjectGallery:
    """The objects of a gallery, by their first image.

    `code` (G,): the object's column of each gallery image; an image of unknown object is an object
    of its own. `first` (columns,): the place in the gallery of each object's first image.
    """

    code: Ints
    first: Ints


def object_gallery(matches: Matches) -> ObjectGallery:
    """Give each object of the gallery its column."""
    objects = matches.object[matches.gallery]
    places = np.arange(len(objects))
    unknown = objects == UNKNOWN
    label = np.where(unknown, matches.object.max(initial=0) + 1 + places, objects)
    _, first, code = np.unique(label, return_index=True, return_inverse=True)
    by_first = np.argsort(first)
    column = np.empty_like(by_first)
    column[by_first] = np.arange(len(by_first))
    return ObjectGallery(column[code], first[by_first])


def object_sums(
    features: Rows, matches: Matches, protocol: Protocol
) -> tuple[ObjectGallery, CentroidSums]:
    """The objects of the gallery and their sums, per camera where the protocol needs it."""
    objects = object_gallery(matches)
    gallery = Picked(features, matches.gallery)
    cameras = matches.camera[matches.gallery] if protocol.cross_camera else None
    return objects, CentroidSums.of(gallery, objects.code, cameras, len(objects.first))


def object_ranks(
    features: Rows, matches: Matches, protocol: Protocol, *, block_bytes: int,
    device: str = "cpu", tick: Tick = lambda queries: None,
) -> Iterator[Ranks]:  # fmt: skip
    """The rank of each query's own object among all objects of the gallery, by ranges of queries.

    features: (N, D), un-normalised, in the order of the table. `Ranks.index` is the object's column
    in `object_gallery`, `n_gallery` the number of objects it searched.
    """
    objects, sums = object_sums(features, matches, protocol)
    truth, own = object_truth(objects, matches)
    matched = matches.truth.counts() > 0
    return rank_blocks(
        Picked(features, matches.queries),
        sums.centroids(),
        truth,
        block_bytes=block_bytes,
        ties=protocol.ties,
        positive_rows=_OwnCentroids(sums, own, features, matches, protocol, matched),
        device=device,
        tick=tick,
    )


def object_truth(objects: ObjectGallery, matches: Matches) -> tuple[GivenTruth, Ints]:
    """The columns that are right, and each query's own column (Q,), -1 for none."""
    column = np.full(int(matches.object.max(initial=0)) + 2, -1, dtype=np.int64)
    column[matches.object[matches.gallery]] = objects.code  # the last place is that of unknown
    own = column[matches.object[matches.queries]]
    matched = matches.truth.counts() > 0
    # Where nothing of the own object is left for a query (an open set), its column is junk.
    spent = ~matched & (own >= 0)
    truth = GivenTruth(
        Csr(offsets(matched.astype(np.int64)), own[matched]),
        Csr(offsets(spent.astype(np.int64)), own[spent]),
    )
    return truth, own


class _OwnCentroids:
    """Row i: what is left of its object's centroid for the i-th matched query, made when sliced."""

    def __init__(
        self, sums: CentroidSums, own: Ints, features: Rows, matches: Matches,
        protocol: Protocol, matched: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        queries = matches.queries[matched]
        self._sums, self._own = sums, own[matched]
        self._queries = Picked(features, queries)
        camera = matches.camera[queries]
        self._camera = camera if protocol.cross_camera else np.full_like(camera, UNKNOWN)
        # Its own image is already out where its camera is, and where it isn't in the gallery.
        in_gallery = np.isin(queries, matches.gallery)
        self._takes_itself_off = in_gallery & (self._camera == UNKNOWN)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._own), self._sums.sums.shape[1])

    def __len__(self) -> int:
        return len(self._own)

    def __getitem__(self, key: slice) -> NDArray[np.float64]:
        sums, _ = self._sums.without_camera(self._own[key], self._camera[key])
        itself = self._takes_itself_off[key]
        if itself.any():
            sums[itself] -= self._queries[key][itself]
        return sums
