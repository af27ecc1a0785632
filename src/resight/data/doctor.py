"""The doctor: what is wrong with an image set, before a night's training finds out.

`examine` looks at the files (inspect.py), at pictures that come twice (duplicates.py), and at
what the labels, splits, roles and cameras allow (here).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from resight.data import duplicates
from resight.data.decode import BadImage, decode
from resight.data.imageset import ImageSet
from resight.data.inspect import NAMES, PROBLEMS, TRAITS, Array, Inspection, inspect, thumbnail
from resight.errors import UserError
from resight.files import atomic_path

SEVERITIES = ("error", "warning", "info")
_WHAT = {"duplicate": "the same file", "near-duplicate": "the same picture, saved anew,"}
_SHOWN = 100  # rows of a mere information that the JSON lists
_QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}


@dataclass(frozen=True)
class Finding:
    """One kind of thing found: `count` of `unit`s, and the rows of the image set concerned.

    `partners` has the other row of each pair for duplicates and is empty otherwise.
    """

    code: str
    severity: str
    count: int
    meaning: str
    rows: list[int] = field(default_factory=list)
    partners: list[int] = field(default_factory=list)
    unit: str = "images"


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
) -> Report:
    """Look for everything that would break a run on `images` or falsify its numbers.

    Every file is read and decoded once, in `workers` threads (default: one a processor); the
    report does not depend on their number. `progress(done, total)` counts rows. `near=False`
    leaves out the search for pictures that look the same without being the same bytes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; ours say it in order
        seen = inspect(images, workers=workers, progress=progress)
        findings = [*_files(seen), *_duplicates(images, seen, near)]
    findings += [*_labels(images), *_queries(images), *_cameras(images)]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    table = images.table
    _, first = np.unique(seen.file, return_index=True)
    formats = np.unique(seen.format[first][seen.format[first] >= 0], return_counts=True)
    return Report(
        findings=findings,
        images=len(images),
        files=len(first),
        objects=table["object"].drop_nulls().n_unique(),
        cameras=table["camera"].drop_nulls().n_unique(),
        splits=_counts(table["split"]),
        roles=_counts(table["role"]),
        formats={NAMES[k]: int(count) for k, count in zip(*formats, strict=True)},
        sizes=_sizes(seen.size[first][seen.problem[first] == 0]),
        reasons=seen.reasons,
        paths=table["path"],
    )


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
            return thumbnail(images.root / path, box)

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


def _of_rows(code: str, severity: str, table: pl.DataFrame, meaning: str) -> Iterator[Finding]:
    """A finding of the rows of `table` (it has a column "row"), if there are any."""
    if table.height:
        yield Finding(code, severity, table.height, meaning, table["row"].to_list())


def _of_objects(code: str, severity: str, table: pl.DataFrame, meaning: str) -> Iterator[Finding]:
    """The same, counted in objects."""
    if table.height:
        count = table["object"].n_unique()
        yield Finding(code, severity, count, meaning, table["row"].to_list(), unit="objects")


def _labels(images: ImageSet) -> Iterator[Finding]:
    """What objects and splits allow, roles and cameras aside."""
    table = images.table.select("object", "split").with_row_index("row")
    known, unknown = (table.filter(pl.col("object").is_null() == null) for null in (False, True))
    if not known.height:
        text = "no image has an object; only training without labels is possible, and no scores"
        yield Finding("no-labels", "info", table.height, text, table["row"].to_list())
    else:
        training = pl.col("split").is_null() | (pl.col("split") == "train")
        text = "the object is unknown, others' are known; training with labels leaves these out"
        yield from _of_rows("unlabelled-in-train", "warning", unknown.filter(training), text)
        text = "the object is unknown; in an evaluation these are only distractors"
        yield from _of_rows("unlabelled-in-test", "info", unknown.filter(~training), text)
        alone = known.filter(training & (pl.len().over("object", "split") == 1))
        text = "the object has one image to train on and makes no pair; add images or expect less"
        yield from _of_objects("single-image-object", "warning", alone, text)
        if known["object"].n_unique() == 1:
            text = "all images are of one object; there is nothing to tell it from"
            yield from _of_objects("one-object", "warning", known, text)
        yield _images_per_object(known)
    if images.has("split"):
        text = "the object stands in several splits; scores come out too good, move it into one"
        several = pl.col("split").drop_nulls().n_unique().over("object") > 1
        yield from _of_objects("object-across-splits", "error", known.filter(several), text)
        text = "the row has no split though others have; neither training nor test uses it"
        without = table.filter(pl.col("split").is_null())
        yield from _of_rows("image-without-split", "warning", without, text)
        empty = [split for split in ("train", "test") if split not in table["split"]]
        if empty:
            text = f"no row is of split {empty[0]}; it can't be used for that"
            yield Finding("empty-split", "info", 1, text, unit="splits")


def _images_per_object(known: pl.DataFrame) -> Finding:
    counts = np.sort(known["object"].value_counts()["count"].to_numpy())[::-1]
    tenth = counts[: max(1, len(counts) // 10)].sum() / counts.sum()
    text = (
        f"images an object: {counts[-1]} at least, {np.median(counts):g} in the middle, "
        f"{counts[0]} at most; the largest tenth of the objects holds {tenth:.0%} of the images"
    )
    return Finding("images-per-object", "info", len(counts), text, unit="objects")


def _queries(images: ImageSet) -> Iterator[Finding]:
    """Whether each query has a match, in every split that is evaluated."""
    table = images.table.select("object", "split", "role").with_row_index("row")
    for split in ("test", "val", None):
        part = table.filter(pl.col("split").eq_missing(pl.lit(split, pl.String)))
        if not part.height or (split is None and part["role"].null_count() == part.height):
            continue
        yield from _queries_of(part, split or "unsplit", images.has("object"))


def _queries_of(part: pl.DataFrame, split: str, labelled: bool) -> Iterator[Finding]:
    role, known = pl.col("role"), pl.col("object").is_not_null()
    part = part.with_columns(
        asks=role.is_null() | role.is_in(["query", "both"]),
        answers=role.is_null() | role.is_in(["gallery", "both"]),
    )
    for column, name in (("asks", "query"), ("answers", "gallery")):
        if not part[column].any():
            text = f"no {split} row has the role {name} (or both); nothing can be scored"
            yield Finding(f"no-{name}", "error", part.height, text, part["row"].to_list())
            return
    if not labelled:
        return
    text = f"the {split} query's object is unknown; it can't be scored and is left out"
    yield from _of_rows(
        "query-without-object", "warning", part.filter(~known, role == "query"), text
    )
    # An image is never its own match.
    matches = pl.col("answers").sum().over("object") - pl.col("answers").cast(pl.Int64)
    queries = part.filter(known).with_columns(matches=matches).filter("asks")
    alone = queries.filter(pl.col("matches") <= 0)
    if split != "val" and queries.height and alone.height == queries.height:
        text = f"no {split} query has a match in the gallery; are the objects named alike in both?"
        yield from _of_rows("no-query-has-match", "error", alone, text)
    else:
        text = f"the {split} query has no match in the gallery; it is left out of the scores"
        yield from _of_rows("query-without-match", "warning", alone, text)


def _cameras(images: ImageSet) -> Iterator[Finding]:
    """Camera columns that hold something else, or that the cross-camera rule can't use."""
    table = images.table.select("object", "camera", "split").with_row_index("row")
    with_camera = table.filter(pl.col("camera").is_not_null())
    if not with_camera.height:
        return
    text = "the camera is unknown, others' are known; such an image counts as of no camera"
    yield from _of_rows(
        "image-without-camera", "info", table.filter(pl.col("camera").is_null()), text
    )
    cameras = with_camera["camera"].n_unique()
    pairs = with_camera.drop_nulls("object")
    both, objects = pairs.select("object", "camera").n_unique(), pairs["object"].n_unique()

    def column(code: str, text: str) -> Finding:
        return Finding(code, "warning", cameras, text, unit="cameras")

    if cameras == 1:
        yield column(
            "one-camera",
            "all images have the same camera; a cross-camera rule leaves "
            "no match, drop the column or score without the rule",
        )
    elif cameras == with_camera.height > 2:
        yield column(
            "camera-per-image",
            "every image has a camera of its own; is the column "
            "really the camera? A cross-camera rule would do nothing",
        )
    elif 1 < both == objects == cameras:
        yield column(
            "camera-equals-object",
            "every object has its own camera; is the column a "
            "copy of the object? A cross-camera rule leaves no match",
        )
    else:
        yield from _one_camera_objects(pairs)
        yield from _cameras_and_splits(with_camera)


def _one_camera_objects(pairs: pl.DataFrame) -> Iterator[Finding]:
    several = pairs.filter(pl.len().over("object") > 1)
    alone = several.filter(pl.col("camera").n_unique().over("object") == 1)
    if alone.height:
        share = alone["object"].n_unique() / several["object"].n_unique()
        text = (
            f"the object was seen by one camera only, as are {share:.0%} of those with several "
            "images; under a cross-camera rule it has no match"
        )
        severity = "warning" if share > 0.5 else "info"
        yield from _of_objects("object-in-one-camera", severity, alone, text)


def _cameras_and_splits(with_camera: pl.DataFrame) -> Iterator[Finding]:
    split = with_camera.drop_nulls("split")
    cameras, splits = split["camera"].n_unique(), split["split"].n_unique()
    if splits < 2 or split.select("camera", "split").n_unique() != cameras:
        return
    if cameras == splits:
        text = "every split has one camera of its own; is the column a copy of the split?"
        yield Finding("camera-equals-split", "warning", cameras, text, unit="cameras")
    else:
        text = "no camera is in two splits; scores are those of new cameras, if that is meant"
        yield Finding("cameras-apart-by-split", "info", cameras, text, unit="cameras")


def write_sheet(report: Report, images: ImageSet, path: Path, limit: int = 24) -> int:
    """Draw the errors and warnings that concern images as a contact sheet; how many tiles.

    At most `limit` tiles a finding, eight a row; duplicates stand beside their partners, a file
    that can't be read is an empty tile. Raises UserError when `path` is no .png.
    """
    from resight.data.sheet import PLAIN, WRONG, Tile, contact_sheet

    if path.suffix.lower() != ".png":
        raise UserError(f"--sheet {path}: give a name that ends in .png")
    table = images.table.select("path", "box")

    def tile(row: int, finding: Finding, note: str) -> Tile:
        name, box = table.row(row)
        try:
            picture = decode(images.root / name, box=box, target=(128, 128))
        except BadImage:
            picture = None
        frame = WRONG if finding.severity == "error" else PLAIN
        return Tile(picture, f"{finding.code}\n{note}{name}", frame)

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
    return total
