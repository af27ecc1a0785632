"""What an image is pulled to: the strongest entries of a diffusion, as many as can be believed.

How many neighbours an image has is nowhere written. Two halves of the same features, which err in
different ways, agree on the pairs that are there and not on those that are made up: the number of
neighbours at which they agree most is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.graph.diffusion import Diffused, diffuse
from resight.graph.graph import Graph, mutual, of_pairs, pair_codes
from resight.graph.neighbours import Method
from resight.graph.pool import build_pool
from resight.models.closed_form import project, whitening
from resight.models.moments import moments

COUNTS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0)
NEAR_BEST = 0.97  # of the best agreement: counts with so much are as good, and the largest is taken
MOST = 20_000  # images that the two halves are compared on; more would say the same
_TOLERANCE = 1e-3  # of the diffusions that are only compared


def strongest(found: Diffused, count: float) -> Graph:
    """The pairs above one level θ, which leaves `count` neighbours an image on average.

    Weights are those of the diffusion, of the two ways round the larger. Where there are fewer
    pairs than that, all of them. Of equal ones at the level all are kept.
    """
    n = len(found)
    rows, columns = np.nonzero(np.asarray(found.neighbours) >= 0)
    values = np.asarray(found.values)[rows, columns]
    others = np.asarray(found.neighbours)[rows, columns].astype(np.int64)
    codes = pair_codes(rows, others, n)
    order = np.lexsort((-values, codes))  # of the two ways round the larger comes first
    codes, values = codes[order], values[order]
    first = np.r_[True, codes[1:] != codes[:-1]] if len(codes) else np.zeros(0, bool)
    codes, values = codes[first], values[first]
    wanted = max(1, round(n * count / 2))
    if wanted < len(values):
        kept = values >= np.partition(values, len(values) - wanted)[len(values) - wanted]
        codes, values = codes[kept], values[kept]
    return of_pairs(n, *np.divmod(codes, n), values)


def agreement(
    vectors: Any,
    rows: NDArray[np.int64],
    *,
    k: int,
    method: Method = "exact",
    counts: Sequence[float] = COUNTS,
) -> NDArray[np.float64]:
    """How many of their strongest pairs two halves of the features have in common, for each count.

    vectors (N, D); of `rows` an even sample of at most `MOST`. The halves are every other of the
    features' main axes, evened out: features of a whitening, or whitened here, tell apart in all
    of them alike. Shares from 0 to 1.
    """
    if len(rows) > MOST:
        rows = rows[np.linspace(0, len(rows) - 1, MOST).astype(np.int64)]
    some = np.asarray(vectors[rows], np.float32)
    every = np.ones(len(rows), bool)
    axes = project(some, whitening(moments(some, every), some.shape[1]))
    halves = [_diffused(np.ascontiguousarray(axes[:, start::2]), k, method) for start in (0, 1)]
    shares = []
    for count in counts:
        one, other = (_codes(strongest(half, count)) for half in halves)
        shares.append(len(np.intersect1d(one, other)) / max(1, min(len(one), len(other))))
    return np.array(shares)


def believed(shares: NDArray[np.float64], counts: Sequence[float] = COUNTS) -> float:
    """The largest count of nearly the best agreement."""
    best = float(shares.max(initial=0))
    return max(c for c, share in zip(counts, shares, strict=True) if share >= NEAR_BEST * best)


def _diffused(vectors: NDArray[np.float32], k: int, method: Method) -> Diffused:
    pool = build_pool(vectors, k=k, method=method)
    graph = mutual(np.asarray(pool.neighbours), np.asarray(pool.similarities))
    return diffuse(graph, tolerance=_TOLERANCE)


def _codes(graph: Graph) -> NDArray[np.int64]:
    """Each pair once, as one number."""
    rows, others = graph.rows(), graph.indices.astype(np.int64)
    return (rows * len(graph) + others)[rows < others]
