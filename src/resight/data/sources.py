"""Where image sets come from: folders, CSV and Parquet files, benchmark layouts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from resight.data import layouts
from resight.data.addresses import Address, Place, place
from resight.data.imageset import SCHEMA, ImageSet, check, layout_of, normalise
from resight.data.layouts.layout import Layout
from resight.data.places import place_of, with_moved
from resight.data.remote import addressed, check_reachable, table_at
from resight.data.tables import ENDINGS, read_text, with_slashes
from resight.errors import UserError

_ENDINGS = ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2"
IMAGE_ENDINGS = frozenset(_ENDINGS.split())
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
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    unlabelled: bool = False,
    layout: str | None = None,
) -> ImageSet:
    """Read an image set from a folder, a CSV or Parquet file, or a benchmark's own layout.

    - A folder that holds index.csv (or index.parquet, images.csv, images.parquet): that file.
    - A folder in a known benchmark's layout: that layout.
    - A folder of sub-folders: one sub-folder an object; first-level folders named train, val,
      test, query or gallery are splits. A folder of images alone: no labels.
    - A file: columns path, object, camera, split, role, box and any others, paths relative to
      the file. Common other names (filename, label, pid, ...) are understood; `columns` maps
      ours to the file's, e.g. {"object": "sku"}. A path may be an address (https://..., s3://...,
      gs://...), and so may the file's own.

    `unlabelled` ignores what a folder would say about objects, an index file in it included.
    `layout` names a benchmark's layout in place of recognising it, or "folder" for none.

    Raises UserError: nothing there, no images in it, columns or values that are wrong (all are
    listed, each with file and line), or not one of the named images exists.
    """
    path = place(source)
    if not path.exists():
        raise UserError(f"{path}: not found; give a folder of images, or a CSV or Parquet file")
    known = {one.name: one for one in layouts.LAYOUTS}
    if layout is not None and layout not in known and layout != "folder":
        raise UserError(f"--layout {layout}: none of folder, {', '.join(known)}")
    if isinstance(path, Address) or not path.is_dir():
        images = _from_file(path, columns)
    elif layout in known:
        images = _from_layout(path, known[layout])
    else:
        images = _from_folder(path, columns, unlabelled, plain=layout == "folder")
    if images.remote:
        check_reachable(images)
    elif not any(p.is_file() for p in images.full_paths()):
        raise UserError(
            f"{images.source}: none of its {len(images):,} images exists, the first would be "
            f"{images.full_paths()[0]}; {_why_gone(path, images)}"
        )
    return images


def _why_gone(path: Place, images: ImageSet) -> str:
    drive = next((note for note in images.notes if "begin with a drive" in note), None)
    if drive is not None:
        return drive
    if path.suffix.lower() == ".parquet" and isinstance(path, Path) and place_of(path):  # ours
        return "they were moved or deleted since: put them back, or give the images as they lie now"
    return "paths are relative to the file"


def _from_layout(folder: Path, layout: Layout) -> ImageSet:
    table, notes = layout.load(folder)
    table = normalise(table)
    check(table, str(folder))
    return ImageSet(table, folder, str(folder), notes, layout.name)


def _from_folder(
    folder: Path, columns: Mapping[str, str] | None, unlabelled: bool, plain: bool
) -> ImageSet:
    if not unlabelled and not plain:
        layout = next((one for one in layouts.LAYOUTS if one.recognise(folder)), None)
        for name in INDEX_NAMES:
            if (folder / name).is_file() and (layout is None or name != layout.index):
                return _from_file(folder / name, columns)
        if layout is not None:
            return _from_layout(folder, layout)
    if columns:
        raise UserError(f"{folder}: --columns needs a table, and no {INDEX_NAMES[0]} lies in here")
    found, notes = _walk(folder)
    if not found:
        raise UserError(
            f"{folder}: no images in this folder or below it "
            f"(looked for {' '.join(sorted(IMAGE_ENDINGS))})"
        )
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
    loose = table["object"].null_count()
    if loose == table.height and not unlabelled:
        notes.append("no labels: the images lie directly in the folder")
    elif loose and not unlabelled:
        notes.append(f"{loose} images lie outside the object folders; their object is unknown")
    return ImageSet(table, folder, str(folder), tuple(notes))


def _walk(folder: Path) -> tuple[list[str], list[str]]:
    """Image paths below `folder`, relative, with '/', sorted; and notes on what was left out."""
    found: list[str] = []
    closed: list[OSError] = []
    unusable = 0
    above: dict[str, frozenset[str]] = {}  # the real folders that lead to each
    for parent, folders, files in os.walk(folder, onerror=closed.append, followlinks=True):
        real, way = os.path.realpath(parent), above.get(os.path.dirname(parent), frozenset())
        if real in way:  # a link that leads back up
            folders.clear()
            continue
        above[parent] = way | {real}
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
    notes = [f"{unusable} files whose names are not valid UTF-8 were left out"] * bool(unusable)
    notes += [f"{error.filename}: can't be read and was left out" for error in closed]
    return sorted(found), notes


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


def _from_file(path: Place, columns: Mapping[str, str] | None) -> ImageSet:
    content = table_at(path) if isinstance(path, Address) else path
    table, understood = _read_table(path, content)
    text = path.suffix.lower() != ".parquet"
    lines = _lines(table) if text else pl.Series(range(1, table.height + 1))
    if text:  # an empty line is no row
        full = ~table.select(pl.all_horizontal(pl.all().is_null())).to_series()
        table, lines = table.filter(full), lines.filter(full)
    table, notes = _rename(table, columns or {}, path)
    notes = understood + notes
    if text:
        known = [name for name in SCHEMA if name in table.columns]
        table = table.with_columns(pl.col(known).str.strip_chars())
    table, errors = _parse_boxes(table, lines, notes)
    _check_types(table, path)
    table = normalise(table)
    table, opens, twins = addressed(table, path, lines)
    root, odd = Path(), list[str]()
    if isinstance(path, Path):
        root = path.parent
        paths, odd = with_slashes(table["path"], root)
        table = table.with_columns(paths)
    check(table, str(path), lines, [*errors, *twins])
    layout = "" if text else layout_of(content)
    return ImageSet(table, root, str(path), (*notes, *odd), layout, opens)


def _lines(table: pl.DataFrame) -> pl.Series:
    """The line that each row of a CSV file starts in: after the header, and quoted line ends."""
    text = pl.concat_str(pl.all(), ignore_nulls=True).fill_null("")
    breaks = text.str.count_matches("\n", literal=True).cum_sum().shift(1, fill_value=0)
    return table.select(breaks + pl.int_range(2, pl.len() + 2)).to_series()


def _check_types(table: pl.DataFrame, path: Place) -> None:
    for name in SCHEMA:
        kind = table.schema.get(name, pl.Null())
        inner = getattr(kind, "inner", pl.Null())
        if name == "box":
            fits = not kind.is_nested() or isinstance(kind, pl.List | pl.Array)
            fits &= inner.is_numeric() or inner == pl.Null
            fits &= kind.is_nested() or kind in (pl.String, pl.Null)
            need = "text like 'x1 y1 x2 y2', or lists of four numbers"
        else:
            fits, need = not kind.is_nested() and kind not in (pl.Object, pl.Binary), "text"
        if not fits:
            raise UserError(f"{path}: column {name!r} holds {kind}; it needs {need}")


def _read_table(path: Place, content: Path | bytes) -> tuple[pl.DataFrame, list[str]]:
    """The table of a file or of the bytes at an address; notes on how it was understood."""
    ending = path.suffix.lower()
    if ending in ENDINGS:
        return read_text(path, content if isinstance(content, bytes) else None)
    if ending == ".parquet":
        try:
            if isinstance(content, bytes):
                return pl.read_parquet(content), []
            return with_moved(pl.read_parquet(content, glob=False), content), []
        except pl.exceptions.PolarsError as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"{path}: can't be read as parquet: {first}") from None
    raise UserError(
        f"{path}: a file of this kind holds no image set; "
        "give a folder, or a .csv, .tsv or .parquet file"
    )


def _rename(
    table: pl.DataFrame, columns: Mapping[str, str], path: Place
) -> tuple[pl.DataFrame, list[str]]:
    """Give the columns our names: as told, else as they are, else by their common aliases."""
    names = [name.strip() for name in table.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: two columns are called {twice[0]!r}")
    table = table.rename(dict(zip(table.columns, names, strict=True)))
    have = ", ".join(table.columns)
    for ours, theirs in columns.items():
        if list(columns.values()).count(theirs) > 1:
            raise UserError(f"--columns: {theirs!r} can't be two columns at once")
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
    if "object" not in taken:
        notes.append("no column 'object': no labels; if there are, --columns object=NAME")
    # A column of the user's that stands in the way of a renamed one keeps its data.
    moved = {
        name: _free(f"{name}_original", table.columns)
        for name in table.columns
        if name in taken and taken[name] != name and name not in taken.values()
    }
    table = table.rename(moved).rename({theirs: ours for ours, theirs in taken.items()})
    return table, notes


def _free(name: str, taken: list[str]) -> str:
    return _free(f"{name}_", taken) if name in taken else name


def _parse_boxes(
    table: pl.DataFrame, lines: pl.Series, notes: list[str]
) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    """Boxes from a text column ("x1 y1 x2 y2", commas and brackets allowed) or four columns.

    The errors are (line, message); `notes` gets a line when four columns are taken.
    """
    lower = {name.lower(): name for name in reversed(table.columns)}
    for corners in _CORNERS:
        if "box" not in table.columns and all(name in lower for name in corners):
            four = [lower[name] for name in corners]
            numbers = [pl.col(name).cast(pl.String).fill_null("") for name in four]
            table = table.with_columns(pl.concat_str(numbers, separator=" ").alias("box"))
            notes.append(f"columns {', '.join(four)} taken as 'box'")
    errors: list[tuple[int, str]] = []
    if "box" not in table.columns or table["box"].dtype != pl.String:
        return table, errors
    boxes: list[list[float] | None] = []
    for line, text in zip(lines, table["box"], strict=True):
        bare = (text or "").strip(" \t[]()")
        try:
            boxes.append([float(part) for part in re.split(r"[\s,;]+", bare)] if bare else None)
        except ValueError:
            boxes.append(None)
            errors.append((line, f"box {text!r} is not four numbers x1 y1 x2 y2"))
    return table.with_columns(pl.Series("box", boxes, dtype=SCHEMA["box"])), errors
