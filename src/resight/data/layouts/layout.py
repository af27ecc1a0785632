"""What a benchmark's layout module offers, and what is common to all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from resight.errors import UserError

# The rows that most counts are about.
TRAIN, TEST = pl.col("split") == "train", pl.col("split") == "test"
QUERY, GALLERY = TEST & (pl.col("role") == "query"), TEST & (pl.col("role") == "gallery")


@dataclass(frozen=True)
class Count:
    """A published count of a benchmark, and how it is counted in a table.

    published: one number, or several where editions differ. rows: which rows count, a polars
    expression; objects: count their objects instead of the rows.
    """

    what: str
    published: tuple[int, ...]
    rows: pl.Expr
    objects: bool = False

    def of(self, table: pl.DataFrame) -> int:
        """The count in a table."""
        chosen = table.filter(self.rows)
        return chosen["object"].drop_nulls().n_unique() if self.objects else chosen.height


@dataclass(frozen=True)
class Layout:
    """A benchmark as its official files unpack to.

    name: as in `--layout`; title: as it is printed. page and terms: where it is to be had and
    under which conditions; a notice to its users stands in terms. parts: files and folders that
    must be there, relative, globs allowed, alternatives with " or ". signature: those that make
    a folder look like it. index: a list of its own that is named as ours are (index.csv). read:
    gives the table of a whole folder, paths relative to it.
    """

    name: str
    title: str
    page: str
    terms: str
    parts: tuple[str, ...]
    signature: tuple[str, ...]
    counts: tuple[Count, ...]
    read: Callable[[Path], pl.DataFrame]
    notice: str = ""
    index: str = ""

    def recognise(self, folder: Path) -> bool:
        """Whether `folder` looks like this benchmark, whole or not."""
        return all(_present(folder, part) for part in self.signature)

    def load(self, folder: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """The table, and notes: the notice, and counts that differ from the published.

        Raises UserError when a part is missing, with what was looked for and where to get it.
        """
        missing = [part for part in self.parts if not _present(folder, part)]
        if missing:
            there = [part for part in self.parts if part not in missing]
            raise UserError(
                f"{folder}: not a whole {self.title}: missing {', '.join(missing)};"
                f" found {', '.join(there) or 'none of its parts'}."
                f" It is to be had at {self.page} ({self.terms})."
                " To read the folder as it is: --layout folder"
            )
        table = self.read(folder)
        notes = [f"{self.title}: {self.notice}"] if self.notice else []
        for count in self.counts:
            found = count.of(table)
            if found not in count.published:
                published = " or ".join(f"{number:,}" for number in count.published)
                notes.append(f"{self.title}: {found:,} {count.what}, published {published}")
        return table, tuple(notes)


def _present(folder: Path, part: str) -> bool:
    for way in part.split(" or "):
        if "*" in way:
            if next(folder.glob(way), None) is not None:
                return True
        elif (folder / way).is_dir() if way.endswith("/") else (folder / way).is_file():
            return True
    return False


def images_in(folder: Path, name: str, pattern: str = "*.jpg") -> list[Path]:
    """The files of a sub-folder that match, sorted by name."""
    return sorted((folder / name).glob(pattern))


def words(path: Path, columns: int, skip: int = 0) -> list[list[str]]:
    """The lines of a list file, split at white space into so many words (the last takes the rest).

    skip: lines of a header. Empty lines are passed over. Raises UserError with file and line when
    a line has fewer words, or the file is no text.
    """
    return [parts for _, parts in numbered(path, columns, skip)]


def numbered(path: Path, columns: int, skip: int = 0) -> list[tuple[int, list[str]]]:
    """As `words`, each with the number of its line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error.reason})") from None
    result = []
    for number, line in enumerate(lines[skip:], start=skip + 1):
        parts = line.split(None, columns - 1)
        if not parts:
            continue
        if len(parts) < columns:
            raise UserError(f"{path}, line {number}: {len(parts)} words, {columns} are needed")
        result.append((number, [part.strip() for part in parts]))
    return result


def boxed(table: pl.DataFrame) -> pl.DataFrame:
    """The table with a column box of its columns x1, y1, x2, y2: null where there is no area."""
    corners = ("x1", "y1", "x2", "y2")
    area = (pl.col("x1") < pl.col("x2")) & (pl.col("y1") < pl.col("y2"))
    return table.with_columns(box=pl.when(area).then(pl.concat_list(corners))).drop(corners)
