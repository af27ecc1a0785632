"""Features that offer no more than the evaluation may ask of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class OnlySlices:
    """Rows that can be counted and sliced, nothing else."""

    def __init__(self, rows: NDArray[Any]):
        self._rows, self.shape = rows, rows.shape

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: slice) -> NDArray[Any]:
        assert isinstance(key, slice)
        return np.asarray(self._rows[key])
