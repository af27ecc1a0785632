"""The centroid gallery of CTL's released code, row by row, for comparison with its figures only.

Two faults (papers and users' reports: its issues 21 and 41). The gallery's cameras are read from
the wrong rows: that of gallery image i is the camera of row i of queries and gallery together, so
that images by the query's own camera stay in its object's centroid. And centroids are built
only for objects that some query has, so that every other object vanishes from the gallery.
Its third habit is kept too: an object has one centroid for each set of (wrongly read) cameras that
remains when one camera of its queries is left out, and a query sees, of its own object, those
whose set lacks its camera, of all other objects every one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking.csr import Csr, Ints, offsets
from resight.evaluate.ranking.result import GivenTruth, Ranks, Truth
from resight.evaluate.ranking.sources import Picked
from resight.evaluate.ranks import rank_blocks
from resight.evaluate.rules.truth import UNKNOWN, Matches
from resight.features.rows import Rows


@dataclass(frozen=True)
class LegacyGallery:
    """`vectors` (C, D) float64, not normalised; `object` (C,) codes; `first` (C,): the gallery
    place of a first image; `queries` (Q,): the rows that have a match; `truth`: theirs."""

    vectors: NDArray[np.float64]
    object: Ints
    first: Ints
    queries: Ints
    truth: Truth


def legacy_gallery(features: Rows, matches: Matches) -> LegacyGallery:
    """The centroids, and which of them are positives and junk of each query.

    features: (N, D) in the order of the table. The order of the rows is that of the image set, as
    the wrongly read cameras depend on it.
    """
    gallery = Picked(features, matches.gallery)
    together = np.concatenate((matches.camera[matches.queries], matches.camera[matches.gallery]))
    wrong = together[: len(matches.gallery)]
    objects = matches.object[matches.gallery]
    asking, seeing = matches.object[matches.queries], matches.camera[matches.queries]
    vectors: list[NDArray[Any]] = []
    owner: list[int] = []
    first: list[int] = []
    used: list[frozenset[int]] = []
    for name in np.unique(asking).tolist():
        places = np.flatnonzero(objects == name)
        if name == UNKNOWN or not len(places):
            continue
        rows = np.concatenate([gallery[int(p) : int(p) + 1] for p in places]).astype(np.float64)
        seen: set[frozenset[int]] = set()
        for camera in np.unique(seeing[asking == name]).tolist():
            kept = wrong[places] != camera
            cameras = frozenset(wrong[places][kept].tolist())
            if not kept.any() or cameras in seen:
                continue
            seen.add(cameras)
            vectors.append(rows[kept].mean(axis=0))
            owner.append(name)
            first.append(int(places[kept][0]))
            used.append(cameras)
    lists: list[tuple[list[int], list[int]]] = []
    by_object: dict[int, list[int]] = {}
    for column, name in enumerate(owner):
        by_object.setdefault(name, []).append(column)
    for name, camera in zip(asking.tolist(), seeing.tolist(), strict=True):
        own = by_object.get(name, [])
        junk = [column for column in own if camera in used[column]]
        lists.append(([column for column in own if column not in junk], junk))
    kept_queries = np.array([q for q, (right, _) in enumerate(lists) if right], dtype=np.int64)
    lists = [lists[q] for q in kept_queries]
    return LegacyGallery(
        np.stack(vectors) if vectors else np.zeros((0, gallery.shape[1])),
        np.array(owner, np.int64),
        np.array(first, np.int64),
        matches.queries[kept_queries],
        GivenTruth(_csr([right for right, _ in lists]), _csr([junk for _, junk in lists])),
    )


def legacy_ranks(
    found: LegacyGallery, features: Rows, protocol: Protocol, block_bytes: int
) -> Iterator[Ranks]:
    """The ranks of each query's own centroids in that gallery."""
    queries = Picked(features, found.queries)
    return rank_blocks(
        queries, found.vectors, found.truth, block_bytes=block_bytes, ties=protocol.ties
    )


def _csr(lists: list[list[int]]) -> Csr:
    counts = np.array([len(row) for row in lists], dtype=np.int64)
    return Csr(offsets(counts), np.array([v for row in lists for v in row], dtype=np.int64))
