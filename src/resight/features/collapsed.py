"""Whether features have collapsed: all of one direction, so that all similarities are alike.

So end trainings that went wrong (a loss whose best answer is the same vector for everything),
networks that get the same picture whatever is asked, and arrays that were never filled. Scores of
such features are made of rounding errors, and look like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.features.rows import Rows

NOTE = "collapsed: all similarities are alike; these features tell nothing apart"
SAMPLE = 512  # rows looked at
# 1 - cosine to their mean, below which directions are the same. Rounding to bfloat16 makes about
# 1e-5; networks with random weights, which are the worst that still tell images apart, leave 3e-3
# and more between similar pictures, and trained ones a hundred times that.
ALIKE = 1e-4


def collapsed(features: Rows, rows: NDArray[np.integer[Any]] | None = None) -> bool:
    """Whether features (N, D) are all of one direction, or all zero, as far as `rows` (n,) go.

    At most 512 rows, evenly spread, are read; those that are not finite don't count. One row says
    nothing: False.
    """
    rows = np.arange(len(features)) if rows is None else rows
    chosen = _spread(rows, SAMPLE)
    if len(chosen) < 2:
        return False
    wide = _read(features, chosen)
    wide = wide[np.isfinite(wide).all(axis=1)]
    if len(wide) < 2:
        return False
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not lengths.any():
        return True
    units = wide / np.where(lengths > 0, lengths, 1)  # a zero row is of no direction
    mean = units.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return length > 0 and bool((units @ mean / length > 1 - ALIKE).all())


def alike(similarity: Rows) -> bool:
    """The same of a matrix of similarities (Q, G), of whatever scale: all equal, as good as."""
    if len(similarity) == 0:
        return False
    wide = _read(similarity, _spread(np.arange(len(similarity)), SAMPLE // 8))
    low, high = wide.min(initial=np.inf), wide.max(initial=-np.inf)
    return wide.size > 1 and bool(high - low <= 1e-6 * max(abs(low), abs(high)))


def _read(source: Rows, rows: Iterable[Any]) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(source[r : r + 1], np.float64) for r in map(int, rows)])


def _spread(rows: NDArray[np.integer[Any]], count: int) -> NDArray[np.integer[Any]]:
    """At most `count` of the rows, evenly spread."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
