"""Which queries of several runs are the same ones."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.evaluate.records.record import Record


def same_queries(
    records: Sequence[Record], names: Sequence[str], protocol: str
) -> tuple[list[pl.DataFrame], list[int]]:
    """The runs' tables, row by row of the same queries, and how many each has besides.

    A query is its file, box and repeat. Files are the same by whole path; or, where a set was
    read from another place, by the path as it stands in the set, or by name and object.
    """
    tables = [record.per_query(protocol) for record in records]
    sets = [record.images() for record in records]
    best: list[pl.Series] = []
    most = 0
    for rule in ("whole", "written", "name"):
        keys = [_keys(t, s, r, rule) for t, s, r in zip(tables, sets, records, strict=True)]
        if any(key.is_duplicated().any() for key in keys):
            continue
        common = keys[0]
        for key in keys[1:]:
            common = common.filter(common.is_in(key.implode()))
        if len(common) > most:
            most, best = len(common), [common, *keys]
        if most == max(map(len, keys)):
            break
    if not most:
        raise UserError(
            f"{protocol}: {' and '.join(names)} have no query in common;"
            " compare runs that were evaluated on the same images"
        )
    order = best[0].to_frame("key")
    aligned = [
        order.join(
            table.with_columns(key.alias("key")), on="key", how="left", maintain_order="left"
        ).drop("key")
        for table, key in zip(tables, best[1:], strict=True)
    ]
    return aligned, [table.height - most for table in tables]


def _keys(table: pl.DataFrame, images: ImageSet, record: Record, rule: str) -> pl.Series:
    if not table["row"].is_between(0, len(images) - 1).fill_null(False).all():
        raise UserError(f"{record.folder}: the queries' rows are not those of its images.parquet")
    own = images.table.select("path", "box")[table["row"]]
    path = {
        "whole": own["path"],
        "written": table["path"],
        "name": own["path"].str.extract(r"([^/\\]*)$") + "\0" + table["object"].fill_null("\0"),
    }[rule]
    box = own["box"].cast(pl.List(pl.String)).list.join(" ").fill_null("")
    return path + "\0" + box + "\0" + table["repeat"].cast(pl.String)
