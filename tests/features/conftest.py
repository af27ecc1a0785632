"""A set that fills three shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from resight.data.imageset import ImageSet, normalise
from resight.data.sources import load_images
from resight.features import write


@pytest.fixture(scope="session")
def crops(shapes: Path) -> ImageSet:
    """180 rows, which make three shards of 64, 64 and 52: three crops of each of 60 pictures."""
    table = load_images(shapes).table.drop("box")
    boxes = [[0.0, 0, 48, 48], [0.0, 0, 30, 40], [10.0, 5, 48, 48]]
    parts = [
        table.with_columns(pl.Series("box", [box] * table.height, dtype=pl.List(pl.Float64)))
        for box in boxes
    ]
    return ImageSet(normalise(pl.concat(parts)), shapes, "crops")


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "SHARD_ROWS", 64)
        yield
