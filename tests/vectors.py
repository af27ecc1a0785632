"""Vectors whose order of similarity can be seen without a computer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def angles(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors in the plane at these angles: the nearer the angle, the more similar."""
    turns = np.radians(degrees)
    return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)
