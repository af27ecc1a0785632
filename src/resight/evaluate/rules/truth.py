"""A protocol applied to a table: who queries, what is searched, what is right and what is junk.

Positives and junk are made for a range of queries at a time: at VGGFace2's size there are 57
million of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.errors import UserError
from resight.evaluate.protocols import Level, Protocol, choose, condition
from resight.evaluate.ranking.csr import Csr, Ints, offsets, ragged_ranges
from resight.evaluate.ranking.result import GivenTruth, Truth

_CAMERA_NOTE = (
    "cross-camera rule off: every match was taken by the camera of its query,"
    " so the rule would leave no query"
)
UNKNOWN = -1  # the code of a null object or camera
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """A protocol applied to a table, as integers.

    `queries` (Q,) and `gallery` (G,): table rows, rising. `truth`: places in `gallery` that are
    positives and junk of each query. `object` and `camera` (rows of the table,): codes, -1 for
    unknown. Left out are `without_match` queries that have no positive (with an open set they
    stay) and `unknown` ones whose object is not known.
    """

    queries: Ints
    gallery: Ints
    truth: Truth
    object: Ints
    camera: Ints
    without_match: int
    unknown: int

    def take(self, kept: Ints) -> Matches:
        """These queries only."""
        return replace(self, queries=self.queries[kept], truth=_take(self.truth, kept))


def matches(table: pl.DataFrame, protocol: Protocol, usable: Bools | None = None) -> Matches:
    """Who queries what, without a loop over queries.

    Rows of unknown object are distractors and never query, unless positives are listed; a query's
    own row is junk for it. `usable` (rows of the table,) leaves rows out altogether. The
    protocol's `within` and draws are the caller's, who makes them into `usable` and roles.

    Raises UserError when no query has a match, with the reason.
    """
    chosen = taking_part(table, protocol) & (True if usable is None else usable)
    asks = seeks = chosen
    if protocol.mode == "query-gallery":
        role = table["role"].fill_null("both")
        asks = chosen & (role != "gallery").to_numpy()
        seeks = chosen & (role != "query").to_numpy()
    if protocol.gallery is not None:
        besides = table.select(condition(protocol.gallery, table)).to_series().to_numpy()
        seeks = seeks | (besides & (True if usable is None else usable))
    if protocol.queries is not None:
        asks = asks & table.select(condition(protocol.queries, table)).to_series().to_numpy()
    objects, cameras = codes(table["object"]), codes(table["camera"])
    gallery = np.flatnonzero(seeks)
    if protocol.positives:
        queries, unknown = np.flatnonzero(asks), 0
        whole: Truth = _listed(table, protocol, queries, gallery)
    else:
        known = objects != UNKNOWN
        queries, unknown = np.flatnonzero(asks & known), int((asks & ~known).sum())
        whole = _SameObject.of(queries, gallery, objects, cameras, protocol.cross_camera)
    found = whole.counts() > 0
    if not found.any():
        raise UserError(_why_nothing(queries, gallery, unknown, whole, protocol))
    # The legacy centroids depend on all queries, even on those without a match.
    keep_all = protocol.open_set or protocol.legacy
    kept = np.arange(len(queries)) if keep_all else np.flatnonzero(found)
    if len(kept) < len(queries):
        whole = _take(whole, kept)
    return Matches(
        queries[kept], gallery, whole, objects, cameras, int((~found).sum()), unknown
    )  # fmt: skip


def taking_part(table: pl.DataFrame, protocol: Protocol) -> Bools:
    """(rows,) bool: the rows that a protocol's split and condition choose."""
    chosen: Bools = np.ones(table.height, dtype=bool)
    if protocol.split is not None:
        chosen = (table["split"] == protocol.split).fill_null(False).to_numpy()
    if protocol.rows is not None:
        chosen = chosen & table.select(condition(protocol.rows, table)).to_series().to_numpy()
    return chosen


@dataclass(frozen=True)
class _SameObject:
    """The rows of the query's object are right; as `Truth`, made when asked for.

    `order` sorts the gallery by object; of it, query q's candidates are `count[q]` from `start[q]`
    on. `same`: how many of them are junk, its own row or by its camera.
    """

    queries: Ints
    gallery: Ints
    camera: Ints
    cross_camera: bool
    order: Ints
    start: Ints
    count: Ints
    same: Ints

    @staticmethod
    def of(
        queries: Ints, gallery: Ints, objects: Ints, cameras: Ints, cross_camera: bool
    ) -> _SameObject:
        order = np.argsort(objects[gallery], kind="stable")
        by_object = objects[gallery][order]
        start = np.searchsorted(by_object, objects[queries], side="left")
        count = np.searchsorted(by_object, objects[queries], side="right") - start
        same = np.isin(queries, gallery).astype(np.int64)
        if cross_camera:
            n = int(cameras.max(initial=0)) + 1
            joint = np.sort((objects * n + cameras)[gallery[(cameras[gallery] >= 0)]])
            wanted = (objects * n + cameras)[queries]
            taken = np.searchsorted(joint, wanted, side="right") - np.searchsorted(joint, wanted)
            same = np.where(cameras[queries] >= 0, taken, same)
        return _SameObject(queries, gallery, cameras, cross_camera, order, start, count, same)

    def __len__(self) -> int:
        return len(self.queries)

    def counts(self) -> Ints:
        """Positives a query."""
        return self.count - self.same

    def lists(self, start: int, stop: int) -> tuple[Csr, Csr]:
        """Positives and junk of queries [start, stop)."""
        count = self.count[start:stop]
        place = self.order[ragged_ranges(self.start[start:stop], count)]
        query = np.repeat(np.arange(len(count)), count)
        left, right = self.queries[start:stop][query], self.gallery[place]
        junk = left == right
        if self.cross_camera:
            junk |= (self.camera[left] == self.camera[right]) & (self.camera[left] != UNKNOWN)
        n_junk = np.bincount(query[junk], minlength=len(count))
        return (
            Csr(offsets(count - n_junk), place[~junk]),
            Csr(offsets(n_junk), place[junk]),
        )

    def take(self, kept: Ints) -> _SameObject:
        """The truth of these queries."""
        return replace(
            self, queries=self.queries[kept], start=self.start[kept],
            count=self.count[kept], same=self.same[kept],
        )  # fmt: skip


def _take(truth: Truth, kept: Ints) -> Truth:
    if isinstance(truth, _SameObject):
        return truth.take(kept)
    positives, junk = truth.lists(0, len(truth))
    return GivenTruth(positives.take(kept), junk.take(kept))


def _listed(table: pl.DataFrame, protocol: Protocol, queries: Ints, gallery: Ints) -> GivenTruth:
    """Positives and junk from columns that list names of gallery rows."""
    if "name" not in table.columns:
        raise UserError("protocol: positives are listed by name, and there is no column 'name'")
    names = pl.DataFrame({"name": table["name"][gallery], "place": np.arange(len(gallery))})
    if names["name"].is_duplicated().any():
        twice = names["name"].filter(names["name"].is_duplicated())[0]
        raise UserError(f"two gallery rows are named {twice!r}; names must be unique")
    own = pl.DataFrame({"query": np.arange(len(queries)), "row": queries}).join(
        pl.DataFrame({"place": np.arange(len(gallery)), "row": gallery}), on="row"
    )
    positives = _places(table, protocol.positives, queries, names)
    junk = pl.concat([_places(table, protocol.junk, queries, names), own.select("query", "place")])
    positives = positives.join(own.select("query", "place"), on=["query", "place"], how="anti")
    junk = junk.unique().join(positives, on=["query", "place"], how="anti")
    return GivenTruth(_csr(positives, len(queries)), _csr(junk, len(queries)))


def _places(
    table: pl.DataFrame, columns: tuple[str, ...], queries: Ints, names: pl.DataFrame
) -> pl.DataFrame:
    """(query, place in the gallery) of the names in these columns; those of no row are nothing."""
    parts = [pl.DataFrame(schema={"query": pl.Int64, "place": pl.Int64})]
    for column in columns:
        if column not in table.columns:
            raise UserError(f"protocol: no column {column!r}, which lists names of gallery rows")
        lists = table[column][queries]
        if lists.dtype == pl.String:  # as in a CSV file
            lists = lists.str.split(";").list.eval(pl.element().str.strip_chars())
        if lists.dtype != pl.List(pl.String):
            raise UserError(f"protocol: column {column!r} is no list of names but {lists.dtype}")
        each = pl.DataFrame({"query": np.arange(len(queries)), "name": lists}).explode("name")
        parts.append(each.join(names, on="name").select("query", "place"))
    return pl.concat(parts).unique()


def _csr(pairs: pl.DataFrame, rows: int) -> Csr:
    pairs = pairs.sort("query", "place")
    counts = np.bincount(pairs["query"].to_numpy(), minlength=rows)
    return Csr(offsets(counts), pairs["place"].to_numpy())


def codes(column: pl.Series) -> Ints:
    """Whole numbers for the values of a column, by first appearance; -1 for null."""
    kinds = column.drop_nulls().unique(maintain_order=True)
    ids = column.replace_strict(kinds, range(len(kinds)), default=None, return_dtype=pl.Int64)
    return ids.fill_null(UNKNOWN).to_numpy().astype(np.int64)


def _why_nothing(
    queries: Ints, gallery: Ints, unknown: int, truth: Truth, protocol: Protocol
) -> str:
    if not len(queries):
        if unknown:
            return "nothing to evaluate: no query's object is known; fill the object column"
        return "nothing to evaluate: no image is a query; give some rows the role query or both"
    if not len(gallery):
        return "nothing to evaluate: the gallery is empty; give some rows the role gallery or both"
    if protocol.positives:
        listed = ", ".join(protocol.positives)
        return f"no query has a match: the names in {listed} are not those of gallery rows"
    if protocol.cross_camera and _camera_is_why(truth):
        return (
            "no query has a match: every match was taken by the camera of its query;"
            " switch the cross-camera rule off"
        )
    if protocol.mode == "leave-one-out":
        return (
            "no query has a match: every object has a single image;"
            " at least one object needs two images or more"
        )
    return (
        "no query has a match: none of the queries' objects is in the gallery;"
        " check that both name objects alike"
    )


def _camera_is_why(truth: Truth) -> bool:
    """Whether there are matches, all of them by the camera of their query."""
    if not isinstance(truth, _SameObject):
        return False
    itself = np.isin(truth.queries, truth.gallery)
    return not truth.counts().any() and bool((truth.count - itself).any())


def chosen_for(
    table: pl.DataFrame, level: Level, cross_camera: bool | None, usable: Bools | None = None
) -> Protocol:
    """The protocol that a table asks for (`protocols.choose`), with its camera rule decided.

    By itself the rule is off, with a note, where it would leave no query.
    """
    protocol = choose(table, level, cross_camera)
    if cross_camera is not None or not protocol.cross_camera:
        return protocol
    without = replace(protocol, cross_camera=False, name="", notes=(_CAMERA_NOTE,))
    for tried in (protocol, without):
        try:
            matches(table, tried, usable)
        except UserError:
            continue
        return tried
    return protocol
