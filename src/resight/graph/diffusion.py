"""Diffusion on the graph: how much of what starts at one image arrives at each other.

    F = (I - αS)^-1 = I + αS + α²S² + ...        Zhou et al. (NIPS 2003), Iscen et al. (CVPR 2017)

with S the normalised graph. Of each row the largest entries are kept, F_ij / √(F_ii F_jj), so that
an image is 1 to itself. Rows are made one by one, by pushing what a node holds along its edges
while that is more than a tolerance (Andersen, Chung and Lang, FOCS 2006): a push takes (1 - α) of
what it moves out of play, so a row costs the same however large the graph is.

diffusion.json     what made it (key), alpha, top, tolerance, checksums, and whether all is there
neighbours.npy     (N, top) int32: the others that most arrives at, most first; -1 for none
values.npy         (N, top) float32: F_ij / √(F_ii F_jj)
raw.npy, own.npy   F_ij and F_ii, while it is being made
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from resight.checksums import sums_in, verify
from resight.errors import UserError
from resight.files import fresh_folder, read_json, write_json
from resight.graph.graph import Graph
from resight.graph.kernels import push_rows
from resight.graph.neighbours import Progress
from resight.graph.pool_files import Appended, open_table

RECORD, NEIGHBOURS, VALUES, RAW, OWN = (
    "diffusion.json",
    "neighbours.npy",
    "values.npy",
    "raw.npy",
    "own.npy",
)
ALPHA, TOP, TOLERANCE = 0.9, 64, 1e-4
BLOCK = 4096  # rows written at once
_SHARE = 128  # rows that a thread takes at once

Raw = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float64]]


@dataclass(frozen=True)
class Diffused:
    """The largest entries of F, row by row, in memory or memory-mapped.

    neighbours (N, top) int32, -1 where there are no more; values (N, top) float32 in (0, 1], 0
    where there is none; an image itself, always 1, is left out.
    """

    neighbours: NDArray[np.int32]
    values: NDArray[np.float32]
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.neighbours)

    def dense(self) -> NDArray[np.float64]:
        """(N, N) with ones on the diagonal, for small graphs."""
        full = np.eye(len(self))
        row, column = np.nonzero(self.neighbours >= 0)
        full[row, self.neighbours[row, column]] = self.values[row, column]
        return full

    @classmethod
    def load(cls, folder: str | Path) -> Diffused:
        """Open a folder, compared with its checksums. Raises UserError: absent or damaged."""
        folder = Path(folder)
        record = _read(folder)
        if not record["complete"]:
            raise UserError(f"{folder}: the diffusion is not finished; run the same again")
        verify(folder, sums_in(record), "delete this folder and run the same again")
        shape = (record["rows"], record["top"])
        ids = open_table(folder / NEIGHBOURS, np.int32, shape)
        return cls(ids, open_table(folder / VALUES, np.float32, shape), record)


def diffuse(
    graph: Graph,
    folder: str | Path | None = None,
    *,
    alpha: float = ALPHA,
    top: int = TOP,
    tolerance: float = TOLERANCE,
    key: dict[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
    block: int = BLOCK,
) -> Diffused:
    """The `top` largest entries of every row of (I - αS)^-1 beside its own, cosine-normalised.

    `graph`: A, not normalised. In memory, or in `folder`, where a call of the same key goes on
    where one was stopped. The outcome depends neither on `block` nor on threads. `tolerance`:
    what a node may hold back from passing on; of F_ij it leaves away at most about that over
    1 - α, in practice far less (see `benchmarks/graph.py`).

    Raises UserError: alpha not in [0, 1), top or tolerance not above 0, or a folder that holds
    something else.
    """
    if not 0 <= alpha < 1:
        raise UserError(f"alpha = {alpha}: must be at least 0 and below 1")
    if top < 1 or tolerance <= 0:
        raise UserError(f"top = {top}, tolerance = {tolerance}: both must be above 0")
    n = len(graph)
    width = max(min(top, n - 1), 1)
    rows = _Rows(graph.normalised(), alpha, width, tolerance)
    if folder is None:
        ids, raw, own = _empty(n, width)
        for start in range(0, n, block):
            part = slice(start, min(start + block, n))
            ids[part], raw[part], own[part] = rows(part.start, part.stop)
            progress(part.stop, n)
        return Diffused(ids, _normalised(ids, raw, own, slice(0, n)))
    return _in_folder(Path(folder), rows, n, width, key or {}, progress, block)


class _Rows:
    """Makes rows of F on all threads, each with room of its own for a whole row."""

    def __init__(self, s: Graph, alpha: float, top: int, tolerance: float) -> None:
        self.s, self.alpha, self.top, self.tolerance = s, alpha, top, tolerance
        self._room = threading.local()
        self._threads = ThreadPoolExecutor(int(faiss.omp_get_max_threads()))

    def __call__(self, start: int, stop: int) -> Raw:
        """neighbours and values (stop - start, top), the diagonal (stop - start,)."""
        ids, raw, own = _empty(stop - start, self.top)

        def some(first: int) -> None:
            last = min(first + _SHARE, stop)
            at = slice(first - start, last - start)
            push_rows(
                first, last, self.s.indptr, self.s.indices, self.s.values, self.alpha,
                self.tolerance, *self._spare(), ids[at], raw[at], own[at],
            )  # fmt: skip

        for done in [self._threads.submit(some, at) for at in range(start, stop, _SHARE)]:
            done.result()
        return ids, raw, own

    def _spare(self) -> tuple[NDArray[Any], ...]:
        if not hasattr(self._room, "arrays"):
            n = len(self.s)
            self._room.arrays = (
                np.zeros(n),
                np.zeros(n),
                np.zeros(n + 1, np.int32),
                np.zeros(n, np.bool_),
            )
        found: tuple[NDArray[Any], ...] = self._room.arrays
        return found


def _empty(n: int, top: int) -> Raw:
    return np.empty((n, top), np.int32), np.empty((n, top), np.float32), np.empty(n)


def _normalised(
    ids: NDArray[np.int32], raw: NDArray[np.float32], own: NDArray[np.float64], rows: slice
) -> NDArray[np.float32]:
    """F_ij / √(F_ii F_jj) of some rows; ids and raw are theirs, own (N,) that of all."""
    scale = np.sqrt(own[rows, None] * own[ids])
    return np.where(ids >= 0, np.minimum(raw / scale, 1), 0).astype(np.float32)


def _in_folder(
    folder: Path, rows: _Rows, n: int, top: int, key: dict[str, Any], progress: Progress, block: int
) -> Diffused:
    facts = {"format": 1, "rows": n, "top": top, "alpha": rows.alpha, "tolerance": rows.tolerance}
    record = _begin(folder, facts | {"key": key})
    if record["complete"]:
        return Diffused.load(folder)
    begun = time.perf_counter()
    with (
        Appended(folder / NEIGHBOURS, np.int32, (n, top)) as ids,
        Appended(folder / RAW, np.float32, (n, top)) as raw,
        Appended(folder / OWN, np.float64, (n, 1)) as own,
    ):
        done = min(table.rows() for table in (ids, raw, own)) // block * block
        for table in (ids, raw, own):
            table.cut(done)
        for start in range(done, n, block):
            stop = min(start + block, n)
            some, values, diagonal = rows(start, stop)
            ids.append(some)
            raw.append(values)
            own.append(diagonal[:, None])
            progress(stop, n)
        sums = {NEIGHBOURS: ids.sum()}
    with Appended(folder / VALUES, np.float32, (n, top)) as scaled:
        scaled.cut(0)
        for part in _blocks_normalised(folder, n, top, block):
            scaled.append(part)
        sums[VALUES] = scaled.sum()
    seconds = round(time.perf_counter() - begun, 3)
    write_json(folder / RECORD, record | {"complete": True, "sums": sums, "seconds": seconds})
    for name in (RAW, OWN):
        (folder / name).unlink()
    return Diffused.load(folder)


def _blocks_normalised(folder: Path, n: int, top: int, block: int) -> Iterator[NDArray[np.float32]]:
    ids = open_table(folder / NEIGHBOURS, np.int32, (n, top))
    raw = open_table(folder / RAW, np.float32, (n, top))
    own = np.array(open_table(folder / OWN, np.float64, (n, 1)))[:, 0]
    for start in range(0, n, block):
        part = slice(start, min(start + block, n))
        yield _normalised(np.asarray(ids[part]), np.asarray(raw[part]), own, part)


def _read(folder: Path) -> dict[str, Any]:
    record = read_json(folder / RECORD, "a diffusion")
    if not isinstance(record, dict) or record.get("format") != 1 or "complete" not in record:
        raise UserError(f"{folder / RECORD}: damaged; delete this folder and run the same again")
    return record


def _begin(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The record of a new folder, or that of a call with the same facts."""
    if (folder / RECORD).is_file():
        record = _read(folder)
        if other := [name for name in facts if record.get(name) != facts[name]]:
            raise UserError(
                f"{folder}: holds a diffusion made with other {', '.join(other)}; delete it"
            )
        return record
    fresh_folder(folder, "a diffusion", mark=RECORD, force=False)
    facts = facts | {"complete": False}
    write_json(folder / RECORD, facts)
    return facts
