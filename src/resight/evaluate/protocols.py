"""A protocol says who queries, what is gallery, what is junk, and how it is counted.

"mAP" alone is seven quantities; a protocol is a value that is printed and stored with each
number. `choose` picks the one an image set asks for, `matches` turns it into index lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.errors import UserError
from resight.evaluate.csr import Csr, Ints, offsets, ragged_ranges
from resight.evaluate.metrics import ApKind
from resight.evaluate.ranks import Ties

Level = Literal["image", "object"]
Mode = Literal["query-gallery", "leave-one-out"]
CUTOFFS = (1, 5, 10, 20, 50)
UNKNOWN = -1  # the code of a null object or camera


@dataclass(frozen=True)
class Protocol:
    """Everything that decides what a number means.

    mode: "query-gallery" (by the images' roles) or "leave-one-out" (every image queries all
    others). cross_camera: Market-1501's junk rule; a gallery image of the query's object taken
    by the query's camera is removed for that query (Zheng et al., ICCV 2015). level: the
    gallery is one vector an image, or one centroid an object. split: the rows that take part,
    None for all. `notes` say why it was chosen so and take no part in comparisons.
    """

    mode: Mode
    level: Level = "image"
    cross_camera: bool = False
    split: str | None = None
    ap: ApKind = "rectangular"
    cutoffs: tuple[int, ...] = CUTOFFS
    ties: Ties = "by-id"
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name, allowed in (("mode", Mode), ("level", Level), ("ap", ApKind), ("ties", Ties)):
            value = getattr(self, name)
            if value not in get_args(allowed):
                choices = ", ".join(get_args(allowed))
                raise UserError(f"protocol: {name} {value!r} is none of {choices}")

    @property
    def name(self) -> str:
        """What is printed beside each number: "query-gallery, cross-camera"."""
        return self.mode + (", cross-camera" if self.cross_camera else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` is the way back."""
        plain = asdict(self)
        return plain | {"cutoffs": list(self.cutoffs), "notes": list(self.notes)}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Protocol:
        """The protocol of a dictionary. Raises UserError when it holds an unknown name."""
        known = {f.name for f in fields(Protocol)}
        unknown = sorted(set(plain) - known)
        if unknown or "mode" not in plain:
            wrong = f"unknown {', '.join(unknown)}" if unknown else "no mode"
            raise UserError(f"protocol: {wrong}; a protocol has {', '.join(sorted(known))}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
        }
        return Protocol(**values)


@dataclass(frozen=True)
class Matches:
    """A protocol applied to a table, as integers.

    `queries` (Q,) and `gallery` (G,): table rows, rising. `positives` and `junk`: for each query,
    places in `gallery`, disjoint. `object` and `camera` (rows of the table,): codes, -1 for
    unknown. Left out are `without_match` queries that have no positive and `unknown` ones whose
    object is not known.
    """

    queries: Ints
    gallery: Ints
    positives: Csr
    junk: Csr
    object: Ints
    camera: Ints
    without_match: int
    unknown: int


def choose(
    table: pl.DataFrame,
    level: Level = "image",
    cross_camera: bool | None = None,
    usable: NDArray[np.bool_] | None = None,
) -> Protocol:
    """The protocol that an image set's table asks for.

    Its test rows where it has any, all rows where none has a split. By role where any of those
    rows has one, else leave one out. The cross-camera rule where cameras are known, unless it would
    leave no query with a match; True or False forces it. Rows not `usable` don't take part.

    Raises UserError when there are only train and val rows.
    """
    splits = set(table["split"].drop_nulls().unique())
    if splits and "test" not in splits:
        raise UserError(
            f"nothing to evaluate: the rows are all {' or '.join(sorted(splits))}, none is test;"
            " mark test rows in the split column, or leave the column out"
        )
    protocol = Protocol("leave-one-out", level=level, split="test" if splits else None)
    rows = table.filter(split="test") if splits else table
    if rows["role"].is_in(["query", "gallery"]).any():
        protocol = replace(protocol, mode="query-gallery")
    if cross_camera is not None:
        return replace(protocol, cross_camera=cross_camera)
    if rows["camera"].null_count() == rows.height:
        return protocol

    pairs = _pairs(table, protocol, usable)
    if pairs.other.any() and not (pairs.other & ~pairs.same_camera).any():
        note = (
            "cross-camera rule off: every match was taken by the camera of its query,"
            " so the rule would leave no query"
        )
        return replace(protocol, notes=(note,))
    return replace(protocol, cross_camera=True)


def matches(
    table: pl.DataFrame, protocol: Protocol, usable: NDArray[np.bool_] | None = None
) -> Matches:
    """Who queries what: the positives and the junk of every query, without a loop over queries.

    Rows of unknown object are distractors and never query; a query's own row is junk for it.
    `usable` (rows of the table,) leaves rows out altogether.

    Raises UserError when no query has a match, with the reason.
    """
    pairs = _pairs(table, protocol, usable)
    positive = pairs.other
    if protocol.cross_camera:
        positive = positive & ~pairs.same_camera
    found = np.bincount(pairs.query[positive], minlength=len(pairs.queries)) > 0
    if not found.any():
        raise UserError(_why_nothing(pairs, protocol))
    kept = np.flatnonzero(found)
    return Matches(
        queries=pairs.queries[kept],
        gallery=pairs.gallery,
        positives=_lists(pairs, positive).take(kept),
        junk=_lists(pairs, ~positive).take(kept),
        object=pairs.object,
        camera=pairs.camera,
        without_match=len(pairs.queries) - len(kept),
        unknown=pairs.unknown,
    )


@dataclass(frozen=True)
class _Pairs:
    """Every (query, gallery image) of the same object, by query, then by gallery place."""

    queries: Ints
    gallery: Ints
    query: Ints  # place in `queries`, one a pair, rising
    place: Ints  # place in `gallery`, one a pair
    other: NDArray[np.bool_]  # not the query's own row
    same_camera: NDArray[np.bool_]  # both cameras known, and the same
    object: Ints
    camera: Ints
    unknown: int


def _pairs(table: pl.DataFrame, protocol: Protocol, usable: NDArray[np.bool_] | None) -> _Pairs:
    chosen = np.ones(table.height, dtype=bool) if usable is None else usable
    if protocol.split is not None:
        chosen = chosen & (table["split"] == protocol.split).fill_null(False).to_numpy()
    asks = seeks = chosen
    if protocol.mode == "query-gallery":
        role = table["role"].fill_null("both")
        asks = chosen & (role != "gallery").to_numpy()
        seeks = chosen & (role != "query").to_numpy()
    objects, cameras = codes(table["object"]), codes(table["camera"])
    queries = np.flatnonzero(asks & (objects != UNKNOWN))
    gallery = np.flatnonzero(seeks)

    # The gallery sorted by object: a query's candidates are one run of it.
    order = np.argsort(objects[gallery], kind="stable")
    by_object = objects[gallery][order]
    start = np.searchsorted(by_object, objects[queries], side="left")
    count = np.searchsorted(by_object, objects[queries], side="right") - start
    place = order[ragged_ranges(start, count)]
    query = np.repeat(np.arange(len(queries)), count)
    left, right = queries[query], gallery[place]
    return _Pairs(
        queries, gallery, query, place,
        other=left != right,
        same_camera=(cameras[left] == cameras[right]) & (cameras[left] != UNKNOWN),
        object=objects, camera=cameras, unknown=int((asks & (objects == UNKNOWN)).sum()),
    )  # fmt: skip


def _lists(pairs: _Pairs, keep: NDArray[np.bool_]) -> Csr:
    counts = np.bincount(pairs.query[keep], minlength=len(pairs.queries))
    return Csr(offsets(counts), pairs.place[keep])


def codes(column: pl.Series) -> Ints:
    """Whole numbers for the values of a column, by first appearance; -1 for null."""
    kinds = column.drop_nulls().unique(maintain_order=True)
    ids = column.replace_strict(kinds, range(len(kinds)), default=None, return_dtype=pl.Int64)
    return ids.fill_null(UNKNOWN).to_numpy().astype(np.int64)


def _why_nothing(pairs: _Pairs, protocol: Protocol) -> str:
    if not len(pairs.queries):
        if pairs.unknown:
            return "nothing to evaluate: no query's object is known; fill the object column"
        return "nothing to evaluate: no image is a query; give some rows the role query or both"
    if not len(pairs.gallery):
        return "nothing to evaluate: the gallery is empty; give some rows the role gallery or both"
    if protocol.cross_camera and pairs.other.any():
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
