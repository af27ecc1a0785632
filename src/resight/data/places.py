"""Where the files of a table lie: after a move, and whether two tables are of the same files.

Tables that we write hold absolute paths, so that they can lie anywhere, and in the metadata of
their Parquet file the folder that they were written in. Moved together, photos and tables keep
their places to each other: that finds the photos again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from resight.data.addresses import is_address
from resight.data.imageset import PLACE_KEY, ImageSet

_SAMPLE = 20  # rows that tell whether anything was moved


def place_of(path: Path) -> str:
    """The folder that a Parquet file of ours was written in; "" where it doesn't say.

    Raises OSError or a PolarsError when it can't be read.
    """
    return str(pl.read_parquet_metadata(path).get(PLACE_KEY, ""))


def with_moved(table: pl.DataFrame, file: Path) -> pl.DataFrame:
    """The table of a Parquet file of ours, its column `path` as the files lie now.

    A file that is there as written stays so; else it is looked for where it would be if it had
    been moved together with `file`.
    """
    before, now = place_of(file), file.parent.absolute()
    if not before or Path(before) == now or not table.height:
        return table
    paths = table["path"].to_list()

    def moved(path: str) -> str:
        try:
            found = os.path.normpath(now / os.path.relpath(path, before))
        except ValueError:  # another drive
            return path
        return found if not os.path.exists(path) and os.path.exists(found) else path

    step = max(1, len(paths) // _SAMPLE)
    if all(moved(path) == path for path in paths[::step] if path is not None):
        return table
    found = [None if path is None else moved(path) for path in paths]
    return table.with_columns(pl.Series("path", found, dtype=pl.String))


def difference(images: ImageSet, stored: ImageSet) -> str:
    """What tells two sets apart as rows of the same pictures in the same order; "" for nothing.

    Compared are files and boxes. Files are the same by their paths below the folder that holds
    the whole set, which may have been moved; labels may differ.
    """
    columns = ["path", "box"]
    if images.root == stored.root and images.table[columns].equals(stored.table[columns]):
        return ""
    if len(images) != len(stored):
        return f"they are of {len(stored):,} images, not of {len(images):,}"
    ours, theirs = _below(images.absolute_paths()), _below(stored.absolute_paths())
    boxes = images.table["box"].to_list(), stored.table["box"].to_list()
    for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            return f"row {row:,} is of {b}, not of {a}"
        if boxes[0][row] != boxes[1][row]:
            return f"row {row:,} is of another box of {b}"
    return ""


def _below(paths: Sequence[str]) -> list[str]:
    """The paths below the deepest folder that holds all of them."""
    whole = [path if is_address(path) else os.path.normpath(path) for path in paths]
    if any(map(is_address, whole)) or not whole:
        return whole
    try:
        start = os.path.commonpath([os.path.dirname(path) for path in whole])
    except ValueError:  # on several drives
        return whole
    return [path[len(start) :].lstrip(os.sep) for path in whole]
