"""Where image sets come from: folders, CSV and Parquet files, benchmark layouts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from resight.data import layouts
from resight.data.imageset import SCHEMA, ImageSet, check, normalise, raise_all
from resight.errors import UserError

IMAGE_ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".jp2",
    ]
)
INDEX_NAMES = ("index.csv", "index.parquet", "images.csv", "images.parquet")
_SPLIT_FOLDERS: dict[str, tuple[str, str | None]] = {
    "train": ("train", None),
    "training": ("train", None),
    "val": ("val", None),
    "valid": ("val", None),
    "validation": ("val", None),
    "test": ("test", None),
    "query": ("test", "query"),
    "queries": ("test", "query"),
    "gallery": ("test", "gallery"),
}
# Other names that files in the wild give our columns, most telling first.
_ALIASES: dict[str, str] = {
    "path": "file filename file_name filepath file_path image image_path img img_path image_name "
    "photo picture",
    "object": "object_id label class class_name class_id pid person_id identity instance "
    "instance_id product product_id item item_id sku vehicle_id individual individual_id id",
    "camera": "cam camid cam_id camera_id",
    "split": "",
    "role": "",
    "box": "bbox bounding_box",
}
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_1", "y_1", "x_2", "y_2"),
)


def load_images(
    source: str | Path, *, columns: Mapping[str, str] | None = None, unlabelled: bool = False
) -> ImageSet:
    """Read an image set from a folder, a CSV or Parquet file, or a benchmark's own layout.

    - A folder that holds index.csv (or index.parquet, images.csv, images.parquet): that file.
    - A folder in a known benchmark's layout: that layout.
    - A folder of sub-folders: one sub-folder an object; first-level folders named train, val,
      test, query or gallery are splits. A folder of images alone: no labels.
    - A file: columns path, object, camera, split, role, box and any others, paths relative to
      the file. Common other names (filename, label, pid, ...) are understood; `columns` maps
      ours to the file's, e.g. {"object": "sku"}.

    `unlabelled` ignores what the folders would say about objects.

    Raises UserError: nothing there, no images in it, columns or values that are wrong (all are
    listed, each with file and line), or not one of the named images exists.
    """
    path = Path(source)
    if not path.exists():
        raise UserError(f"{path}: not found; give a folder of images, or a CSV or Parquet file")
    images = _from_folder(path, columns, unlabelled) if path.is_dir() else _from_file(path, columns)
    if not any(p.is_file() for p in images.full_paths()):
        raise UserError(
            f"{images.source}: none of its {len(images):,} images exists, the first would be "
            f"{images.full_paths()[0]}; paths are relative to the file"
        )
    return images


def _from_folder(folder: Path, columns: Mapping[str, str] | None, unlabelled: bool) -> ImageSet:
    if not unlabelled:
        for name in INDEX_NAMES:
            if (folder / name).is_file():
                return _from_file(folder / name, columns)
        for layout in layouts.LAYOUTS:
            if layout.recognise(folder):
                rows, remarks = layout.read(folder)
                rows = normalise(rows)
                check(rows, str(folder))
                return ImageSet(rows, folder, str(folder), remarks)
    found, skipped = _walk(folder)
    if not found:
        raise UserError(
            f"{folder}: no images in this folder or below it "
            f"(looked for {' '.join(sorted(IMAGE_ENDINGS))})"
        )
    notes = [f"{skipped} files whose names are not valid UTF-8 were left out"] if skipped else []
    labels = [_labels(path, unlabelled) for path in found]
    table = normalise(
        pl.DataFrame(
            {
                "path": found,
                "object": [label[0] for label in labels],
                "split": [label[1] for label in labels],
                "role": [label[2] for label in labels],
            },
            schema={name: SCHEMA[name] for name in ("path", "object", "split", "role")},
        )
    )
    if table["object"].null_count() == table.height:
        notes.append("no labels: the images lie directly in the folder")
    elif table["object"].null_count():
        loose = table["object"].null_count()
        notes.append(f"{loose} images lie outside the object folders; their object is unknown")
    return ImageSet(table, folder, str(folder), tuple(notes))


def _walk(folder: Path) -> tuple[list[str], int]:
    """Image paths below `folder`, relative, with '/', sorted; and how many names were unusable."""
    found: list[str] = []
    unusable = 0
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        relative = Path(parent).relative_to(folder)
        for name in files:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in IMAGE_ENDINGS:
                continue
            path = (relative / name).as_posix()
            try:
                path.encode()
            except UnicodeEncodeError:
                unusable += 1
                continue
            found.append(path)
    return sorted(found), unusable


def _labels(path: str, unlabelled: bool) -> tuple[str | None, str | None, str | None]:
    """(object, split, role) that the folders of a relative path say."""
    parts = path.split("/")[:-1]
    split = role = None
    if parts and parts[0].lower() in _SPLIT_FOLDERS:
        split, role = _SPLIT_FOLDERS[parts[0].lower()]
        parts = parts[1:]
        if split == "test" and role is None and parts and parts[0].lower() in ("query", "gallery"):
            role = parts[0].lower()
            parts = parts[1:]
    return (None if unlabelled or not parts else "/".join(parts), split, role)


def _from_file(path: Path, columns: Mapping[str, str] | None) -> ImageSet:
    table = _read_table(path)
    table, notes = _rename(table, columns or {}, path)
    first_line = 1 if path.suffix.lower() == ".parquet" else 2  # a CSV has its header in line 1
    table = _parse_boxes(table, path, first_line)
    table = normalise(table)
    check(table, str(path), first_line)
    return ImageSet(table, path.parent, str(path), tuple(notes))


def _read_table(path: Path) -> pl.DataFrame:
    ending = path.suffix.lower()
    try:
        if ending == ".parquet":
            return pl.read_parquet(path)
        if ending in (".csv", ".tsv", ".txt"):
            with open(path, encoding="utf-8-sig") as file:
                header = file.readline()
            if not header.strip():
                raise UserError(f"{path}: empty; a first line with the column names is needed")
            separator = max(",;\t", key=header.count)
            # Everything is read as text: an object named 007 keeps its zeros.
            return pl.read_csv(path, separator=separator, infer_schema=False)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except pl.exceptions.PolarsError as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: can't be read as {ending[1:]}: {first}") from None
    raise UserError(
        f"{path}: a file of this kind holds no image set; "
        "give a folder, or a .csv, .tsv or .parquet file"
    )


def _rename(
    table: pl.DataFrame, columns: Mapping[str, str], path: Path
) -> tuple[pl.DataFrame, list[str]]:
    """Give the columns our names: as told, else as they are, else by their common aliases."""
    table = table.rename({name: name.strip() for name in table.columns if name != name.strip()})
    have = ", ".join(table.columns)
    for ours, theirs in columns.items():
        if ours not in SCHEMA:
            raise UserError(f"--columns {ours}=...: no such column; ours are {', '.join(SCHEMA)}")
        if theirs not in table.columns:
            raise UserError(f"{path}: no column {theirs!r} (--columns); it has: {have}")
    lower = {name.lower(): name for name in reversed(table.columns)}
    taken = dict(columns)
    for ours, aliases in _ALIASES.items():
        for name in (ours, *aliases.split()):
            if ours not in taken and name in lower and lower[name] not in taken.values():
                taken[ours] = lower[name]
    if "path" not in taken:
        raise UserError(
            f"{path}: no column 'path'; it has: {have}. Say which one: --columns path=NAME"
        )
    notes = [
        f"column {theirs!r} taken as {ours!r}" for ours, theirs in taken.items() if ours != theirs
    ]
    # A column of the user's that stands in the way of a renamed one keeps its data.
    moved = {
        name: f"{name}_original"
        for name in table.columns
        if name in taken and taken[name] != name and name not in taken.values()
    }
    table = table.rename(moved).rename({theirs: ours for ours, theirs in taken.items()})
    return table, notes


def _parse_boxes(table: pl.DataFrame, path: Path, first_line: int) -> pl.DataFrame:
    """Boxes from a text column ("x1 y1 x2 y2", commas and brackets allowed) or four columns."""
    if "box" not in table.columns:
        for corners in _CORNERS:
            if all(name in table.columns for name in corners):
                table = table.with_columns(pl.concat_str(corners, separator=" ").alias("box"))
                break
        else:
            return table
    if table["box"].dtype != pl.String:
        return table
    errors: list[tuple[int, str]] = []
    boxes: list[list[float] | None] = []
    for line, text in enumerate(table["box"], first_line):
        numbers = re.split(r"[\s,;]+", text.strip(" \t[]()")) if text and text.strip() else None
        try:
            boxes.append([float(number) for number in numbers] if numbers else None)
        except ValueError:
            boxes.append(None)
            errors.append((line, f"box {text!r} is not four numbers x1 y1 x2 y2"))
    raise_all(errors, str(path))
    return table.with_columns(pl.Series("box", boxes, dtype=SCHEMA["box"]))
