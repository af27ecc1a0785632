"""Thresholds on similarity, by how many neighbours the average image has above them.

A similarity means something else to every network, and the whole scale rises as one trains; that
the average image has one neighbour above a threshold means the same to all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resight.graph.pool import Pool
from resight.mining.memory import MemoryBank

Rows = NDArray[np.int64]
ROWS, OTHERS = 2_000, 20_000  # sampled at most


def pool_levels(
    pool: Pool, rows: Rows, neighbours: Sequence[float], weight: float = 0.0, cap: int = 1
) -> list[float]:
    """The similarities above which rows (n,) have so many neighbours each, on average.

    One for each number in `neighbours`; the pool must hold that many. Spatial verification counts
    as in `Pool.scores`. Up to 20,000 rows are looked at.
    """
    sample = _spread(rows, OTHERS)
    found = pool.scores(sample, weight, cap)
    return _levels(found.ravel(), [number * len(sample) for number in neighbours])


def bank_levels(bank: MemoryBank, rows: Rows, neighbours: Sequence[float]) -> list[float]:
    """The same by the plain vectors of a memory, for the rows (n,) that are in it.

    Estimated from the similarities of up to 2,000 rows to up to 20,000, evenly spread.
    """
    rows = rows[bank.filled(rows, "plain")]
    asking, others = _spread(rows, ROWS), _spread(rows, OTHERS)
    if len(rows) < 2:
        return [1.0] * len(neighbours)
    vectors = bank.read(others, "plain")
    found = []
    most = 0.0
    for start in range(0, len(asking), 256):
        part = asking[start : start + 256]
        similarity = bank.read(part, "plain") @ vectors.T
        similarity[part[:, None] == others[None]] = -2  # itself
        # Of each row more than any level can ask for.
        most = min(len(others) - 1, 10 + 10 * max(neighbours))
        keep = len(others) - int(most)
        found.append(np.partition(similarity, keep, axis=1)[:, keep:].ravel())
    # A row was compared with a part of the others only: so many fewer of its neighbours are here.
    share = len(asking) * (len(others) - 1) / (len(rows) - 1)
    return _levels(np.concatenate(found), [number * share for number in neighbours])


def _levels(similarities: NDArray[np.floating], counts: Sequence[float]) -> list[float]:
    """The similarity that each so manyth largest has."""
    falling = np.sort(similarities)[::-1]
    places = [min(len(falling), max(1, round(count))) - 1 for count in counts]
    return [float(np.clip(falling[place], -1, 1)) for place in places]


def _spread(rows: Rows, most: int) -> Rows:
    """Up to `most` of the rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))]
