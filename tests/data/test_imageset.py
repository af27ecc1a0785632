"""The table of images: its columns, its checks, its fingerprint, and the way to disk and back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pictures import save

from resight.data.imageset import SCHEMA, ImageSet, check, normalise
from resight.data.sources import load_images
from resight.errors import UserError


def image_set(root: Path, **columns: list[Any]) -> ImageSet:
    return ImageSet(normalise(pl.DataFrame(columns)), root)


@pytest.fixture
def three(tmp_path: Path) -> ImageSet:
    for number in range(3):
        save(tmp_path / "set" / f"{number}.png", number)
    return image_set(tmp_path / "set", path=["0.png", "1.png", "2.png"], object=["b", "a", None])


def test_absent_columns_are_null_and_of_the_right_type():
    table = normalise(pl.DataFrame({"path": ["a"], "colour": ["red"]}))
    assert dict(table.schema) == {**SCHEMA, "colour": pl.String()}
    assert table.row(0) == ("a", None, None, None, None, None, "red")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["007", " x ", ""], ["007", " x ", None]),
        ([7, 8, None], ["7", "8", None]),
        ([7.0, float("nan"), None], ["7", None, None]),  # what pandas makes of 7, -, -
        ([7.5, 8.0, None], ["7.5", "8.0", None]),
        ([True, False, None], ["true", "false", None]),
        (pl.Series(["x", "y", "x"], dtype=pl.Categorical), ["x", "y", "x"]),
    ],
)
def test_objects_become_text(values, expected):
    table = normalise(pl.DataFrame({"path": ["a", "b", "c"], "object": values}))
    assert table["object"].to_list() == expected


def test_synonyms_of_splits_and_roles():
    words = ["Training", " train ", "VALID", "validation", "testing", "other"]
    roles = ["Query", "GALLERY", "both", "", " ", "x"]
    table = normalise(pl.DataFrame({"path": list("abcdef"), "split": words, "role": roles}))
    assert table["split"].to_list() == ["train", "train", "val", "val", "test", "other"]
    assert table["role"].to_list() == ["query", "gallery", "both", None, None, "x"]


def test_check_lists_all_errors_with_their_lines():
    rows = {
        "path": ["a", None, "c", "a", "e", "f", "g", "h"],
        "split": ["train", "train", "dev", None, "val", "val", "val", "val"],
        "role": ["query", None, "judge", None, None, None, None, None],
        "box": [None, None, None, None, [1, 2, 1, 4], [1, 2, 3], [0, 0, float("inf"), 1], None],
    }
    with pytest.raises(UserError) as error:
        check(normalise(pl.DataFrame(rows, strict=False)), "set.csv", pl.Series(range(2, 10)))
    lines = str(error.value).split("\n")
    assert [line.partition(": ")[0] for line in lines] == [
        f"set.csv, line {number}" for number in (3, 4, 4, 5, 6, 7, 8)
    ]
    assert "no path" in lines[0] and "already in line 2" in lines[3]
    assert "'judge'" in lines[1] and "'dev'" in lines[2]


def test_check_shows_twenty_errors_and_counts_the_rest():
    table = normalise(pl.DataFrame({"path": [f"{n}" for n in range(50)], "split": ["q"] * 50}))
    with pytest.raises(UserError) as error:
        check(table, "x")
    assert len(str(error.value).split("\n")) == 21
    assert str(error.value).endswith("and 30 more errors")


def test_one_picture_may_have_several_boxes_but_not_twice_the_same():
    boxes = [[0, 0, 1, 1], [0, 0, 2, 2], None]
    check(normalise(pl.DataFrame({"path": ["a"] * 3, "box": boxes})), "x")
    with pytest.raises(UserError, match="line 3: 'a' stands already in line 1"):
        check(normalise(pl.DataFrame({"path": ["a"] * 3, "box": boxes[:2] + boxes[:1]})), "x")


def test_rows_where_has_objects(three):
    assert three.rows([2, 0]).table["path"].to_list() == ["2.png", "0.png"]
    assert [path.name for path in three.rows([2, 0]).full_paths()] == ["2.png", "0.png"]
    assert len(three.rows([])) == 0 and not three.rows([]).has("object")
    assert three.where(pl.col("object") == "a").full_paths() == [three.root / "1.png"]
    assert three.has("object") and not three.has("camera")
    assert three.objects() == ["a", "b"]
    (three.root / "1.png").unlink()
    assert three.missing() == [1]


def changed(images: ImageSet, column: str, values: list[Any]) -> ImageSet:
    series = pl.Series(column, values, dtype=SCHEMA.get(column))
    return ImageSet(images.table.with_columns(series), images.root)


def test_the_fingerprint_stays(three, tmp_path):
    """Elsewhere on the disk, written and read again, with other columns of the user's own."""
    mark = three.fingerprint()
    assert len(mark) == 64
    shutil.copytree(three.root, tmp_path / "copy")
    assert ImageSet(three.table, tmp_path / "copy").fingerprint() == mark
    assert load_images(three.write(tmp_path / "other" / "set.parquet")).fingerprint() == mark
    assert changed(three, "price", [1, 2, 3]).fingerprint() == mark


def test_the_fingerprint_changes(three):
    """With a row, a label of any kind, a name, or a file's length."""
    box = [None, None, [0, 0, 4, 4]]
    others = [
        three,
        three.rows([0, 1]),
        three.rows([1, 0, 2]),
        changed(three, "object", ["b", "a", "c"]),
        changed(three, "object", ["b", None, "a"]),
        changed(three, "camera", ["b", "a", None]),
        changed(three, "split", ["train", None, None]),
        changed(three, "role", ["query", None, None]),
        changed(three, "box", box),
        changed(three, "box", [box[2], None, None]),
        changed(three, "path", ["0.png", "1.png", "3.png"]),
        changed(three, "path", ["0.png", "1.png", "\0.png"]),
    ]
    marks = [images.fingerprint() for images in others]
    with open(three.root / "1.png", "ab") as file:
        file.write(b"x")
    marks.append(three.fingerprint())
    (three.root / "1.png").unlink()
    marks.append(three.fingerprint())
    assert len(set(marks)) == len(marks)


word = st.one_of(st.none(), st.text(min_size=1, max_size=6).filter(lambda t: "\0" not in t))
corner = st.integers(0, 99) | st.floats(0, 99, width=32)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "object": word,
                "camera": word,
                "split": st.sampled_from([None, "train", "val", "test"]),
                "role": st.sampled_from([None, "query", "gallery", "both"]),
                "box": st.none()
                | st.tuples(corner, corner).map(lambda p: [p[0], p[1], p[0] + 5, p[1] + 0.5]),
                "own": word,
            }
        ),
        min_size=1,
        max_size=6,
    )
)
def test_written_and_read_again_nothing_changes(rows, tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    save(root / " first ä.png")
    names = [" first ä.png", *(f"gone {number}.png" for number in range(1, len(rows)))]
    table = pl.DataFrame(
        [{"path": name, **row} for name, row in zip(names, rows, strict=True)],
        schema={**SCHEMA, "own": pl.String()},
        strict=False,
    )
    images = ImageSet(normalise(table), root)
    again = load_images(images.write(root / "elsewhere" / "set.parquet"))
    assert again.full_paths() == images.full_paths()
    assert again.table.drop("path").equals(images.table.drop("path"))
