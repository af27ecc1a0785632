"""Plain numpy: the bare product, which is the floor, and the customary argsort."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from peers.data import Data, Size

Work = Callable[[], dict[str, Any]]


def product(rows: int, columns: int) -> Callable[[Data], Work]:
    """The normalised float32 features multiplied block by block; nothing is done with it."""

    def prepare(data: Data) -> Work:
        def work() -> dict[str, Any]:
            unit = data.unit()
            queries, gallery = unit[data.queries], unit[data.gallery]
            room = np.empty(rows * columns, np.float32)
            for i in range(0, len(queries), rows):
                left = queries[i : i + rows]
                for j in range(0, len(gallery), columns):
                    right = gallery[j : j + columns]
                    out = room[: len(left) * len(right)].reshape(len(left), len(right))
                    np.matmul(left, right.T, out=out)
            return {"mAP": None}

        return work

    return prepare


def full_matrix(data: Data) -> Work:
    """All similarities, a stable argsort of each row, matches, junk removed, AP."""

    def work() -> dict[str, Any]:
        unit = data.unit()
        similarity = unit[data.queries] @ unit[data.gallery].T
        order = np.argsort(-similarity, axis=1, kind="stable")
        aps = [data.average_precision(query, order[query]) for query in range(len(order))]
        return {"mAP": float(np.mean(aps))}

    return work


def full_matrix_bytes(size: Size) -> float:
    """Similarities, their negative, and the int64 order."""
    return 16.0 * size.pairs + 8.0 * size.images * size.dim


class Pace:
    """For a contender that goes query by query: stops it early where it won't finish in time."""

    def __init__(self) -> None:
        self.limit, self.start = float(os.environ.get("LIMIT", "inf")), time.perf_counter()

    def hopeless(self, done: int, queries: int) -> float | None:
        """The seconds that all queries would take, where they pass the limit."""
        spent = time.perf_counter() - self.start
        whole = spent * queries / done
        return whole if spent > 10 and whole > self.limit else None


def in_blocks(data: Data) -> Work:
    """The same with numpy's fastest sort and 256 queries at a time, in a random order."""

    def work() -> dict[str, Any]:
        pace, unit = Pace(), data.unit()
        gallery = unit[data.gallery]
        queries = data.shuffled()
        aps: list[float] = []
        for start in range(0, len(queries), 256):
            block = queries[start : start + 256]
            order = np.argsort(-(unit[block] @ gallery.T), axis=1)
            aps += [data.average_precision(q, row) for q, row in zip(block, order, strict=True)]
            if whole := pace.hopeless(len(aps), len(queries)):
                return {"mAP": float(np.mean(aps)), "queries": len(aps), "whole": whole}
        return {"mAP": float(np.mean(aps))}

    return work
