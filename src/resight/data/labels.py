"""What the labels, splits, roles and cameras of an image set allow, by its table alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from resight.data.denied import denials, denied
from resight.data.imageset import ImageSet
from resight.data.spelling import spellings, told_apart


@dataclass(frozen=True)
class Finding:
    """One kind of thing found: `count` of `unit`s, and the rows of the image set concerned.

    `partners` has the other row of each pair for duplicates and is empty otherwise; `names` the
    groups of names where it is about names, or of files.
    """

    code: str
    severity: str
    count: int
    meaning: str
    rows: list[int] = field(default_factory=list)
    partners: list[int] = field(default_factory=list)
    unit: str = "images"
    names: list[list[str]] = field(default_factory=list)


def label_findings(images: ImageSet) -> Iterator[Finding]:
    """Everything that the labels, roles and cameras say against training or scoring."""
    yield from _labels(images)
    yield from _denied(images)
    yield from _spelling(images)
    yield from _queries(images)
    yield from _cameras(images)


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


def _denied(images: ImageSet) -> Iterator[Finding]:
    """Labels that the column not_object takes back, and images known only by what they are not."""
    table = images.table.select("object").with_row_index("row")
    said = pl.Series([bool(names) for names in denials(images.table)], dtype=pl.Boolean)
    text = "not_object denies this very object; one of the two is wrong, training leaves these out"
    yield from _of_rows("denied-object", "warning", table.filter(denied(images.table)), text)
    text = "the object is unknown, not_object says which it is not; no recipe learns from that yet"
    only = table.filter(said & pl.col("object").is_null())
    yield from _of_rows("only-denied", "info", only, text)


def _spelling(images: ImageSet) -> Iterator[Finding]:
    """Objects and cameras that are told apart, though their names differ in writing only."""
    for column in ("object", "camera"):
        names = images.table[column]
        groups = spellings(names)
        if groups:
            text = (
                f"names of one {column}, or of several? They differ in writing only (zeros in "
                f"front, .0, capitals, spaces, accents) and count as different; write them alike "
                "if they are one"
            )
            rows = names.is_in([name for group in groups for name in group]).arg_true().to_list()
            shown = [[told_apart(name) for name in group] for group in groups]
            code = f"{column}-in-several-spellings"
            yield Finding(code, "warning", len(groups), text, rows, unit="groups", names=shown)


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
