"""Which rows of an image set are the gallery, and which ask."""

from __future__ import annotations

import polars as pl

from resight.data.imageset import ImageSet
from resight.errors import UserError


def gallery_rows(images: ImageSet) -> pl.Series:
    """The gallery images of the test rows if the set has roles, else all rows."""
    return _rows(images, "gallery")


def query_rows(images: ImageSet) -> pl.Series:
    """The queries of the test rows if the set has roles, else all rows."""
    return _rows(images, "query")


def _rows(images: ImageSet, role: str) -> pl.Series:
    table = images.table.with_row_index("_row")
    if images.table["role"].is_in(["query", "gallery"]).any():
        if (images.table["split"] == "test").any():
            table = table.filter(pl.col("split") == "test")
        table = table.filter(pl.col("role").is_null() | pl.col("role").is_in([role, "both"]))
    if not table.height:
        raise UserError(f"{images.source}: no row has the role {role} (or both, or none)")
    return table["_row"]
