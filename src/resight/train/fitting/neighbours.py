"""Pairs of images that are among each other's nearest: they stand in for images of one object."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from resight.graph.across import MOST as MOST_SOURCES
from resight.graph.across import centred
from resight.models.closed_form import Pair, project

ROUNDS = (1, 2, 3, 3)  # neighbours that count, round by round
MOST = 50_000  # images that pairs are looked for in; more add little to a covariance
COPY = 0.9995  # similarity from which two images are taken for copies
_BLOCK = 4096
Rows = NDArray[np.int64]


def mutual_pairs(
    vectors: Any,
    valid: NDArray[np.bool_],
    pair: Pair,
    k: int,
    cameras: Rows | None = None,
) -> tuple[Rows, Rows]:
    """Rows (i, j), i < j, each among the other's k nearest by cosine after the projection `pair`.

    vectors (N, D), of which the `valid` (N,) bool take part; of very many an even sample. Where
    `cameras` (N,) int has from 2 to 10 values, each one's mean is taken off and only pairs across
    them count: what a source does to all its images makes them no more alike then.
    """
    rows = np.flatnonzero(valid)
    if len(rows) > MOST:
        rows = rows[np.linspace(0, len(rows) - 1, MOST).astype(np.int64)]
    unit = _projected(vectors, rows, pair)
    sources = None if cameras is None else np.unique(cameras[rows], return_inverse=True)[1]
    if sources is not None and 2 <= int(sources.max(initial=0)) + 1 <= MOST_SOURCES:
        near = _across(unit, sources, k)
    else:
        near = _nearest(unit, k)
    first = np.repeat(np.arange(len(rows)), near.shape[1])
    second = near.ravel()
    known = second >= 0
    codes = np.sort(np.stack([first[known], second[known]]), axis=0)
    both, times = np.unique(codes[0] * len(rows) + codes[1], return_counts=True)
    first, second = np.divmod(both[times == 2], len(rows))
    # Copies of a file differ in nothing: they would say that nothing differs within objects.
    apart = np.einsum("nd,nd->n", unit[first], unit[second]) < COPY
    return rows[first[apart]], rows[second[apart]]


def _projected(vectors: Any, rows: Rows, pair: Pair) -> NDArray[np.float32]:
    out = np.empty((len(rows), len(pair[0])), np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        out[start : start + len(part)] = project(np.asarray(vectors[part]), pair)
    return _unit(out)


def _nearest(unit: NDArray[np.float32], k: int) -> Rows:
    """(n, k) nearest others of each row, -1 where there are no more."""
    found = _search(unit, unit, k + 1)
    own = found == np.arange(len(unit))[:, None]
    own[~own.any(1), -1] = True  # of exact copies the row itself may not come back
    others: Rows = found[~own].reshape(len(unit), -1)
    return others


def _across(unit: NDArray[np.float32], sources: Rows, k: int) -> Rows:
    """(n, k) nearest rows of other sources, each source's mean taken off."""
    unit, gone = centred(unit, sources)
    out = np.full((len(unit), k), -1, np.int64)
    for source in range(int(sources.max()) + 1):
        mine, others = np.flatnonzero(sources == source), np.flatnonzero(sources != source)
        found = _search(unit[others], unit[mine], k)
        out[mine] = np.where(found >= 0, others[found], -1)
    out[gone] = -1
    return out


def _search(base: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> Rows:
    index = faiss.IndexFlatIP(base.shape[1])
    index.add(base)
    return np.asarray(index.search(queries, k)[1], np.int64)


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.ascontiguousarray(x / np.maximum(length, 1e-12))
