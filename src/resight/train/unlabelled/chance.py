"""How alike images are by chance."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.units import unit_rows
from resight.features.store import Features


def by_chance(features: Features, rows: NDArray[np.int64], neighbours: float) -> float:
    """The similarity above which an image would have so many neighbours if none were related."""
    few = rows[np.unique(np.linspace(0, len(rows) - 1, 1000).astype(np.int64))]
    vectors = unit_rows(np.asarray(features[few], np.float32))
    found = (vectors @ vectors.T)[np.triu_indices(len(few), 1)]
    # The middle half says how wide the bulk is, whatever the related pairs do.
    low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
    share = min(0.5, neighbours / max(1, len(rows) - 1))
    return float(middle + (high - low) / 1.349 * NormalDist().inv_cdf(1 - share))
