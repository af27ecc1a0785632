"""The image set: one table, one row an image."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import polars as pl

from resight.data.addresses import Address, Place, located
from resight.errors import UserError
from resight.files import atomic_path

SPLITS = ("train", "val", "test")
_SYNONYMS = {
    "split": {"train": "train", "training": "train", "val": "val", "valid": "val"}
    | {"validation": "val", "test": "test", "testing": "test"},
    "role": {"query": "query", "gallery": "gallery", "both": "both"},
}
ROLES = ("query", "gallery", "both")
# In the metadata of a Parquet file of ours: the benchmark's layout, the folder it was written in.
LAYOUT_KEY, PLACE_KEY = "resight.layout", "resight.place"
SCHEMA: dict[str, pl.DataType] = {
    "path": pl.String(),
    "object": pl.String(),
    "camera": pl.String(),
    "split": pl.String(),
    "role": pl.String(),
    "box": pl.List(pl.Float64()),
}


@dataclass(frozen=True)
class ImageSet:
    """A table of images, and the folder that its paths are relative to.

    `table` always has the columns of `SCHEMA` (null where unknown: no object, no camera, no
    split; a null role means both query and gallery; `box` is x1, y1, x2, y2 in pixels of the
    upright image) and carries the user's own columns along. `source` says where it was read
    from, `layout` is the benchmark whose layout it was in, `notes` what the reader decided.
    A path may be an address (https://..., s3://...), as it may be seen; `opens` has what opens
    the signed ones, in memory only.
    """

    table: pl.DataFrame
    root: Path
    source: str = ""
    notes: tuple[str, ...] = ()
    layout: str = ""
    opens: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.table.height

    @cached_property
    def remote(self) -> bool:
        """Whether any path is an address."""
        return bool(self.table["path"].str.contains("://", literal=True).any())

    def at(self, path: str) -> Place:
        """Where an image lies whose path in the table is this."""
        return located(self.root, path, self.opens)

    @cached_property
    def _paths(self) -> list[Place]:
        if not self.remote:
            return [self.root / path for path in self.table["path"]]
        return [self.at(path) for path in self.table["path"]]

    def full_paths(self) -> list[Place]:
        """The path of every image, in the order of the rows."""
        return self._paths

    def rows(self, rows: Sequence[int] | pl.Series) -> ImageSet:
        """The image set of these rows, in the order given."""
        return replace(self, table=self.table[rows])

    def where(self, condition: pl.Expr) -> ImageSet:
        """The image set of the rows for which a polars expression holds."""
        return replace(self, table=self.table.filter(condition))

    def has(self, column: str) -> bool:
        """Whether any row has a value in `column`."""
        return self.table[column].null_count() < self.table.height

    def objects(self) -> list[str]:
        """The known objects, sorted."""
        return sorted(self.table["object"].drop_nulls().unique().to_list())

    def has_matches(self) -> bool:
        """Whether an object has two images, so that there is something to be found again."""
        counts = self.table["object"].drop_nulls().value_counts()["count"]
        return bool((counts > 1).any())

    def absolute_paths(self) -> list[str]:
        """The same as text that holds wherever it is read, addresses as they may be seen."""
        return [
            "".join(path) if isinstance(path, Address) else str(path.absolute())
            for path in self._paths
        ]

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the table's own columns and the size of every file.

        It changes when a row, a label, a file's name or length changes; it does not depend on
        the folder that the images lie in. An address stands for what lies there, whatever signs
        it: no store is asked for millions of lengths.
        """
        digest = hashlib.sha256()
        columns = self.table.select(list(SCHEMA))
        for row, path in zip(columns.iter_rows(), self._paths, strict=True):
            if isinstance(path, Address):
                digest.update(repr(("".join(path), row[1:])).encode(errors="surrogatepass"))
                continue
            try:
                size = os.stat(path).st_size
            except (OSError, ValueError):  # ValueError: a name that no file can have
                size = -1
            digest.update(repr((path.name, row[1:], size)).encode(errors="surrogatepass"))
        return digest.hexdigest()

    def write(self, path: Path) -> Path:
        """Write the table as Parquet with absolute paths, so that it can lie anywhere.

        Where it is written stands in it too: see places.py.
        """
        absolute = pl.Series("path", self.absolute_paths(), dtype=pl.String)
        with atomic_path(path) as temporary:
            self.table.with_columns(absolute).write_parquet(
                temporary,
                metadata={LAYOUT_KEY: self.layout, PLACE_KEY: str(path.parent.absolute())},
            )
        return path

    def missing(self) -> list[int]:
        """Rows whose file does not exist."""
        return [row for row, path in enumerate(self._paths) if not path.is_file()]


def layout_of(file: Path | bytes) -> str:
    """The benchmark whose layout a Parquet file of ours was read from; "" where none."""
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    return pl.read_parquet_metadata(source).get(LAYOUT_KEY, "")


def normalise(table: pl.DataFrame) -> pl.DataFrame:
    """Give a table the columns and types of `SCHEMA`; absent columns are null, "" is null.

    Whole floats become whole numbers (pandas turns integers with gaps into floats: the object
    7.0 is the object 7).
    """
    columns = []
    for name, kind in SCHEMA.items():
        if name not in table.columns:
            columns.append(pl.lit(None, dtype=kind).alias(name))
        elif name == "box":
            columns.append(pl.col(name).cast(kind))
        else:
            text = _as_text(table[name])
            if name in _SYNONYMS:
                text = text.str.strip_chars()
                lower = text.str.to_lowercase()
                text = lower.replace_strict(_SYNONYMS[name], default=text)
            columns.append(pl.when(text != "").then(text).alias(name))
    own = [name for name in table.columns if name not in SCHEMA]
    return table.select(*columns, *own)


def _as_text(values: pl.Series) -> pl.Expr:
    column = pl.col(values.name)
    if values.dtype.is_float():
        column = column.fill_nan(None)
        if ((values % 1 == 0) | values.is_nan()).all():
            column = column.cast(pl.Int64)
    return column.cast(pl.String)


def check(
    table: pl.DataFrame,
    where: str,
    lines: pl.Series | None = None,
    errors: Sequence[tuple[int, str]] = (),
) -> None:
    """Check a normalised table, whose rows stand in these `lines` of `where` (default: 1, 2, ...).

    Raises UserError that lists every error (at most 20 in full), each with file and line:
    `errors`, found before as (line, message), and those found here.
    """
    if table.height == 0:
        raise UserError(f"{where}: no images; at least one row is needed")
    numbers = range(1, table.height + 1) if lines is None else lines
    table = table.select(list(SCHEMA)).with_columns(pl.Series("_row", numbers))
    raise_all([*errors, *_faults(table)], where)


def _faults(lines: pl.DataFrame) -> list[tuple[int, str]]:
    errors: list[tuple[int, str]] = []
    for row in lines.filter(pl.col("path").is_null())["_row"]:
        errors.append((row, "no path"))
    for name, allowed in (("split", SPLITS), ("role", ROLES)):
        bad = lines.filter(pl.col(name).is_not_null() & ~pl.col(name).is_in(allowed))
        for row, value in bad.select("_row", name).iter_rows():
            errors.append((row, f"{name} {value!r} is none of {', '.join(allowed)} (or empty)"))
    box = pl.col("box")
    wrong = (
        (box.list.len() != 4)
        | box.list.eval(pl.element().is_null() | ~pl.element().is_finite()).list.any()
        | (box.list.get(0, null_on_oob=True) >= box.list.get(2, null_on_oob=True))
        | (box.list.get(1, null_on_oob=True) >= box.list.get(3, null_on_oob=True))
    )
    for row, value in lines.filter(box.is_not_null() & wrong).select("_row", "box").iter_rows():
        errors.append((row, f"box {list(value)} is not x1, y1, x2, y2 with x1 < x2 and y1 < y2"))
    twice = pl.struct("path", "box").is_duplicated() & pl.col("path").is_not_null()
    seen: dict[tuple[str, str], int] = {}
    for row, path, value in lines.filter(twice).select("_row", "path", "box").iter_rows():
        first = seen.setdefault((path, str(value)), row)
        if first != row:
            errors.append((row, f"{path!r} stands already in line {first}"))
    return errors


def raise_all(errors: list[tuple[int, str]], where: str) -> None:
    """Raise one UserError for a list of (line, message), if there is any."""
    if not errors:
        return
    errors = sorted(errors)
    lines = [f"{where}, line {line}: {message}" for line, message in errors[:20]]
    if len(errors) > 20:
        lines.append(f"{where}: and {len(errors) - 20} more errors")
    raise UserError("\n".join(lines))
