"""A protocol's parts: one search each, whose queries together are the protocol's.

Most protocols have one. `within` has one a value (Street2Shop's categories); random galleries have
one a draw (VehicleID, CUHK03).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from resight.errors import UserError
from resight.evaluate.protocols import Mode, Protocol
from resight.evaluate.rules.truth import UNKNOWN, Bools, Matches, codes, matches, taking_part
from resight.features.rows import Rows


@dataclass(frozen=True)
class Part:
    """One search: its matches, which draw it is, and the value of the `within` column.

    `scores`: rows of scores when sliced, where it was re-ranked.
    """

    matches: Matches
    repeat: int = 0
    value: str | None = None
    scores: Rows | None = field(default=None, compare=False, repr=False)


def parts_of(table: pl.DataFrame, protocol: Protocol, usable: Bools) -> list[Part]:
    """The parts that have a query with a match.

    Raises UserError when none has, with the reason of the first.
    """
    found: list[Part] = []
    reason: UserError | None = None
    for repeat, value, drawn, rows, mode in _settings(table, protocol, usable):
        try:
            one = matches(drawn, replace(protocol, mode=mode), rows)
        except UserError as error:
            reason = reason or error
        else:
            found.append(Part(one, repeat, value))
    if not found:
        raise reason or UserError("nothing to evaluate: no rows take part")
    return found


def _settings(
    table: pl.DataFrame, protocol: Protocol, usable: Bools
) -> Iterator[tuple[int, str | None, pl.DataFrame, Bools, Mode]]:
    """(draw, value, table with its roles, usable rows, mode) of each part."""
    values: list[str | None] = [None]
    column = None
    if protocol.within is not None:
        if protocol.within not in table.columns:
            have = ", ".join(table.columns)
            raise UserError(f"protocol: no column {protocol.within!r} to stay within; {have}")
        column = table[protocol.within].cast(pl.String)
        values = sorted(column.filter(pl.Series(usable)).drop_nulls().unique().to_list())
    for repeat in range(protocol.repeats):
        for value in values:
            rows = usable
            if column is not None:
                rows = usable & (column == value).fill_null(False).to_numpy()
            if protocol.gallery_images is None:
                yield repeat, value, table, rows, protocol.mode
                continue
            drawn, kept = _draw(table, protocol, rows, repeat)
            yield repeat, value, drawn, kept, "query-gallery"


def _draw(
    table: pl.DataFrame, protocol: Protocol, usable: Bools, repeat: int
) -> tuple[pl.DataFrame, Bools]:
    """Roles where `gallery_images` random rows of each object are the gallery.

    With leave-one-out the others are queries. With query-gallery they take no part, unless they
    are queries too. Distractors, of unknown object, all stay in the gallery.
    """
    assert protocol.gallery_images is not None
    role = table["role"].fill_null("both").to_numpy().astype(object)
    if protocol.mode == "leave-one-out":
        role[:] = "both"
    objects = codes(table["object"])
    seeking = usable & taking_part(table, protocol) & (role != "query")
    candidates = np.flatnonzero(seeking & (objects != UNKNOWN))
    rng = np.random.default_rng([protocol.seed, repeat])
    shuffled = rng.permutation(candidates)
    by_object = shuffled[np.argsort(objects[shuffled], kind="stable")]
    _, first, counts = np.unique(objects[by_object], return_index=True, return_counts=True)
    place = np.arange(len(by_object)) - np.repeat(first, counts)
    chosen = by_object[place < protocol.gallery_images]
    kept = usable.copy()
    others = np.setdiff1d(candidates, chosen)
    if protocol.mode == "leave-one-out":
        role[chosen], role[others] = "gallery", "query"
        role[seeking & (objects == UNKNOWN)] = "gallery"
    else:
        kept[others[role[others] == "gallery"]] = False
        role[others[role[others] == "both"]] = "query"
    return table.with_columns(pl.Series("role", role.tolist(), dtype=pl.String)), kept
