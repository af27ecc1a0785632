"""The k nearest neighbours of every row by cosine similarity, block by block.

Three methods. "exact": tiles of the matrix of all similarities, and a compiled loop that keeps
the k best of each row; bounded memory. "faiss": faiss' flat index, exact too, without a rule for
ties at the k-th place. "approximate": faiss' inverted lists, searched as widely as a recall on a
sample asks for; that recall is measured and told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.features.rows import Rows
from resight.graph.topk import finish, take

Method = Literal["exact", "faiss", "approximate"]
Ids = NDArray[np.int32]
Similarities = NDArray[np.float32]
Found = tuple[int, Ids, Similarities]
Progress = Callable[[int, int], None]
METHODS = ("exact", "faiss", "approximate")
NONE = -2.0  # the similarity where there is no neighbour: below every cosine
BLOCK, TILE = 4096, 2048  # rows that ask at once, and rows compared with at once
_SUB = 1024  # rows of one product: its tile of 8 MB stays in the processor's cache
_ROOM = 2**26  # candidates held at once, 8 bytes each
_CHUNK = 8192  # rows normalised at once
_KEPT_BYTES = 4 * 2**30  # up to here the unit rows are kept, beyond made anew for each block
_SAMPLE, _RECALL = 200, 0.95  # queries that measure the approximate search, and its goal


@dataclass(frozen=True)
class Search:
    """A search made ready: `ask(rows)` gives ids and similarities of rows (b,) int64, rising.

    ids (b, k) int32 and similarities (b, k) float32, best first and of equals the lower row;
    the row itself is left out; -1 and -2.0 where there are no more, and in rows that are not
    `usable` (N,). `recall`: the share of the true neighbours that are found, measured on
    `sample` rows for "approximate", 1.0 for the others.
    """

    ask: Callable[[NDArray[np.int64]], tuple[Ids, Similarities]]
    k: int
    usable: NDArray[np.bool_]
    recall: float = 1.0
    sample: int = 0
    note: str = ""


def nearest(
    vectors: Rows,
    k: int,
    *,
    method: Method = "exact",
    rows: range | None = None,
    valid: NDArray[np.bool_] | None = None,
    progress: Progress = lambda done, total: None,
    block: int = BLOCK,
) -> Iterator[Found]:
    """Yield (start, ids (b, k) int32, similarities (b, k) float32) of `rows` in order.

    vectors (N, D) of any length (normalised here), any real type. Rows that are not `valid` (N,)
    or not finite neither ask nor are found. See `Search` for what is yielded and `open_search`
    for what is raised.
    """
    search = open_search(vectors, k, method=method, valid=valid)
    yield from blocks(search, range(len(vectors)) if rows is None else rows, progress, block)


def nearest_of_all(
    vectors: Rows,
    k: int,
    *,
    method: Method = "exact",
    progress: Progress = lambda done, total: None,
) -> tuple[Ids, Similarities]:
    """ids (N, k) int32 and similarities (N, k) float32 of every row's nearest; see `nearest`."""
    n = len(vectors)
    ids, similarities = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for start, some, values in nearest(vectors, k, method=method, progress=progress):
        part = slice(start, start + len(some))
        ids[part], similarities[part] = some, values
    return ids, similarities


def blocks(
    search: Search, rows: range, progress: Progress = lambda done, total: None, block: int = BLOCK
) -> Iterator[Found]:
    """The blocks of a range of rows (step 1), in order."""
    for start in range(rows.start, rows.stop, block):
        stop = min(start + block, rows.stop)
        yield start, *search.ask(np.arange(start, stop))
        progress(stop - rows.start, len(rows))


def open_search(
    vectors: Rows,
    k: int,
    *,
    method: Method = "exact",
    valid: NDArray[np.bool_] | None = None,
    tile: int = TILE,
) -> Search:
    """Make the search ready: for "faiss" and "approximate" that builds the index.

    Raises UserError: an unknown method, k below 1. ValueError: `valid` of another length.
    """
    if method not in METHODS:
        raise UserError(f"method {method!r} is none of {', '.join(METHODS)}")
    if k < 1:
        raise UserError(f"k = {k}: at least 1 neighbour must be asked for")
    if valid is not None and valid.shape != (len(vectors),):
        raise ValueError(f"valid has the shape {valid.shape}; one value a row is needed")
    unit = _Unit(vectors, valid)
    exact = Search(lambda rows: _exact(unit, rows, k, tile), k, unit.usable)
    if method == "exact" or not unit.usable.any():
        return exact
    index, ids = (_flat if method == "faiss" else _lists)(unit)
    search = Search(lambda rows: _ask(index, ids, unit, rows, k), k, unit.usable)
    return search if method == "faiss" else _tuned(index, search, exact, ids)


class _Unit:
    """L2-normalised float32 rows of a source: kept whole where they fit, else made when asked for.

    `usable` (N,): valid and finite. Rows that are not are zero here, and so are zero rows.
    """

    def __init__(self, source: Rows, valid: NDArray[np.bool_] | None) -> None:
        n, dim = source.shape
        self.source, self.dim = source, dim
        self.usable = np.ones(n, bool) if valid is None else valid.copy()
        kept = np.empty((n, dim), np.float32) if n * dim * 4 <= _KEPT_BYTES else None
        self._kept: NDArray[np.float32] | None = None
        for start in range(0, n, _CHUNK):
            part = slice(start, min(start + _CHUNK, n))
            made, finite = _normalised(source[part])
            self.usable[part] &= finite
            if kept is not None:
                kept[part] = made
        if kept is not None:
            kept[~self.usable] = 0
            self._kept = kept

    def __len__(self) -> int:
        return len(self.usable)

    def tile(self, start: int, stop: int, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows [start, stop), padded with zeros to the length of `out` (a view, or `out`)."""
        if self._kept is not None and stop - start == len(out):
            return self._kept[start:stop]
        for first in range(start, stop, _CHUNK):
            last = min(first + _CHUNK, stop)
            at = slice(first - start, last - start)
            out[at] = self._kept[first:last] if self._kept is not None else self._make(first, last)
        out[stop - start :] = 0
        return out

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """These rows (rising)."""
        if self._kept is not None:
            return self._kept[rows]
        out = np.empty((len(rows), self.dim), np.float32)
        for first in range(0, len(self), _CHUNK):
            here = slice(*np.searchsorted(rows, (first, first + _CHUNK)))
            if here.stop > here.start:
                out[here] = self._make(first, min(first + _CHUNK, len(self)))[rows[here] - first]
        return out

    def _make(self, start: int, stop: int) -> NDArray[np.float32]:
        made, _ = _normalised(self.source[start:stop])
        made[~self.usable[start:stop]] = 0
        return made


def _normalised(rows: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows scaled to length 1 as float32, and which of them are finite; zero rows stay zero."""
    wide = np.asarray(rows)
    wide = wide.astype(np.float64 if wide.dtype == np.float64 else np.float32)  # a copy
    finite = np.isfinite(wide).all(axis=1)
    wide[~finite] = 0
    largest = np.abs(wide).max(axis=1, initial=0)
    wide /= np.where(largest > 0, largest, 1)[:, None]  # squares of huge values overflow
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    wide /= np.where(norms > 0, norms, 1)[:, None]
    return wide.astype(np.float32, copy=False), finite


def _exact(unit: _Unit, rows: NDArray[np.int64], k: int, tile: int) -> tuple[Ids, Similarities]:
    """The k best of some rows, by products of tiles of one shape.

    Tiles that are cut short are padded, so that a similarity has the same digits wherever its
    tile lies, and equal rows tie.
    """
    n, total = len(rows), len(unit)
    room = k + min(k, total) + 256
    most = max(_ROOM // room, 1)
    if n > most:
        parts = [_exact(unit, rows[at : at + most], k, tile) for at in range(0, n, most)]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([s for _, s in parts])
    sub, tile = (-(-min(size, total) // 64) * 64 for size in (_SUB, tile))
    keys, counts = np.empty((n, room), np.uint64), np.zeros(n, np.int64)
    bounds = np.full(n, -np.inf, np.float32)
    queries = np.zeros((-(-n // sub) * sub, unit.dim), np.float32)
    queries[:n] = unit.rows(rows)
    spare = np.empty((tile, unit.dim), np.float32)
    product = np.empty((sub, tile), np.float32)
    bits, bound_bits = product.view(np.uint32), bounds.view(np.uint32)
    with _Threads() as threads:
        for column in range(0, total, tile):
            width = min(tile, total - column)
            gallery = unit.tile(column, column + width, spare)
            for at in range(0, n, sub):
                np.matmul(queries[at : at + sub], gallery.T, out=product)
                part = slice(at, min(at + sub, n))
                threads.share(
                    part.stop - at, take, product, bits, rows[part], column, width, unit.usable,
                    k, keys[part], counts[part], bounds[part], bound_bits[part],
                )  # fmt: skip
        threads.share(n, finish, k, keys, counts)
    counts[~unit.usable[rows]] = 0
    return _unpacked(keys[:, :k], counts)


class _Threads:
    """Calls of compiled loops, which let go of the interpreter's lock, on faiss' thread count."""

    def __init__(self) -> None:
        self._count = int(faiss.omp_get_max_threads())  # heeds OMP_NUM_THREADS
        self._pool = ThreadPoolExecutor(self._count)

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def share(self, n: int, work: Callable[..., None], *arguments: Any) -> None:
        """Call work(first, last, *arguments) for ranges that make up 0 to n."""
        if self._count == 1:
            work(0, n, *arguments)
            return
        step = max(1, -(-n // (4 * self._count)))
        calls = [
            self._pool.submit(work, first, min(first + step, n), *arguments)
            for first in range(0, n, step)
        ]
        for call in calls:
            call.result()


def _unpacked(keys: NDArray[np.uint64], counts: NDArray[np.int64]) -> tuple[Ids, Similarities]:
    """Ids and similarities in keys (see topk.py); -1 and NONE beyond each row's count."""
    low = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    ids = (np.uint32(0xFFFFFFFF) - low).astype(np.int32)
    turned = (keys >> np.uint64(32)).astype(np.uint32)
    positive = turned >= 0x80000000
    similarities = np.where(positive, turned ^ np.uint32(0x80000000), ~turned).view(np.float32)
    nobody = np.arange(keys.shape[1]) >= counts[:, None]
    ids[nobody], similarities[nobody] = -1, NONE
    return ids, similarities


def _flat(unit: _Unit) -> tuple[Any, NDArray[np.int64]]:
    """faiss' flat index of the usable rows, and which rows they are."""
    index = faiss.IndexFlatIP(unit.dim)
    ids = np.flatnonzero(unit.usable)
    for start in range(0, len(ids), _CHUNK):
        index.add(unit.rows(ids[start : start + _CHUNK]))
    return index, ids


def _lists(unit: _Unit) -> tuple[Any, NDArray[np.int64]]:
    """faiss' inverted lists of the usable rows, trained on up to 64 rows a list."""
    ids = np.flatnonzero(unit.usable)
    lists = max(1, min(int(4 * np.sqrt(len(ids))), len(ids) // 39))  # 39: what k-means asks for
    index = faiss.index_factory(unit.dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    random = np.random.default_rng(0)
    index.train(unit.rows(np.sort(random.choice(ids, min(len(ids), 64 * lists), replace=False))))
    for start in range(0, len(ids), _CHUNK):
        index.add(unit.rows(ids[start : start + _CHUNK]))
    return index, ids


def _ask(
    index: Any, ids: NDArray[np.int64], unit: _Unit, rows: NDArray[np.int64], k: int
) -> tuple[Ids, Similarities]:
    """What a faiss index answers for some rows, put in our order."""
    at = np.flatnonzero(unit.usable[rows])
    found_ids = np.full((len(rows), k), -1, np.int32)
    found = np.full((len(rows), k), NONE, np.float32)
    if not len(at):
        return found_ids, found
    similarities, places = index.search(unit.rows(rows[at]), min(k + 1, len(ids)))
    others = np.where(places >= 0, ids[places], -1)
    nobody = (others < 0) | (others == rows[at, None])
    others, similarities = np.where(nobody, -1, others), np.where(nobody, NONE, similarities)
    order = np.lexsort((others, -similarities), axis=1)[:, :k]
    width = order.shape[1]
    found_ids[at, :width] = np.take_along_axis(others, order, 1)
    found[at, :width] = np.take_along_axis(similarities, order, 1)
    return found_ids, found


def _tuned(index: Any, search: Search, exact: Search, ids: NDArray[np.int64]) -> Search:
    """Search twice as many lists until the recall on a sample of rows reaches its goal."""
    random = np.random.default_rng(1)
    sample = np.sort(random.choice(ids, min(_SAMPLE, len(ids)), replace=False))
    truth = exact.ask(sample)[0]
    wanted = int((truth >= 0).sum())
    index.nprobe = 1
    while True:
        found = search.ask(sample)[0]
        hits = sum(
            len(np.intersect1d(one[one >= 0], other))
            for one, other in zip(truth, found, strict=True)
        )
        recall = hits / wanted if wanted else 1.0
        if recall >= _RECALL or index.nprobe >= index.nlist:
            break
        index.nprobe = min(2 * index.nprobe, index.nlist)
    note = (
        f"approximate neighbours: {recall:.1%} of the exact ones are found, measured on "
        f"{len(sample)} images ({index.nprobe} of {index.nlist} lists searched)"
    )
    return Search(search.ask, search.k, search.usable, recall, len(sample), note)
