"""Features as if of images that are nowhere, for galleries that need no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from resight.data.imageset import ImageSet, normalise
from resight.features.store import Features

TEXT = pl.String


def features_of(
    vectors: Any,
    objects: Sequence[str | None],
    first: int = 0,
    cameras: Sequence[str | None] | None = None,
    *,
    numbers: Sequence[int] | None = None,
    root: str = "/g",
    **columns: Sequence[Any],
) -> Features:
    """Features (N, D) of /g/<first>.png and so on, or of these numbers."""
    names = range(first, first + len(vectors)) if numbers is None else numbers
    table = pl.DataFrame(
        {
            "path": [f"{root}/{number}.png" for number in names],
            "object": pl.Series(objects, dtype=TEXT),
            "camera": pl.Series(cameras or [None] * len(vectors), dtype=TEXT),
            **columns,
        }
    )
    vectors = np.asarray(vectors, np.float32)
    valid = np.asarray(np.isfinite(vectors).all(axis=1))
    return Features(ImageSet(normalise(table), Path()), (vectors,), valid)


def crowd(count: int, dim: int = 8, objects: int = 10, seed: int = 0, spread: float = 0.4) -> Any:
    """Vectors (count, dim) around the means of objects, and the names of these: a0, a1, ..."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(objects, dim))
    of = rng.integers(0, objects, count)
    vectors = means[of] + spread * rng.normal(size=(count, dim))
    return vectors.astype(np.float32), [f"a{one}" for one in of]
