"""Neighbours brought up to date by what came and what went, as if they were looked for anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resight.graph.neighbours import NONE, Ids, Method, Similarities, nearest_of_all, open_search

Marks = NDArray[np.uint64]
SHARE = 0.2  # changed rows beyond which all is looked for anew
_CELLS = 2**23


def marks(vectors: NDArray[np.float32]) -> Marks:
    """(N,) one number a row (D,), by which a changed vector is known."""
    random = np.random.default_rng(0)
    bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32)
    odd = random.integers(0, 2**63, bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    found = np.empty(len(bits), np.uint64)
    for start in range(0, len(bits), 4096):
        part = bits[start : start + 4096].astype(np.uint64)
        part ^= part << np.uint64(29)
        found[start : start + 4096] = (part * odd).sum(axis=1, dtype=np.uint64)
    return found


def updated(
    vectors: NDArray[np.float32],
    k: int,
    before: NDArray[np.int64],
    ids: Ids,
    similarities: Similarities,
    method: Method = "exact",
) -> tuple[Ids, Similarities]:
    """Neighbours (N, k) of unit rows `vectors` (N, D), from those of an earlier state.

    before (N,): the row's place in the earlier state, -1 where it is new or changed; places rise.
    ids, similarities (M, k): the earlier neighbours. The same as a new search, up to the rounding
    of products.
    """
    n, old = len(vectors), len(ids)
    stays, new = np.flatnonzero(before >= 0), np.flatnonzero(before < 0)
    gone = old - len(stays)
    if len(new) + gone > SHARE * n or ids.shape[1] != k:
        return nearest_of_all(vectors, k, method=method)
    place = np.full(old + 1, -1, np.int32)
    place[before[stays]] = stays
    found, near = np.full((n, k), -1, np.int32), np.full((n, k), NONE, np.float32)
    found[stays], near[stays] = place[ids[before[stays]]], similarities[before[stays]]
    lost = ((found[stays] < 0) & (ids[before[stays]] >= 0)).any(axis=1)
    again = np.sort(np.concatenate([new, stays[lost]]))
    if len(again):
        search = open_search(vectors, k, method=method)
        for start in range(0, len(again), 4096):
            rows = again[start : start + 4096]
            found[rows], near[rows] = search.ask(rows)
    if len(new):
        _enter(vectors, new, stays[~lost], found, near)
    return found, near


def _enter(
    vectors: NDArray[np.float32], new: NDArray[np.int64], rows: NDArray[np.int64],
    found: Ids, near: Similarities,
) -> None:  # fmt: skip
    """Put new rows into the lists of those that they are near enough to."""
    k = found.shape[1]
    step = max(1, _CELLS // len(new))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        table = vectors[some] @ vectors[new].T
        some_in = (table >= near[some, -1:]).any(axis=1)
        hit, table = some[some_in], table[some_in]
        if not len(hit):
            continue
        ids = np.concatenate([found[hit], np.broadcast_to(new, table.shape)], axis=1)
        values = np.concatenate([near[hit], table], axis=1)
        order = np.lexsort((ids, -values), axis=1)[:, :k]
        found[hit] = np.take_along_axis(ids, order, 1)
        near[hit] = np.take_along_axis(values, order, 1)
