"""Tables as spreadsheets on Windows save them."""

from __future__ import annotations

import codecs
from pathlib import Path

import polars as pl
import pytest
from tests.pictures import save

from resight.data.sources import load_images
from resight.data.tables import read_text, with_slashes
from resight.errors import UserError

ROWS = ["path|object", "photos\\shoe0\\0.png|schön", "photos\\shoe1\\0.png|鞋", ""]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shoe0", "shoe1"):
        save(tmp_path / "photos" / name / "0.png")
    return tmp_path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_separators_and_backslashes(folder, separator, mark, encoding, end):
    text = end.join(ROWS).replace("|", separator)
    (folder / "index.csv").write_bytes(mark + text.encode(encoding))
    images = load_images(folder)
    assert images.table["path"].to_list() == ["photos/shoe0/0.png", "photos/shoe1/0.png"]
    assert images.table["object"].to_list() == ["schön", "鞋"] and images.missing() == []
    notes = "\n".join(images.notes)
    assert "backslashes in 2 paths read as /" in notes
    assert ("UTF-16 text" in notes) == ("16" in encoding)
    named = {",": "commas", ";": "semicolons", "\t": "tabs"}[separator]
    plain = separator == "," and encoding == "utf-8"
    assert (f"columns with {named} between" in notes) != plain


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(folder, encoding):
    text = "path\tobject\r\nphotos/shoe0/0.png\tä\r\n"
    (folder / "set.txt").write_bytes(text.encode(encoding))
    images = load_images(folder / "set.txt")
    assert images.table["object"].to_list() == ["ä"] and "UTF-16" in images.notes[0]


def test_a_usual_table_needs_no_note(folder):
    for name, separator in (("a.csv", ","), ("a.tsv", "\t"), ("a.txt", ";")):
        (folder / name).write_text(f"path{separator}object\nphotos/shoe0/0.png{separator}1\n")
        assert load_images(folder / name).notes == ()
    (folder / "one.tsv").write_text("path\nphotos/shoe0/0.png\n")
    assert read_text(folder / "one.tsv")[1] == []


def test_a_file_that_is_there_as_written_wins(tmp_path):
    save(tmp_path / "a\\b.png")
    save(tmp_path / "a" / "b.png")
    save(tmp_path / "c" / "d.png")
    paths = pl.Series("path", ["a\\b.png", "c\\d.png", None, "a/b.png"])
    found, notes = with_slashes(paths, tmp_path)
    assert found.to_list() == ["a\\b.png", "c/d.png", None, "a/b.png"]
    assert len(notes) == 1 and "in 1 paths" in notes[0]
    alone, notes = with_slashes(pl.Series("path", ["a\\b.png"]), tmp_path)
    assert alone.to_list() == ["a\\b.png"] and notes == []


def test_one_file_under_two_writings_is_a_mistake_that_is_told(folder):
    (folder / "index.csv").write_text("path\nphotos\\shoe0\\0.png\nphotos/shoe0/0.png\n")
    with pytest.raises(UserError, match=r"line 3: .* stands already in line 2"):
        load_images(folder)


def test_a_drive_is_told(folder):
    rows = "path\nphotos\\shoe0\\0.png\nC:\\photos\\1.png\n"
    (folder / "index.csv").write_text(rows)
    assert any("1 paths begin with a drive, such as C:" in n for n in load_images(folder).notes)


def test_nothing_but_drives_is_an_error_that_says_why(folder):
    (folder / "index.csv").write_text("path\nD:\\photos\\1.png\n")
    with pytest.raises(UserError, match=r"none of its 1 images exists.* such as D:, .*relative"):
        load_images(folder)


def test_a_parquet_table_made_on_windows(folder):
    table = pl.DataFrame({"path": ["photos\\shoe0\\0.png"], "object": ["a"]})
    table.write_parquet(folder / "set.parquet")
    assert load_images(folder / "set.parquet").missing() == []
