"""The page of a comparison: numbers, figures, tables by object and camera, queries that moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from resight.evaluate.records.compare import (
    SIGNIFICANT,
    Comparison,
    in_words,
    percent,
    points,
    span,
)
from resight.evaluate.records.record import Record
from resight.evaluate.report.render import write_page
from resight.evaluate.report.thumbnails import LoadThumbnail, data_uri, open_thumbnails

MOVED = 8  # queries shown in each direction
_LISTED = 16  # rows of a table by object or the like
BY = ("object", "camera")


@dataclass(frozen=True)
class _Picture:
    """One picture of a strip, framed as query, right or wrong, and what stands under it."""

    source: str
    path: str
    kind: str
    label: str
    text: str = ""


@dataclass(frozen=True)
class _Strip:
    """A query that moved: its AP and the rank of its first right hit before and after."""

    before: float
    after: float
    ranks: str
    object: str | None
    camera: str | None
    path: str
    pictures: list[_Picture]


def write_compare_page(
    path: Path,
    comparisons: Sequence[Comparison],
    records: Sequence[Record],
    *,
    by: Sequence[str] = (),
    lines: Sequence[str] = (),
) -> Path:
    """Write one HTML page, with everything it needs inside, about comparisons of these records.

    by: columns of the queries to split AP by, default object and camera where known. lines: what
    could not be compared. Returns `path`.

    Raises UserError when the queries have no such column, OSError when the page can't be written.
    """
    from markupsafe import Markup

    from resight.evaluate.report import compare_plots as plots

    album = [_Album(record) for record in records]
    sections = [
        {
            "one": one,
            "queries": one.tables[0].height,
            "rows": _rows(one),
            "differences": Markup(plots.difference_plot(one)),
            "pairs": [
                _pair(one, other, by, album) | {"curve": Markup(plots.query_plot(one.moved(other)))}
                for other in range(1, len(one.runs))
            ],
        }
        for one in comparisons
    ]
    names = comparisons[0].runs
    return write_page(
        Path(path),
        "compare.html.j2",
        title=f"{names[0]} and {', '.join(names[1:])}",
        runs=list(zip(names, records, strict=True)),
        sections=sections,
        lines=lines,
    )


def _rows(one: Comparison) -> list[dict[str, Any]]:
    """The table of numbers, ready to print."""
    rows = []
    for m, metric in enumerate(one.metrics):
        values = [
            {
                "value": percent(one.values[r, m], one.digits),
                "interval": span(one.intervals[r, m], one.digits),
            }
            for r in range(len(one.runs))
        ]
        differences = [
            {
                "points": points(d.mean[m], one.digits),
                "interval": span(d.interval[m], one.digits),
                "p": in_words(d.p[m]),
                "kind": _kind(d.mean[m], one.digits) if d.p[m] < SIGNIFICANT else "",
            }
            for d in one.differences
        ]
        main = metric == one.primary
        rows.append({"metric": metric, "main": main, "values": values, "differences": differences})
    return rows


def _kind(difference: float, digits: int) -> str:
    """Up or down, where the printed number says so too."""
    return {"+": "up", "−": "down"}.get(points(difference, digits)[0], "")


def _pair(one: Comparison, other: int, by: Sequence[str], album: list[_Album]) -> dict[str, Any]:
    """The baseline and one other run, query by query."""
    moved = one.moved(other)
    columns = by or [name for name in BY if name in one.columns()]
    rising = np.lexsort((one.tables[0]["path"].to_numpy(), moved))
    down = [int(q) for q in rising if moved[q] < 0][:MOVED]
    up = [int(q) for q in rising[::-1] if moved[q] > 0][:MOVED]
    return {
        "name": one.runs[other],
        "verdict": one.verdict(other),
        "better": int((moved > 0).sum()),
        "worse": int((moved < 0).sum()),
        "tables": [_by(one, column, other) for column in columns],
        "up": [_strip(one, other, q, album) for q in up],
        "down": [_strip(one, other, q, album) for q in down],
    }


def _by(one: Comparison, column: str, other: int) -> dict[str, Any]:
    """The rows of a table by a column: all, or those that moved most in both directions."""
    table = one.by(column, other)
    rows = table
    if table.height > _LISTED:
        rows = pl.concat((table.head(_LISTED // 2), table.tail(_LISTED // 2)))
    largest = float(rows["difference"].abs().max() or 0) or 1.0  # type: ignore[arg-type]
    return {
        "column": column,
        "total": table.height,
        "rows": [
            row
            | {"points": points(row["difference"], one.digits)}
            | {"kind": _kind(row["difference"], one.digits)}
            | {"width": 50 * abs(row["difference"]) / largest}
            for row in rows.to_dicts()
        ],
    }


def _strip(one: Comparison, other: int, q: int, album: list[_Album]) -> _Strip:
    before, after = (one.tables[r].row(q, named=True) for r in (0, other))
    first, second = album[0], album[other]
    ranks = f"{_rank(before)} → {_rank(after)}"
    pictures = [first.picture(before["row"], "query", "query")]
    for kind, mark in (("right", "✓"), ("wrong", "✗")):
        old, new = before[kind], after[kind]
        of = [_rank(q) if kind == "right" else "" for q in (before, after)]
        if old is not None and new is not None and first.path(old) == second.path(new):
            label = f"{mark} {ranks}" if kind == "right" else mark
            pictures.append(first.picture(old, kind, label, "" if kind == "right" else "both"))
            continue
        if old is not None:
            pictures.append(first.picture(old, kind, f"{mark} {of[0]}".strip(), "before"))
        if new is not None:
            pictures.append(second.picture(new, kind, f"{mark} {of[1]}".strip(), "after"))
    return _Strip(
        before["AP"], after["AP"], ranks, before["object"], before["camera"], before["path"],
        pictures,
    )  # fmt: skip


def _rank(query: dict[str, Any]) -> str:
    return "–" if query["first_rank"] is None else f"{query['first_rank']:,}"


class _Album:
    """Thumbnails of a record's images as data URIs, each made once."""

    def __init__(self, record: Record) -> None:
        self._images = record.images()
        self._load: LoadThumbnail = open_thumbnails(self._images)
        self._made: dict[int, str] = {}

    def path(self, row: int) -> str:
        return str(self._images.table["path"][row])

    def picture(self, row: int, kind: str, label: str, text: str = "") -> _Picture:
        if row not in self._made:
            self._made[row] = data_uri(self._load(row))
        return _Picture(self._made[row], self.path(row), kind, label, text)
