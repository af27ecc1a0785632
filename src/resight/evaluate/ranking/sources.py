"""Views on stored features: chosen rows, and the check that they are numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.csr import Ints
from resight.features.rows import Rows

_SPAN = 8192  # source rows read at once, where rows can only be read in slices


class Picked:
    """Some rows of a source, as a source: `Picked(features, rows)[a:b]` is features[rows[a:b]].

    rows: rising, so that a memory map is read forwards.
    """

    def __init__(self, source: Rows, rows: Ints) -> None:
        self.source, self.rows = source, rows
        self._whole = len(rows) == len(source)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.source.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: slice) -> NDArray[Any]:
        if self._whole:
            return np.asarray(self.source[key])
        rows = self.rows[key]
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1:  # without a gap: no copy
            return np.asarray(self.source[int(rows[0]) : int(rows[-1]) + 1])
        if isinstance(self.source, np.ndarray):
            return np.asarray(self.source[rows])
        parts = [np.asarray(self.source[0:0])]
        done = 0
        while done < len(rows):
            first = int(rows[done])
            stop = int(np.searchsorted(rows, first + _SPAN))
            span = np.asarray(self.source[first : int(rows[stop - 1]) + 1])
            parts.append(span[rows[done:stop] - first])
            done = stop
        return np.concatenate(parts)


def not_finite(features: Rows, rows: Ints) -> Ints:
    """Those of `rows` (rising) that hold a NaN or an infinity."""
    picked = Picked(features, rows)
    bad = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(rows), 1024):
        block = picked[start : start + 1024]
        bad.append(rows[start : start + 1024][~np.isfinite(block).all(axis=1)])
    return np.concatenate(bad)
