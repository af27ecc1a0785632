"""The reports that a service shows: found once, at its start; asked for by id, never by path."""

from __future__ import annotations

import datetime
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resight.errors import UserError
from resight.files import read_json, strict_json

PAGE, SCORES = "report.html", "scores.json"
MOST, LARGEST, _DEEP = 1000, 64 * 2**20, 4
_FIGURES = ("mAP", "R@1", "R@5", "R@10", "mINP")
Json = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """`kind`: evaluation, or page (a comparison, say). `path`: of the HTML page, None without.

    `scores`: one a protocol: protocol, title, level, primary, queries, gallery, figures, interval.
    """

    id: str
    kind: str
    title: str
    when: str | None
    path: Path | None
    scores: list[Json] = field(default_factory=list)


class Reports:
    """All of them, by id, in the order of the folders given and their names within."""

    def __init__(self, places: Sequence[Path]) -> None:
        """Raises UserError: a place that is not there, or holds no report."""
        self.all: dict[str, Report] = {}
        for place in places:
            found = list(_found(Path(place)))
            if not found:
                raise UserError(
                    f"{place}: no report here; 'resight evaluate --out' and 'resight report --out' "
                    "make some"
                )
            for one in found:
                self.all.setdefault(one.id, one)
        if len(self.all) > MOST:
            raise UserError(f"--reports: {len(self.all):,} reports; at most {MOST:,} are shown")

    def page(self, id: str) -> bytes | None:
        """The HTML of a report; None where there is none, any more."""
        report = self.all.get(id)
        if report is None or report.path is None:
            return None
        try:
            with open(report.path, "rb") as file:
                content = file.read(LARGEST + 1)
        except OSError:
            return None
        return content if len(content) <= LARGEST else None


def _found(place: Path) -> Iterator[Report]:
    if not place.exists():
        raise UserError(f"{place}: not found; --reports takes evaluations, or folders of them")
    if place.is_file():
        yield _of_page(place, place.stem)
        return
    top = len(place.parts)
    for folder, inner, files in os.walk(place):
        here = Path(folder)
        inner[:] = sorted(n for n in inner if not n.startswith("."))
        if len(here.parts) - top >= _DEEP:
            inner.clear()
        below = here.relative_to(place).as_posix()
        name = place.name if below == "." else below
        if SCORES in files:
            inner.clear()  # a folder for each protocol
            yield _of_evaluation(here, name or here.resolve().name)
        for file in sorted(files):
            if file.endswith(".html") and not (file == PAGE and SCORES in files):
                yield _of_page(here / file, f"{name} / {Path(file).stem}")


def _id(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]


def _of_page(path: Path, title: str) -> Report:
    when = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
    return Report(_id(path), "page", title, when.isoformat(timespec="seconds"), path)


def _of_evaluation(folder: Path, title: str) -> Report:
    path = folder / PAGE
    record = read_json(folder / SCORES, "the scores of an evaluation")
    told = record if isinstance(record, dict) else {}
    scores = [_headline(one) for one in told.get("scores") or () if isinstance(one, dict)]
    when = str(told["when"]) if told.get("when") else None
    page = path if path.is_file() else None
    return Report(_id(path), "evaluation", title, when, page, scores)


def _headline(one: Json) -> Json:
    primary = str(one.get("primary") or "mAP")
    names = dict.fromkeys((primary, *_FIGURES))
    figures = {name: one[name] for name in names if _is_number(one.get(name))}
    interval = (one.get("intervals") or {}).get(primary)
    told: Json = {"protocol": str(one.get("protocol") or ""), "title": str(one.get("title") or "")}
    told |= {"level": str(one.get("level") or ""), "primary": primary, "figures": figures}
    told |= {"interval": interval if isinstance(interval, list) and len(interval) == 2 else None}
    counts = {name: one.get(name) for name in ("queries", "gallery")}
    found: Json = strict_json(told | counts)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
