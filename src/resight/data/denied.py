"""What images are not: the column not_object, which the service's feedback writes.

A JSON list of names, such as ["red mug", "jug"]; text that is no such list is one name.
"""

from __future__ import annotations

import json

import polars as pl

COLUMN = "not_object"


def denials(table: pl.DataFrame) -> list[frozenset[str]]:
    """Of each row (n,) the objects that it is said not to show; none where there is no column."""
    if COLUMN not in table.columns:
        return [frozenset()] * table.height
    return [_names(value) for value in table[COLUMN].to_list()]


def denied(table: pl.DataFrame) -> pl.Series:
    """Whether each row (n,) carries an object that the same row denies."""
    pairs = zip(table["object"].to_list(), denials(table), strict=True)
    return pl.Series("denied", [name in names for name, names in pairs], pl.Boolean)


def _names(value: object) -> frozenset[str]:
    if value is None or value == "":
        return frozenset()
    if isinstance(value, list):  # as Parquet may hold it
        return frozenset(str(one) for one in value)
    try:
        found = json.loads(str(value))
    except ValueError:
        found = None
    if not isinstance(found, list):
        return frozenset({str(value)})
    return frozenset(str(one) for one in found)
