"""What a report is asked for: evaluations, methods with several runs each, or whole sweeps."""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resight.errors import UserError
from resight.evaluate.records.record import SCORES, Record, load_record
from resight.files import read_json, write_text

SWEEP = "sweep.json"


@dataclass(frozen=True)
class MethodSet:
    """Methods on one image set: the evaluations of their runs, and what is missing."""

    name: str
    groups: dict[str, list[Record]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def read_sets(words: Sequence[str]) -> list[MethodSet]:
    """The methods that these words name; none where all are plain evaluation folders.

    A word is NAME=EVALUATION,EVALUATION,... (all such words make one set, of name ""; * and ? as
    in a shell) or the folder of a sweep, which is a set of its own, called as the folder or, of
    NAME=SWEEP, as it says.

    Raises UserError: kinds mixed, folders that are not there or hold no (or several) evaluations.
    """
    named = [_name(word) for word in words]
    sweeps = [(name, Path(where)) for name, where in named if (Path(where) / SWEEP).is_file()]
    if not sweeps and all(name is None for name, _ in named):
        return []
    if not sweeps:
        methods = MethodSet("")
        for name, where in named:
            if name is None:
                raise UserError(f"{where}: of which method is it? Give NAME={where}")
            methods.groups.setdefault(name, []).extend(_evaluations(name, where))
        return [methods]
    if len(sweeps) < len(named):
        other = next(where for _, where in named if not (Path(where) / SWEEP).is_file())
        raise UserError(f"{other}: no sweep (no {SWEEP}), but others are; give only sweeps")
    return [
        _read_sweep(title, folder)
        for title, (_, folder) in zip(_titles(sweeps), sweeps, strict=True)
    ]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write flat rows as CSV, a list as its values with spaces between; returns `path`."""
    text = io.StringIO()
    out = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    out.writeheader()
    for row in rows:
        out.writerow(
            {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()}
        )
    write_text(Path(path), text.getvalue())
    return Path(path)


def _name(word: str) -> tuple[str | None, str]:
    """What is before the = and after it; a path that is there is no name."""
    name, equals, where = word.partition("=")
    if not equals or Path(word).exists():
        return None, word
    if not name.strip() or not where:
        raise UserError(f"{word}: not of the form NAME=evaluation,evaluation,...")
    return name.strip(), where


def _evaluations(name: str, where: str) -> list[Record]:
    paths = [where] if Path(where).exists() else [part for part in where.split(",") if part]
    found: list[str] = []
    for path in paths:
        many = [] if Path(path).exists() else sorted(glob.glob(path))
        found += many or [path]
    if not found:
        raise UserError(f"{name}=: no evaluation named")
    return [load_record(path) for path in found]


def _titles(sweeps: Sequence[tuple[str | None, Path]]) -> list[str]:
    """Given names, else the folders' names, else their whole paths."""
    titles = [name or folder.resolve().name for name, folder in sweeps]
    if len(set(titles)) < len(titles):
        titles = [name or str(folder) for name, folder in sweeps]
    twice = [title for title in titles if titles.count(title) > 1]
    if twice:
        raise UserError(f"{twice[0]}: two sweeps of this name; give each once, with its own name")
    return titles


def _read_sweep(title: str, folder: Path) -> MethodSet:
    """The evaluated runs of a sweep."""
    content = read_json(folder / SWEEP, "the record of a sweep")
    groups = content.get("groups") if isinstance(content, dict) else None
    if not isinstance(groups, dict) or not all(
        isinstance(runs, list) and all(isinstance(run, str) for run in runs)
        for runs in groups.values()
    ):
        raise UserError(f"{folder / SWEEP}: doesn't say which evaluations belong together (groups)")
    found = MethodSet(title)
    for method, runs in groups.items():
        there = [folder / run for run in runs if (folder / run / SCORES).is_file()]
        if len(there) < len(runs):
            said = f"{len(runs) - len(there)} of {len(runs)} runs of {method}"
            found.lines.append(f"{said} have no evaluation yet and are left out")
        if there:
            found.groups[method] = [load_record(one) for one in there]
    if not found.groups:
        raise UserError(f"{folder}: no run of this sweep is evaluated yet; finish it first")
    return found
