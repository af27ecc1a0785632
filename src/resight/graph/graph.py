"""The graph of mutual nearest neighbours: who is among whose nearest, both ways.

graph.json     what made it (key), images, edges, checksums
indptr.npy     (N + 1,) int64: where each row's edges begin
indices.npy    (E,) int32: the other ends, rising within a row
weights.npy    (E,) float32

An edge stands in both of its rows with one weight, so the matrix is symmetric. After Iscen et al.
(CVPR 2017), section 3: A_ij = max(x_i·x_j, 0)³ where i and j are each among the other's k nearest,
0 elsewhere; S = D^-1/2 A D^-1/2 with D the sums of A's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.checksums import Summed, sums_in, verify
from resight.errors import UserError
from resight.files import atomic_open, read_json, write_json
from resight.graph.kernels import count_mutual, fill_mutual
from resight.graph.sparse import Sparse

RECORD = "graph.json"
_FILES = {"indptr": "indptr.npy", "indices": "indices.npy", "values": "weights.npy"}
_ANEW = "delete this folder and run the same again"
POWER = 3.0  # of similarities: it quiets the many that are only a little alike


@dataclass(frozen=True)
class Graph(Sparse):
    """A sparse symmetric matrix of N rows, in memory or memory-mapped; its values are weights.

    indptr (N + 1,) int64, indices (E,) int32, rising within a row, values (E,) float32 above 0.
    """

    @property
    def edges(self) -> int:
        """Edges, each counted once."""
        return len(self.indices) // 2

    def degrees(self) -> NDArray[np.float64]:
        """(N,) sums of the rows."""
        return np.bincount(self.rows(), self.values, minlength=len(self)).astype(np.float64)

    def normalised(self) -> Graph:
        """S = D^-1/2 A D^-1/2: of its eigenvalues none is beyond 1."""
        degrees = self.degrees()
        scale = 1 / np.sqrt(np.where(degrees > 0, degrees, 1))
        values = self.values * scale[self.rows()] * scale[self.indices]
        return Graph(self.indptr, self.indices, values.astype(np.float32))

    def save(self, folder: str | Path, key: dict[str, Any] | None = None) -> None:
        """Write the four files, the record last; `key` names what it was made of."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        sums = {}
        for name, file in _FILES.items():
            with atomic_open(folder / file) as raw:
                summed = Summed(raw)
                np.save(summed, getattr(self, name), allow_pickle=False)
            sums[file] = summed.sum()
        facts = {"format": 1, "rows": len(self), "entries": len(self.indices)}
        write_json(folder / RECORD, facts | {"key": key or {}, "sums": sums})

    @classmethod
    def load(cls, folder: str | Path, key: dict[str, Any] | None = None) -> Graph:
        """Open a graph's folder, compared with its checksums.

        Raises UserError: none there, damaged, or made of something else than `key`.
        """
        folder = Path(folder)
        record = read_json(folder / RECORD, "a neighbour graph")
        if not isinstance(record, dict) or record.get("format") != 1:
            raise UserError(f"{folder / RECORD}: damaged; {_ANEW}")
        if key is not None and record["key"] != key:
            raise UserError(f"{folder}: holds a graph of other features; delete this folder")
        verify(folder, sums_in(record), _ANEW)
        parts = {
            name: np.load(folder / file, mmap_mode="r", allow_pickle=False)
            for name, file in _FILES.items()
        }
        return cls(**parts)


def mutual(
    neighbours: NDArray[np.int32], similarities: NDArray[Any], *, power: float = POWER
) -> Graph:
    """Join the rows that are both among each other's neighbours.

    neighbours (N, k) int32, in any order, -1 for none; similarities (N, k): of an edge the mean of
    both ways counts (they differ by rounding), below 0 there is none. k columns of the nearest, or
    k for each source (camera, artist, session) in turn: then "mutual" is for each pair of sources.
    The order of columns and their padding do not matter.

    Raises ValueError: shapes that differ, a neighbour out of range.
    """
    n, k = neighbours.shape
    if similarities.shape != (n, k):
        raise ValueError(f"neighbours {neighbours.shape}, similarities {similarities.shape}")
    if n and (neighbours.max(initial=-1) >= n or neighbours.min(initial=0) < -1):
        raise ValueError("a neighbour is none of the rows")
    neighbours = np.asarray(neighbours)
    similarities = np.asarray(similarities, np.float32)
    counts = np.zeros(n, np.int64)
    count_mutual(neighbours, similarities, counts)
    indptr = np.r_[0, np.cumsum(counts)]
    indices, weights = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    fill_mutual(neighbours, similarities, power, indptr, indices, weights)
    return Graph(indptr, indices, weights)


def with_pairs(
    graph: Graph, first: NDArray[np.int64], second: NDArray[np.int64], weights: NDArray[np.float32]
) -> Graph:
    """The graph with the edges (first, second) set to `weights`: above 0 added or changed, 0 gone.

    All (P,), a pair named once, either way round. So spatial verification speaks: pairs whose
    points agree are joined whatever their cosine, others of which it is sure are parted.

    Raises ValueError: a row joined to itself, a pair named twice, or a weight below 0.
    """
    codes = pair_codes(first, second, len(graph))
    if (first == second).any() or (weights < 0).any() or len(np.unique(codes)) < len(codes):
        raise ValueError("pairs must join two rows, once each, with weights of 0 or more")
    rows, others = graph.rows(), graph.indices.astype(np.int64)
    stays = (rows < others) & ~np.isin(pair_codes(rows, others, len(graph)), codes)
    new = weights > 0
    return of_pairs(
        len(graph),
        np.r_[rows[stays], first[new]],
        np.r_[others[stays], second[new]],
        np.r_[graph.values[stays], weights[new]],
    )


def of_pairs(
    n: int, first: NDArray[np.int64], second: NDArray[np.int64], weights: NDArray[np.floating]
) -> Graph:
    """The graph over n rows with these edges, each named once: all (P,), either way round."""
    a, b, both = np.r_[first, second], np.r_[second, first], np.r_[weights, weights]
    order = np.lexsort((b, a))
    indptr = np.r_[0, np.cumsum(np.bincount(a, minlength=n))].astype(np.int64)
    return Graph(indptr, b[order].astype(np.int32), both[order].astype(np.float32))


def pair_codes(first: NDArray[np.int64], second: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """One number for each pair of rows below n, the same either way round; shapes broadcast."""
    return np.asarray(np.minimum(first, second) * n + np.maximum(first, second), np.int64)
