"""The index: unit vectors by key, mapped from a file; exact, or coarse first and exact after.

Derived from what the engine keeps, so it can be lost at any time. Keys are rising whole numbers.

flat    every vector is looked at
ivf     vectors in 8 bits, in cells around means; the nearest cells are looked at
hnsw    a graph over 8-bit vectors

The coarse ones give candidates only: what is found is compared again by the stored vectors. Their
recall against flat is measured when they are built, with vectors of the gallery as queries, and
the effort of a search is raised until it reaches the floor. Vectors that don't lie in cells (noise
in many dimensions) need most of them; then the automatic choice is flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from resight.search.centroids import l2_normalise

Kind = Literal["auto", "flat", "ivf", "hnsw"]
KINDS = ("auto", "flat", "ivf", "hnsw")
FLAT_BELOW = 250_000  # vectors; benchmarks/gallery.py shows where the coarse ones begin to pay
RECALL_FLOOR = 0.99
_QUERIES = 500  # vectors that recall is measured with
NEIGHBOURS = 10
# From so many queries on faiss multiplies matrices instead of going row by row; the 128,000 that
# some of its releases begin with are ten times slower for a batch (benchmarks/gallery.py).
faiss.cvar.distance_compute_blas_threshold = 20
Found = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass
class Index:
    """`flat` holds the unit vectors (N, D); `keys` (N,) int64 rising; `groups` (N,) int64: the
    object of each, 0 for none. `coarse` is None where every vector is looked at; `info` says how
    it was built, and its recall."""

    flat: Any
    keys: NDArray[np.int64]
    groups: NDArray[np.int64]
    coarse: Any = None
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def rows(self) -> NDArray[np.float32]:
        """The unit vectors (N, D), where they lie."""
        return rows_of(self.flat)

    def search(self, queries: NDArray[np.float32], fetch: int) -> Found:
        """Similarities and positions (Q, fetch) of candidates, best first; -1 where none is."""
        if self.coarse is None:
            return knn(queries, self.rows, fetch)
        # Twice as many by 8 bits: the order among them is settled by the stored vectors.
        similarity, position = self.coarse.search(queries, min(len(self), 2 * fetch + 16))
        return similarity, position


def rows_of(flat: Any) -> NDArray[np.float32]:
    """The vectors of a faiss flat index as an array (N, D), without a copy."""
    if not flat.ntotal:
        return np.empty((0, flat.d), np.float32)
    rows: NDArray[np.float32] = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
    return rows.reshape(flat.ntotal, flat.d)


def knn(queries: NDArray[np.float32], rows: NDArray[np.float32], fetch: int) -> Found:
    """The bare faiss call: inner products, best first, (Q, min(fetch, N))."""
    fetch = min(fetch, len(rows))
    if not fetch or not len(queries):
        none = np.empty((len(queries), 0))
        return none.astype(np.float32), none.astype(np.int64)
    similarity, position = faiss.knn(queries, rows, fetch, metric=faiss.METRIC_INNER_PRODUCT)
    return similarity, position


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows (N, D) of any length as unit float32; float64 in between."""
    return np.ascontiguousarray(l2_normalise(rows), np.float32)


def new_flat(dim: int, rows: NDArray[np.float32] | None = None) -> Any:
    """A flat index in memory."""
    flat = faiss.IndexFlatIP(dim)
    if rows is not None and len(rows):
        flat.add(np.ascontiguousarray(rows, np.float32))
    return flat


def build(
    flat: Any,
    keys: NDArray[np.int64],
    groups: NDArray[np.int64],
    kind: Kind = "auto",
    *,
    floor: float = RECALL_FLOOR,
    tell: Callable[[str], None] = lambda line: None,
) -> Index:
    """An index over these unit vectors; `auto` takes flat below `FLAT_BELOW` vectors, else ivf,
    and flat again where ivf does not reach the floor."""
    count, chosen = len(keys), kind == "auto"
    if chosen:
        kind = "flat" if count < FLAT_BELOW else "ivf"
    if kind != "flat" and count < 1000:
        kind = "flat"  # too few for cells
    index = Index(flat, keys, groups, None, {"kind": kind, "vectors": count, "recall@10": 1.0})
    if kind == "flat":
        return index
    tell(f"building an {kind} index over {count:,} vectors")
    rows = index.rows
    coarse: Any
    if kind == "ivf":
        cells = max(16, min(65536, int(4 * math.sqrt(count))))
        cells = min(cells, count // 40)
        coarse = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(flat.d),
            *(flat.d, cells, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT),
        )
        coarse.cp.niter, coarse.cp.seed = 10, 0
        sample = np.random.default_rng(0).permutation(count)[: 64 * cells]
        coarse.train(rows[np.sort(sample)])
    else:
        coarse = faiss.IndexHNSWSQ(
            flat.d,
            faiss.ScalarQuantizer.QT_8bit,  # type: ignore[arg-type]
            32,
            faiss.METRIC_INNER_PRODUCT,
        )
        coarse.hnsw.efConstruction = 80
        coarse.train(rows[: min(count, 100_000)])
    for start in range(0, count, 65536):
        coarse.add(rows[start : start + 65536])
    index.coarse = coarse
    _tune(index, floor)
    recall = index.info["recall@10"]
    tell(f"recall@10 {recall:.3f} against every vector looked at")
    # Half of the cells in 8 bits are still less to read than all vectors in float32.
    if chosen and (recall < floor or index.info["effort"] > coarse.nlist // 2):
        tell(f"{floor:g} takes most cells: every vector is looked at instead (--index: ivf, hnsw)")
        index.coarse, index.info = None, {"kind": "flat", "vectors": count, "recall@10": 1.0}
    return index


def _tune(index: Index, floor: float) -> None:
    """Raise the effort of a search until the recall reaches the floor; written into `info`."""
    kind, count = index.info["kind"], len(index)
    most = 2 * index.coarse.nlist if kind == "ivf" else 1024
    efforts = [effort for n in range(3, 18) if (effort := 2**n) < most]
    at = np.unique(np.linspace(0, count - 1, _QUERIES).astype(int))
    asked = np.ascontiguousarray(index.rows[at])
    best, _ = knn(asked, index.rows, NEIGHBOURS + 1)
    for effort in efforts:
        set_effort(index, effort)
        _, found = index.search(asked, NEIGHBOURS + 1)
        have = [index.rows[line[line >= 0]] @ asked[row] for row, line in enumerate(found)]
        index.info |= {"effort": effort, "recall@10": share_found(best, have)}
        if index.info["recall@10"] >= floor:
            break


def set_effort(index: Index, effort: int) -> None:
    """Cells (ivf) or candidates (hnsw) that a search looks at."""
    if index.info["kind"] == "ivf":
        index.coarse.nprobe = min(effort, index.coarse.nlist)
    else:
        index.coarse.hnsw.efSearch = effort


def share_found(best: NDArray[np.float32], have: Sequence[NDArray[Any]]) -> float:
    """recall@10 where vectors of the gallery itself are asked for, which are no answer.

    `best` (Q, 11): the highest similarities there are, `have`: those of what was found. As they
    are compared by value, equal vectors are equally right.
    """
    right = total = 0
    for wanted, found in zip(best[:, 1:], have, strict=True):
        sorted_ = np.sort(found)[::-1][1 : 1 + len(wanted)]  # the first is the one that asks
        total += len(wanted)
        right += int((sorted_ >= wanted[: len(sorted_)] - 1e-5).sum())
    return right / max(1, total)
