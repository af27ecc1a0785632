"""Neighbours where sources (cameras, artists, sessions) each make their images alike.

What a source does to all of its images is taken off with its mean; then each image asks in every
source on its own, so that the one where things look most alike does not take all places.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from resight.graph.neighbours import NONE

MOST = 10  # sources: with more than these each has too few images to compare
_NOTHING = 1e-6  # length that rounding leaves of a unit vector taken off itself

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


def centred(unit: Floats, sources: Rows) -> tuple[Floats, NDArray[np.bool_]]:
    """Unit rows (N, D) without the mean of their source (N,), at unit length again.

    Of a source's only image nothing is left: the second array (N,) names such rows, zero now.
    """
    out = np.array(unit, np.float32)
    for source in np.unique(sources):
        out[sources == source] -= out[sources == source].mean(0)
    length = np.linalg.norm(out, axis=1)
    gone = length < _NOTHING
    out[gone] = 0
    return np.ascontiguousarray(out / np.where(gone, 1, length)[:, None]), gone


def nearest_across(unit: Floats, sources: Rows, k: int) -> tuple[NDArray[np.int32], Floats]:
    """The k nearest rows in each source, source by source: ids and similarities (N, S · k).

    -1 and -2 where a source has no more. In the row's own source itself is left out, and there
    are neighbours only where the source sees things often: where its images' nearest are no
    further within it than across.
    """
    rows, gone = centred(unit, sources)
    names = np.unique(sources)
    places = [np.flatnonzero((sources == name) & ~gone) for name in names]
    ids = np.full((len(rows), len(names) * k), -1, np.int32)
    similar = np.full(ids.shape, NONE, np.float32)
    for b, there in enumerate(places):
        if not len(there):
            continue
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows[there])
        asking = np.flatnonzero(~gone)
        found, at = index.search(rows[asking], min(k + 1, len(there)))
        others = np.where(at >= 0, there[at], -1)
        others[others == asking[:, None]] = -1
        found = np.where(others >= 0, found, NONE)
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        columns = slice(b * k, b * k + order.shape[1])
        ids[asking, columns] = np.take_along_axis(others, order, 1)
        similar[asking, columns] = np.take_along_axis(found, order, 1)
    for b, there in enumerate(places):
        columns = slice(b * k, (b + 1) * k)
        across = np.delete(similar[there], np.arange(b * k, (b + 1) * k), axis=1)
        if across.size and similar[there][:, b * k].mean() < across.max(1).mean():
            ids[there, columns], similar[there, columns] = -1, NONE
    return ids, similar
