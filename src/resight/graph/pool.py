"""The candidate pool: the nearest neighbours of every image, with their similarities, on disk.

pool.json                   what made it (key), k, method, measured recall, seconds, checksums, and
                            whether all is there; under "verified" how spatial verification ranked
                            it
neighbours.npy              (N, k) int32: rows of the image set, most similar first; -1 for none
similarities.npy            (N, k) float16: their cosines; -2 for none
verified-neighbours.npy     the same two, ranked anew by spatial verification, and
verified-similarities.npy   beside them, column by column,
inliers.npy                 (N, t) int16: inliers of the first t of these; -1 not looked at

InsCLR (AAAI 2022), section 3.1, papers.md C: the pool is made with the current model before each
stage, and its similarities are kept for the mining. Files are written block by block and fsynced;
their length says how far a killed run came, so that a second call goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.checksums import Summed, sums_in, verify
from resight.errors import UserError
from resight.features.rows import Rows
from resight.files import atomic_open, fresh_folder, write_json
from resight.graph.graph import pair_codes
from resight.graph.neighbours import BLOCK, Method, Progress, blocks, open_search
from resight.graph.pool_files import (
    INLIERS,
    NEIGHBOURS,
    RECORD,
    SIMILARITIES,
    VERIFIED,
    Appended,
    open_table,
    read_record,
    write_header,
)

MOST_INLIERS = 32_767
Tell = Callable[[str], None]
RowNumbers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Pool:
    """The k nearest neighbours of N images, memory-mapped where they lie in a folder.

    neighbours (N, k) int32 and similarities (N, k) float16 (steps of 0.0005 above 0.5): by falling
    similarity, of equals the lower row first; -1 and -2 where there is no neighbour. inliers (N, t)
    int16 or None: of the first t neighbours, column by column, -1 where not looked at; where
    there are inliers, these t columns (of all three arrays) are ranked by both, see `add_inliers`.
    """

    neighbours: NDArray[np.int32]
    similarities: NDArray[np.float16]
    inliers: NDArray[np.int16] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.neighbours)

    @property
    def k(self) -> int:
        """Neighbours a row."""
        return int(self.neighbours.shape[1])

    def scores(self, rows: RowNumbers, weight: float = 0.0, cap: int = 1) -> NDArray[np.float32]:
        """(len(rows), k) float32: similarity + weight * min(inliers, cap) / cap, column by column.

        Where inliers are not known the similarity alone; -2 where there is no neighbour.
        """
        found = np.asarray(self.similarities[rows], np.float32)
        if self.inliers is not None and weight:
            seen = np.asarray(self.inliers[rows], np.float32)
            found[:, : seen.shape[1]] += weight * np.clip(seen, 0, cap) / cap
        return found

    @classmethod
    def load(cls, folder: str | Path) -> Pool:
        """Open a pool's folder, all of it compared with its checksums.

        Raises UserError: none there, not finished, or damaged.
        """
        folder = Path(folder)
        info = read_record(folder)
        if not info["complete"]:
            raise UserError(f"{folder}: the candidate pool is not finished; run the same again")
        n, k = info["rows"], info["k"]
        ranked = info.get("verified")
        start = VERIFIED if ranked else ""
        found = cls(
            open_table(folder / (start + NEIGHBOURS), np.int32, (n, k)),
            open_table(folder / (start + SIMILARITIES), np.float16, (n, k)),
            open_table(folder / INLIERS, np.int16, (n, ranked["top"])) if ranked else None,
            info,
        )
        for sums in (sums_in(info), sums_in(ranked or {})):
            verify(folder, sums, "delete this folder and run the same again")
        return found


def build_pool(
    vectors: Rows,
    folder: str | Path | None = None,
    *,
    k: int = 500,
    method: Method = "exact",
    valid: NDArray[np.bool_] | None = None,
    key: dict[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
    tell: Tell = lambda line: None,
    force: bool = False,
    block: int = BLOCK,
) -> Pool:
    """The pool of N images by their vectors (N, D), of any length: in memory, or in `folder`.

    `valid` defaults to the `valid` of features, where there is one; images that are not have no
    neighbours and are nobody's. k is cut to N - 1. `key` names what the vectors were made of: a
    folder of the same key is finished, or opened, not made again. `tell` gets the line about the
    recall of an approximate search.

    Raises UserError: `folder` holds a pool with another key (unless `force`), or other files;
    k below 1.
    """
    if valid is None:
        valid = getattr(vectors, "valid", None)
    n = len(vectors)
    cut = max(min(k, n - 1), 1) if k > 0 else k
    if folder is None:
        start = time.perf_counter()
        search = open_search(vectors, cut, method=method, valid=valid)
        _tell(search.note, tell)
        ids = np.empty((n, cut), np.int32)
        similarities = np.empty((n, cut), np.float16)
        for at, some, cosines in blocks(search, range(n), progress, block):
            ids[at : at + len(some)], similarities[at : at + len(some)] = some, cosines
        info = _facts(n, cut, method, key or {}) | _outcome(search.recall, search.sample, start, 0)
        return Pool(ids, similarities, None, info)
    folder = Path(folder)
    info = _begin(folder, _facts(n, cut, method, key or {}), force)
    if not info["complete"]:
        start = time.perf_counter()
        search = open_search(vectors, cut, method=method, valid=valid)
        _tell(search.note, tell)
        with (
            Appended(folder / NEIGHBOURS, np.int32, (n, cut)) as first,
            Appended(folder / SIMILARITIES, np.float16, (n, cut)) as second,
        ):
            done = min(first.rows(), second.rows()) // block * block
            if done:
                tell(f"{folder}: {done:,} of {n:,} images are done already; going on from there")
            for table in (first, second):
                table.cut(done)

            def report(now: int, _: int) -> None:
                progress(done + now, n)

            for _, some, cosines in blocks(search, range(done, n), report, block):
                first.append(some)
                second.append(cosines)
                spent = info["seconds"] + time.perf_counter() - start
                write_json(folder / RECORD, info | {"seconds": round(spent, 3)})
            sums = {NEIGHBOURS: first.sum(), SIMILARITIES: second.sum()}
        info |= _outcome(search.recall, search.sample, start, info["seconds"]) | {"sums": sums}
        write_json(folder / RECORD, info)
    return Pool.load(folder)


def add_inliers(
    pool: Pool,
    folder: str | Path | None,
    count: Callable[[NDArray[np.int64]], NDArray[np.integer[Any]]],
    *,
    top: int,
    min_similarity: float,
    weight: float,
    cap: int,
) -> Pool:
    """Verify the first `top` neighbours of every image that are similar enough; rank them by both.

    `count` is called once, with all pairs of rows (P, 2) int64, a < b, in rising order, and
    returns how many inliers each has (P,), below 0 where it can't say; (a, b) and (b, a) are one
    pair. Then the first `top` columns of each row are put in falling order of
    similarity + weight * min(inliers, cap) / cap, of equals the more similar first; the others
    stay where they are, and `neighbours`, `similarities` and `inliers` move together.

    `folder`: the pool's own; its pool as it was before any verification is taken, and the result
    written beside it, so that this may be called again. None: in memory. Returns the new pool.
    """
    if folder is not None:
        folder = Path(folder)
        record = read_record(folder)
        record.pop("verified", None)
        write_json(folder / RECORD, record)  # first: killed from here on, it is as before
        pool = Pool.load(folder)
    elif pool.inliers is not None:
        raise ValueError("the pool is verified already; take it as it was before")
    top = min(top, pool.k)
    pairs = _distinct_pairs(pool, top, min_similarity)
    n = len(pool)
    asked = np.stack([pairs // n, pairs % n], axis=1)
    counts = np.clip(count(asked) if len(pairs) else pairs, -1, MOST_INLIERS).astype(np.int16)
    if counts.shape != pairs.shape:
        raise ValueError(f"count gave the shape {counts.shape} for {len(pairs)} pairs")

    def ranked(start: int) -> Pool:
        return _ranked(pool, start, pairs, counts, top, min_similarity, weight, cap)

    starts = range(0, n, BLOCK)
    if folder is None:
        parts = [ranked(start) for start in starts]
        inliers = [part.inliers for part in parts if part.inliers is not None]
        return Pool(
            np.concatenate([part.neighbours for part in parts]),
            np.concatenate([part.similarities for part in parts]),
            np.concatenate(inliers),
            pool.info,
        )
    names = (VERIFIED + NEIGHBOURS, VERIFIED + SIMILARITIES, INLIERS)
    with ExitStack() as stack:
        files = [Summed(stack.enter_context(atomic_open(folder / name))) for name in names]
        shapes = ((np.int32, pool.k), (np.float16, pool.k), (np.int16, top))
        for file, (dtype, width) in zip(files, shapes, strict=True):
            write_header(file, dtype, (n, width))
        for start in starts:
            part = ranked(start)
            tables = (part.neighbours, part.similarities, part.inliers)
            for file, rows in zip(files, tables, strict=True):
                file.write(np.ascontiguousarray(rows).tobytes())
    how: dict[str, Any] = {"top": top, "min_similarity": min_similarity}
    how |= {"weight": weight, "cap": cap}
    how |= {"sums": {name: file.sum() for name, file in zip(names, files, strict=True)}}
    write_json(folder / RECORD, record | {"verified": how | {"pairs": len(pairs)}})
    return Pool.load(folder)


def _ranked(
    pool: Pool,
    start: int,
    pairs: NDArray[np.int64],
    counts: NDArray[np.int16],
    top: int,
    min_similarity: float,
    weight: float,
    cap: int,
) -> Pool:
    """The rows of one block with their inliers, in the new order."""
    stop = min(start + BLOCK, len(pool))
    keys, wanted = _pair_keys(pool, start, stop, top, min_similarity)
    inliers = np.full((stop - start, top), -1, np.int16)
    inliers[wanted] = counts[np.searchsorted(pairs, keys[wanted])]
    part = Pool(pool.neighbours[start:stop], pool.similarities[start:stop], inliers)
    scores = part.scores(np.arange(stop - start), weight, cap)[:, :top]
    order = np.argsort(-scores, axis=1, kind="stable")
    ids, similarities = np.array(part.neighbours), np.array(part.similarities)
    for table in (ids, similarities, inliers):
        table[:, :top] = np.take_along_axis(table[:, :top], order, 1)
    return Pool(ids, similarities, inliers)


def _distinct_pairs(pool: Pool, top: int, min_similarity: float) -> NDArray[np.int64]:
    """The pairs to verify, each once, as a * N + b with a < b, rising."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(pool), BLOCK):
        stop = min(start + BLOCK, len(pool))
        keys, wanted = _pair_keys(pool, start, stop, top, min_similarity)
        found.append(np.unique(keys[wanted]))
    return np.unique(np.concatenate(found))


def _pair_keys(
    pool: Pool, start: int, stop: int, top: int, min_similarity: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(b, top) keys of the pairs of rows [start, stop), and which of them are similar enough."""
    others = np.asarray(pool.neighbours[start:stop, :top], np.int64)
    similar = np.asarray(pool.similarities[start:stop, :top], np.float32) >= min_similarity
    own = np.arange(start, stop)[:, None]
    return pair_codes(own, others, len(pool)), similar & (others >= 0)


def _tell(note: str, tell: Tell) -> None:
    if note:
        tell(note)


def _facts(n: int, k: int, method: str, key: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"format": 1, "complete": False, "rows": n, "k": k, "method": method}
    return facts | {"key": key, "seconds": 0.0}


def _outcome(recall: float, sample: int, start: float, before: float) -> dict[str, Any]:
    seconds = round(before + time.perf_counter() - start, 3)
    return {"complete": True, "recall": recall, "recall_sample": sample, "seconds": seconds}


def _begin(folder: Path, facts: dict[str, Any], force: bool) -> dict[str, Any]:
    """The record of a new folder, or that of a call with the same key."""
    if (folder / RECORD).is_file() and not force:
        record = read_record(folder)
        same = ("rows", "k", "method")
        other = [name for name in same if record[name] != facts[name]]
        keys = record["key"].keys() | facts["key"].keys()
        other += sorted(k for k in keys if record["key"].get(k) != facts["key"].get(k))
        if other:
            raise UserError(
                f"{folder}: holds a candidate pool made with other {', '.join(other)}; "
                "give another folder, or --force to replace it"
            )
        return record
    fresh_folder(folder, "a candidate pool", mark=RECORD, force=force)
    write_json(folder / RECORD, facts)  # first: a call killed from here on can be resumed
    return facts
