"""Tables as text: which encoding, which separator; and what an odd one was understood as."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

import polars as pl

from resight.data.addresses import Place
from resight.errors import UserError

ENDINGS = (".csv", ".tsv", ".txt")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
_USUAL = {".csv": ",", ".tsv": "\t"}
# Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


def read_text(path: Place, content: bytes | None = None) -> tuple[pl.DataFrame, list[str]]:
    """A table of text, and notes on what was understood: UTF-16, an unusual separator.

    `content`: the bytes of the file, where they are at hand.

    Every value is text: an object named 007 keeps its zeros. UTF-8, with a mark or without, or
    UTF-16 as spreadsheets on Windows save it; commas, semicolons or tabs, by the first line.

    Raises UserError: no text, empty, or a line with more values than columns.
    """
    if content is None:
        content = Path(path).read_bytes()
    encoding = _encoding(content)
    try:
        # polars takes UTF-8, with its mark.
        text = None if encoding.startswith("utf-8") else content.decode(encoding)
        header = content.split(b"\n", 1)[0].decode(encoding) if text is None else _first(text)
    except UnicodeDecodeError as error:
        raise _no_text(path, encoding, error.reason) from None
    if not header.strip():
        raise UserError(f"{path}: empty; a first line with the column names is needed")
    separator = max(_NAMES, key=header.count)
    try:
        source = content if text is None else text.encode()
        table = pl.read_csv(source, separator=separator, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeError) as error:
        first = (str(error).strip().splitlines() or ["broken"])[0]
        try:
            first = _broken_line(text or content.decode(encoding), separator) or first
        except UnicodeDecodeError as fault:
            raise _no_text(path, encoding, fault.reason) from None
        ending = path.suffix.lower()[1:]
        raise UserError(f"{path}: can't be read as {ending}: {first}") from None
    notes = []
    odd = _USUAL.get(path.suffix.lower(), separator) != separator and header.count(separator)
    if text is not None or odd:
        name = "" if text is None else f"{encoding.upper()} text, "
        notes.append(f"read as {name}columns with {_NAMES[separator]} between")
    return table, notes


def _encoding(content: bytes) -> str:
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    # Without a mark: of a first line in Latin letters every other byte is zero.
    start = content[:200]
    if len(start) > 3 and start[1::2].count(0) > 0.9 * len(start[1::2]):
        return "utf-16-le"
    if len(start) > 3 and start[::2].count(0) > 0.9 * len(start[::2]):
        return "utf-16-be"
    return "utf-8"


def _first(text: str) -> str:
    return text.lstrip("\ufeff").split("\n", 1)[0]


def _no_text(path: Place, encoding: str, reason: str) -> UserError:
    kind = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
    return UserError(f"{path}: not {kind} text ({reason}); save it as UTF-8")


def _broken_line(text: str, separator: str) -> str:
    """What is wrong in which line of a table that polars refused; "" where nothing is seen."""
    rows = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=separator)
    try:
        width = len(next(rows))
        for row in rows:
            if len(row) > width:
                return f"line {rows.line_num} has {len(row)} values for {width} columns"
    except csv.Error as error:
        return f"line {rows.line_num}: {error}"
    return ""


def with_slashes(paths: pl.Series, root: Path) -> tuple[pl.Series, list[str]]:
    """Paths with / where a table made on Windows has \\, and a note on it.

    A file whose name really holds a backslash, and which is there as written, wins. A drive
    ("C:\\photos\\1.jpg") leads nowhere here, which the note says.
    """
    odd = paths.str.contains("\\", literal=True).fill_null(False)
    if not odd.any():
        return paths, []
    found = paths.to_list()
    changed, drives = 0, []
    for row in odd.arg_true().to_list():
        if (root / found[row]).is_file():
            continue
        found[row] = found[row].replace("\\", "/")
        changed += 1
        drives += [found[row][:2]] * (found[row][1:3] == ":/")
    if not changed:
        return paths, []
    notes = [f"backslashes in {changed:,} paths read as /, as a table made on Windows has them"]
    if drives:
        notes.append(
            f"{len(drives):,} paths begin with a drive, such as {drives[0]}, which is not here; "
            "write paths relative to the table"
        )
    return pl.Series(paths.name, found, dtype=pl.String), notes
