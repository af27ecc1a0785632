"""The order of what an engine's own index has found: cosines in float64, ties by key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.search.engines.contract import Near
from resight.search.index import unit


def ordered(query: NDArray[np.float32], found: Sequence[Any], fetch: int) -> Near:
    """The best of (key, group, vector of any length) for a unit query (D,)."""
    keys = np.array([row[0] for row in found], np.int64)
    groups = np.array([row[1] for row in found], np.int64)
    if not found:
        return Near(keys, groups, np.zeros(0))
    rows = unit(np.stack([row[2] for row in found])).astype(np.float64)
    similar = (rows * query.astype(np.float64)).sum(axis=1)
    best = np.lexsort((keys, -similar))[:fetch]
    return Near(keys[best], groups[best], similar[best])
