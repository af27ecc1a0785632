"""The map as JSON: positions, and what they are coloured by."""

from __future__ import annotations

import gzip
import json
from typing import Any

from resight.files import strict_json
from resight.search.finding import user_columns
from resight.search.overview import Overview
from resight.search.where.tree import number_in
from resight.serve.catalogue import Catalogue, Json
from resight.serve.problems import Problem

OWN = ("object", "camera", "split")
_FEW = 12  # numbers that are told apart by name


def colourings(catalogue: Catalogue) -> list[str]:
    """The columns that a map can be coloured by."""
    named: list[str] = catalogue.once(
        ("colourings",), lambda: [*OWN, *user_columns(catalogue.gallery.engine)]
    )
    return named


def packed(catalogue: Catalogue, made: Overview | None, making: bool, by: str) -> bytes:
    """The map as gzipped JSON. Raises Problem for a column that there is not."""
    if by not in colourings(catalogue):
        raise Problem(422, f"by: {by[:80]} is no column of this gallery")
    of = str(made.told["version"]) if made is not None else ""
    return catalogue.once(
        ("map", by, of, str(making)),
        lambda: gzip.compress(
            json.dumps(_map(catalogue, made, making, by), separators=(",", ":")).encode(), 4
        ),
    )


def _map(catalogue: Catalogue, made: Overview | None, making: bool, by: str) -> Json:
    told: Json = {"making": making, "by": by, "columns": colourings(catalogue)}
    if made is None:
        empty: Json = {"current": False, "method": None, "images": 0, "points": []}
        return told | empty | {"names": [], "of": [], "values": None}
    engine = catalogue.gallery.engine
    table = engine.table([by])
    there = dict(zip(table["id"], table.get(by) or [None] * len(table["id"]), strict=True))
    ids, points, found = made.ids.tolist(), [], []
    for id_, (x, y) in zip(ids, made.xy.tolist(), strict=True):
        if id_ in there:
            points.append([round(x, 4), round(y, 4), id_])
            found.append(there[id_])
    told["current"] = made.told["version"] == engine.version()
    told |= {"method": made.told["method"], "images": len(there), "points": points}
    return told | _colours(strict_json(found), by)


def _colours(found: list[Any], by: str) -> Json:
    """Names and, for each point, which (-1: none); of numbers that are many, `values` instead."""
    plain = [v if isinstance(v, str | int | float) else None for v in found]
    known = [value for value in plain if value is not None]
    numbers = {value: number_in(str(value)) for value in set(known)}
    if by not in OWN and len(numbers) > _FEW and None not in numbers.values():
        values = [numbers[value] if value is not None else None for value in plain]
        return {"names": [], "of": [], "values": values}
    names = sorted({str(value) for value in known})
    at = {name: place for place, name in enumerate(names)}
    of = [at[str(value)] if value is not None else -1 for value in plain]
    return {"names": names, "of": of, "values": None}
