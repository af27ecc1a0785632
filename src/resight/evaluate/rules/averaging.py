"""Several photos as one: rows averaged to one vector, for templates and for multi-query.

An IJB-C video, a track, several photos of one thing: their un-normalised features are averaged, as
a centroid is (the same sums). The averaged vectors are rows of their own behind the given ones;
their members take no more part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.errors import UserError
from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking.csr import Ints
from resight.evaluate.ranking.sources import Picked
from resight.evaluate.rules.truth import UNKNOWN, Bools, codes, taking_part
from resight.features.rows import Rows
from resight.search.centroids import CentroidSums


@dataclass(frozen=True)
class Averaged:
    """Features and table with the averaged rows behind the given ones.

    `usable` (rows,): which take part; `origin` (rows,): the given row that pictures each.
    """

    features: Rows
    table: pl.DataFrame
    usable: Bools
    origin: Ints


def average(features: Rows, table: pl.DataFrame, protocol: Protocol, usable: Bools) -> Averaged:
    """Average what the protocol says: the rows of a template, or queries that agree in columns.

    Members must be of one object. A row whose value is null stays as it is. The camera of an
    average is that of its members, unknown where they differ.

    Raises UserError: no such column; members of several cameras under the cross-camera rule; a
    query that is in the gallery too.
    """
    columns = [protocol.templates] if protocol.templates else list(protocol.multi_query)
    members = usable & taking_part(table, protocol)
    if not columns:
        return Averaged(features, table, usable, np.arange(table.height))
    for column in columns:
        if column not in table.columns:
            have = ", ".join(table.columns)
            raise UserError(f"protocol: no column {column!r} to average by; there are {have}")
    if protocol.multi_query:
        role = table["role"]
        members &= (role != "gallery").fill_null(True).to_numpy()
        if (role.fill_null("both") == "both").to_numpy()[members].any():
            raise UserError("protocol: multi_query needs queries of role query, not in the gallery")
    keys = table.select(pl.struct(["object", *columns]).alias("key"))["key"]
    known = np.ones(table.height, dtype=bool)
    for column in ("object", *columns):
        known &= table[column].is_not_null().to_numpy()
    rows = np.flatnonzero(members & known)
    if not len(rows):
        return Averaged(features, table, usable, np.arange(table.height))
    _, first, group = np.unique(
        codes(keys[rows].struct.json_encode()), return_index=True, return_inverse=True
    )
    sums = CentroidSums.of(Picked(features, rows), group, None, len(first))
    vectors = (sums.sums / sums.counts[:, None]).astype(np.float32)
    camera = codes(table["camera"])[rows]
    mixed = np.zeros(len(first), dtype=bool)
    np.logical_or.at(mixed, group, camera != camera[first][group])
    if protocol.cross_camera and mixed.any():
        which = table["path"][int(rows[first[np.flatnonzero(mixed)[0]]])]
        raise UserError(
            f"protocol: the query around {which} is averaged over several cameras; with the"
            " cross-camera rule, average by camera too"
        )
    added = table[rows[first]].with_columns(
        camera=pl.when(pl.Series(mixed)).then(None).otherwise(pl.col("camera"))
    )
    left = usable.copy()
    left[rows] = False
    return Averaged(
        _Appended(features, vectors),
        pl.concat([table, added]),
        np.concatenate((left, np.ones(len(first), dtype=bool))),
        np.concatenate((np.arange(table.height), rows[first])),
    )


def large_enough(table: pl.DataFrame, protocol: Protocol, usable: Bools) -> Bools:
    """Which rows are of an object with `min_images` usable rows that take part, or of none."""
    if protocol.min_images <= 1:
        return usable
    objects = codes(table["object"])
    inside = usable & taking_part(table, protocol) & (objects != UNKNOWN)
    counts = np.bincount(objects[inside], minlength=int(objects.max(initial=0)) + 1)
    enough: Bools = (objects == UNKNOWN) | (counts[objects] >= protocol.min_images)
    return usable & enough


class _Appended:
    """A source with more rows behind it."""

    def __init__(self, source: Rows, more: NDArray[Any]) -> None:
        self._source, self._more = source, more

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._source.shape[1:])

    def __len__(self) -> int:
        return len(self._source) + len(self._more)

    def __getitem__(self, key: slice) -> NDArray[Any]:
        start, stop, _ = key.indices(len(self))
        n = len(self._source)
        front = np.asarray(self._source[min(start, n) : min(stop, n)])
        back = self._more[max(start - n, 0) : max(stop - n, 0)]
        if not len(back):
            return front
        return np.concatenate((front, back)) if len(front) else back
