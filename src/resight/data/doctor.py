"""The doctor: what is wrong with an image set, before a night's training finds out.

`examine` looks at the files (inspect.py), at pictures that come twice (duplicates.py), and at
what the labels, splits, roles and cameras allow (labels.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from resight.data import duplicates
from resight.data.decode import BadImage
from resight.data.denied import denials
from resight.data.imageset import ImageSet
from resight.data.inspect import NAMES, PROBLEMS, TRAITS, Array, Inspection, inspect, thumbnail
from resight.data.labels import Finding, label_findings
from resight.errors import UserError
from resight.files import atomic_path

__all__ = ["SEVERITIES", "Finding", "Report", "examine", "write_sheet"]

SEVERITIES = ("error", "warning", "info")
_WHAT = {"duplicate": "the same file", "near-duplicate": "the same picture, saved anew,"}
_SHOWN = 100  # rows of a mere information that the JSON lists
_QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Report:
    """What the doctor found: findings by severity, and what the set is made of.

    `splits` and `roles` count rows ("" where none is given), `formats` files; `sizes` has the
    quantiles of the readable files' short sides (pixels) and megapixels.
    """

    findings: list[Finding]
    images: int
    files: int
    objects: int
    cameras: int
    splits: dict[str, int]
    roles: dict[str, int]
    formats: dict[str, int]
    sizes: dict[str, dict[str, float]]
    reasons: dict[int, str]
    paths: pl.Series = field(repr=False, compare=False)

    def count(self, severity: str) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values.

        Rows and paths are complete for errors and warnings; of mere information only the first
        100 are listed, `count` is the whole number.
        """
        return {
            "images": self.images,
            "files": self.files,
            "objects": self.objects,
            "cameras": self.cameras,
            "splits": self.splits,
            "roles": self.roles,
            "formats": self.formats,
            "sizes": self.sizes,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "findings": [self._finding_json(finding) for finding in self.findings],
        }

    def _finding_json(self, finding: Finding) -> dict[str, Any]:
        end = _SHOWN if finding.severity == "info" else len(finding.rows)
        rows, partners = finding.rows[:end], finding.partners[:end]
        content: dict[str, Any] = {
            "code": finding.code,
            "severity": finding.severity,
            "count": finding.count,
            "unit": finding.unit,
            "meaning": finding.meaning,
            "rows": rows,
            "paths": self.paths.gather(rows).to_list(),
        }
        if finding.names:
            content["names"] = finding.names
        if partners:
            content["partners"] = partners
            content["partner_paths"] = self.paths.gather(partners).to_list()
        if finding.code in PROBLEMS:
            content["reasons"] = [self.reasons.get(row, "") for row in rows]
        return content


def examine(
    images: ImageSet,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    near: bool = True,
    files: bool = True,
) -> Report:
    """Look for everything that would break a run on `images` or falsify its numbers.

    Every file is read and decoded once, in `workers` threads (default: one a processor); the
    report does not depend on their number. `progress(done, total)` counts rows. `near=False`
    leaves out the search for pictures that look the same without being the same bytes;
    `files=False` looks at the table alone.
    """
    if not files:
        return _report(images, None, [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; ours say it in order
        seen = inspect(images, workers=workers, progress=progress)
        findings = [*_files(seen), *_duplicates(images, seen, near), *_denied(images, seen)]
    return _report(images, seen, findings)


def _report(images: ImageSet, seen: Inspection | None, findings: list[Finding]) -> Report:
    """The report of what was found in the files, with what the labels say."""
    table = images.table
    if len(images):
        findings = [*findings, *label_findings(images)]
    files, formats, sizes = 0, {}, {}
    if seen is not None:
        _, first = np.unique(seen.file, return_index=True)
        counts = np.unique(seen.format[first][seen.format[first] >= 0], return_counts=True)
        formats = {NAMES[k]: int(count) for k, count in zip(*counts, strict=True)}
        files, sizes = len(first), _sizes(seen.size[first][seen.problem[first] == 0])
    return Report(
        findings=by_severity(findings),
        images=len(images),
        files=files,
        objects=table["object"].drop_nulls().n_unique(),
        cameras=table["camera"].drop_nulls().n_unique(),
        splits=_counts(table["split"]),
        roles=_counts(table["role"]),
        formats=formats,
        sizes=sizes,
        reasons={} if seen is None else seen.reasons,
        paths=table["path"],
    )


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings; else in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _counts(values: pl.Series) -> dict[str, int]:
    counts = values.fill_null("").value_counts().sort(values.name)
    return {str(value): int(count) for value, count in counts.iter_rows()}


def _sizes(size: Array) -> dict[str, dict[str, float]]:
    if not len(size):
        return {}
    short, mega = size.min(1), size.prod(1, dtype=np.int64) / 1e6
    return {
        "short_side": {name: float(np.quantile(short, q)) for name, q in _QUANTILES.items()},
        "megapixels": {name: float(np.quantile(mega, q)) for name, q in _QUANTILES.items()},
    }


def _files(seen: Inspection) -> Iterator[Finding]:
    for code, meaning in PROBLEMS.items():
        rows = seen.rows_with_problem(code).tolist()
        if rows:
            yield Finding(code, "error", len(rows), meaning, rows)
    for code, (severity, meaning) in TRAITS.items():
        rows = seen.rows_with_trait(code).tolist()
        if rows:
            yield Finding(code, severity, len(rows), meaning, rows)


def _duplicates(images: ImageSet, seen: Inspection, near: bool) -> Iterator[Finding]:
    labels = duplicates.Labels.of(images)
    readable = seen.problem == 0
    found = {"duplicate": duplicates.exact_duplicates(seen.digest, readable, labels)}
    if near:

        @lru_cache(maxsize=4096)
        def closer(row: int) -> Array:
            path, box = images.table.select("path", "box").row(row)
            return thumbnail(images.at(path), box)

        def confirm(a: int, b: int) -> bool:
            try:
                return duplicates.alike_in_detail(closer(a), closer(b))
            except BadImage:  # it changed under our eyes
                return False

        found["near-duplicate"] = duplicates.near_duplicates(
            seen.look, seen.thumb, seen.digest, seen.file, seen.comparable(), labels, confirm
        )
    for name, kinds in found.items():
        for kind, (severity, meaning) in duplicates.KINDS.items():
            if kind in kinds and len(kinds[kind][0]):
                rows, partners = (side.tolist() for side in kinds[kind])
                text = f"{_WHAT[name]} stands {meaning}"
                yield Finding(f"{name}-{kind}", severity, len(rows), text, rows, partners)


def _denied(images: ImageSet, seen: Inspection) -> Iterator[Finding]:
    """Rows whose file is said in another row not to show their object."""
    told = denials(images.table)
    if not any(told):
        return
    of: dict[tuple[int, int], set[str]] = {}
    digest = [(int(high), int(low)) for high, low in seen.digest]
    for key, names in zip(digest, told, strict=True):
        of.setdefault(key, set()).update(names)
    rows = [
        row
        for row, name in enumerate(images.table["object"].to_list())
        if seen.problem[row] == 0 and name in of[digest[row]] and name not in told[row]
    ]
    if rows:
        text = (
            "another row of the same file says in not_object that it is not this; training looks "
            "at each row alone, so take the wrong one out"
        )
        yield Finding("denied-elsewhere", "warning", len(rows), text, rows)


def write_sheet(
    report: Report,
    images: ImageSet,
    path: Path,
    limit: int = 24,
    tell: Callable[[str], None] = lambda line: None,
) -> int:
    """Draw the errors and warnings that concern images as a contact sheet; how many tiles.

    At most `limit` tiles a finding, eight a row; duplicates stand beside their partners, a file
    that can't be read is an empty tile, and `tell` is told of files that are gone. Raises UserError
    when `path` is no .png.
    """
    from resight.data.sheet import PLAIN, WRONG, Opener, Tile, contact_sheet

    if path.suffix.lower() != ".png":
        raise UserError(f"--sheet {path}: give a name that ends in .png")
    table, opener = images.table.select("path", "box"), Opener()

    def tile(row: int, finding: Finding, note: str) -> Tile:
        name, box = table.row(row)
        frame = WRONG if finding.severity == "error" else PLAIN
        return opener.tile(images.at(name), box, f"{finding.code}\n{note}{name}", frame)

    rows: list[list[Tile]] = []
    for finding in report.findings:
        if finding.severity == "info":
            continue
        tiles: list[Tile] = []
        for number, row in enumerate(finding.rows):
            if len(tiles) >= limit:
                break
            if finding.partners:
                tiles.append(tile(row, finding, f"{number + 1}a "))
                tiles.append(tile(finding.partners[number], finding, f"{number + 1}b "))
            else:
                tiles.append(tile(row, finding, ""))
        rows += [tiles[start : start + 8] for start in range(0, len(tiles), 8)]
    total = sum(len(row) for row in rows)
    title = f"{images.source}: " + (f"{total} suspicious" if total else "nothing suspicious")
    with atomic_path(path) as temporary:
        contact_sheet(rows, title=title).save(temporary, "PNG")
    for line in opener.notes():
        tell(line)
    return total
