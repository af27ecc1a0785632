"""Image against object level on one set of features; used by gallery.py."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from resight.search.centroids import CentroidSums
from resight.search.index import knn, unit


def levels(vectors: np.ndarray, codes: np.ndarray, most: int = 1000) -> dict[str, Any]:
    """Image against object level: cost and quality."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) > 0])
    counts = np.diff(np.r_[starts, len(order)])
    asking = order[starts[counts > 1]]
    kept = np.setdiff1d(np.arange(len(codes)), asking)
    asking = asking[np.linspace(0, len(asking) - 1, min(most, len(asking))).astype(int)]
    named, own = np.unique(codes[kept], return_inverse=True)
    asked, target = unit(vectors[asking]), np.searchsorted(named, codes[asking])
    found: dict[str, Any] = {"queries": len(asking), "objects": len(named)}
    for level in ("image", "object"):
        start = time.perf_counter()
        if level == "image":
            rows, of = unit(vectors[kept]), own
        else:
            sums = CentroidSums.of(vectors[kept], own, None, len(named)).sums
            rows, of = unit(sums), np.arange(len(named))
        build = time.perf_counter() - start
        scan = min(_seconds(asked, rows) for _ in range(3))
        precisions, first = [], 0
        for query, right in zip(asked, target, strict=True):
            similar = rows @ query
            best = np.sort(similar[of == right])[::-1]
            ranks = 1 + np.array([(similar > value).sum() for value in best])
            precisions.append(float((np.arange(1, len(best) + 1) / ranks).mean()))
            first += int(ranks[0] == 1)
        found[level] = {
            "vectors": len(rows),
            "MiB": round(rows.nbytes / 2**20, 1),
            "build_s": round(build, 3),
            "search_s": round(scan, 4),
            "mAP": round(float(np.mean(precisions)), 4),
            "R@1": round(first / len(asking), 4),
        }
    return found


def _seconds(asked: np.ndarray, rows: np.ndarray) -> float:
    start = time.perf_counter()
    knn(asked, rows, 10)
    return time.perf_counter() - start
