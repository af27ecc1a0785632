"""The CSV lists that benchmarks come with: columns by name, as text or numbers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from resight.errors import UserError


def read_list(
    path: Path, text: Sequence[str], numbers: Sequence[str] = (), *, gaps: bool = False
) -> pl.DataFrame:
    """These columns of a CSV file with a header; empty lines and other columns are passed over.

    gaps: a line may lack values (null; so may numbers be nan). Raises UserError with file and
    line when a column or value is missing, a number is none, or the file is no such list.
    """
    names = [*text, *numbers]
    try:
        # Everything is read as text: an id named 007 keeps its zeros. All columns are read, as
        # polars passes over a line with too many values where it reads only some.
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.NoDataError:
        raise UserError(f"{path}: empty; a first line with {','.join(names)} is needed") from None
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}{_broken_line(path) or f': {error}'.splitlines()[0]}") from None
    missing = [name for name in names if name not in table.columns]
    if missing:
        have = ",".join(table.columns)
        raise UserError(f"{path}, line 1: no column {', '.join(missing)}; it has {have}")
    raw = table.select(pl.int_range(2, pl.len() + 2).alias(""), *names)
    raw = raw.filter(~pl.all_horizontal(pl.col(names).is_null()))
    read = raw.with_columns(pl.col(numbers).cast(pl.Float64, strict=False).fill_nan(None))
    for name in names:
        if not gaps:
            wrong = read.filter(pl.col(name).is_null())
        else:  # what is there must be a number, or say that it is none
            known = raw[name].str.to_lowercase().is_in(["nan"])
            wrong = read.filter(read[name].is_null() & raw[name].is_not_null() & ~known)
        if wrong.height:
            line = wrong.item(0, 0)
            value = raw.filter(pl.col("") == line).item(0, name)
            fault = "no" if value is None else f"{value!r} is not a"
            kind = "value" if name in text or value is None else "number"
            raise UserError(f"{path}, line {line}: {fault} {kind} in column {name}")
    return read.drop("")


def _broken_line(path: Path) -> str:
    """Which line of a file that was refused is wrong; "" where none is seen."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        try:
            width = len(next(rows))
            for row in rows:
                if len(row) > width:
                    return f", line {rows.line_num}: {len(row)} values for {width} columns"
        except UnicodeDecodeError as error:
            return f": not UTF-8 text ({error.reason})"
        except csv.Error as error:
            return f", line {rows.line_num}: {error}"
    return ""


def corners(x: str, y: str, width: str, height: str) -> pl.Expr:
    """The box x1, y1, x2, y2 of columns that hold its left top corner and its size."""
    return pl.concat_list(x, y, pl.col(x) + pl.col(width), pl.col(y) + pl.col(height))
