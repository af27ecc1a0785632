"""Image sets from folders and tables: what is found, what is understood, what is refused."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pictures import save

from resight.data.sources import load_images
from resight.errors import UserError


@pytest.fixture
def abc(tmp_path: Path) -> Path:
    """A folder with a.png, b.png and c.png."""
    for name in "abc":
        save(tmp_path / f"{name}.png")
    return tmp_path


def make(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        save(root / name, number)
    return root


def table(folder: Path, text: str | bytes, name: str = "set.csv", **options: Any):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_images(path, **options)


def refusal(folder: Path, text: str | bytes, name: str = "set.csv", **options: Any) -> list[str]:
    """The lines of the error, without the file's name."""
    with pytest.raises(UserError) as error:
        table(folder, text, name, **options)
    return str(error.value).replace(str(folder / name), "FILE").split("\n")


def by_path(images, column: str = "object") -> dict[str, Any]:
    return dict(images.table.select("path", column).iter_rows())


# ---------------------------------------------------------------- folders


def test_a_folder_of_objects(tmp_path):
    make(
        tmp_path,
        "Schuh größe 7/1 a.JPG",
        "Schuh größe 7/2.jpeg",
        "鞋/deep/er/x.WebP",
        "007/y.png",
        " led by a space/ z.png",
    )
    (tmp_path / "007" / "notes.txt").write_text("no picture")
    save(tmp_path / "007" / ".hidden.png")
    save(tmp_path / ".thumbs" / "t.png")
    save(tmp_path / "__MACOSX" / "m.png")
    images = load_images(tmp_path)
    assert by_path(images) == {
        " led by a space/ z.png": " led by a space",
        "007/y.png": "007",
        "Schuh größe 7/1 a.JPG": "Schuh größe 7",
        "Schuh größe 7/2.jpeg": "Schuh größe 7",
        "鞋/deep/er/x.WebP": "鞋/deep/er",
    }
    assert images.missing() == [] and images.notes == ()
    assert images.table["path"].to_list() == sorted(images.table["path"])
    assert load_images(str(tmp_path)).table.equals(images.table)


def test_folders_of_splits(tmp_path):
    make(
        tmp_path,
        "Train/a/1.png",
        "valid/b/1.png",
        "test/c/1.png",
        "test/query/d/1.png",
        "test/gallery/d/2.png",
        "query/e/1.png",
        "gallery/e/2.png",
        "train/loose.png",
        "other/train/1.png",
    )
    rows = load_images(tmp_path).table.select("path", "object", "split", "role").rows()
    assert sorted(rows) == [
        ("Train/a/1.png", "a", "train", None),
        ("gallery/e/2.png", "e", "test", "gallery"),
        ("other/train/1.png", "other/train", None, None),
        ("query/e/1.png", "e", "test", "query"),
        ("test/c/1.png", "c", "test", None),
        ("test/gallery/d/2.png", "d", "test", "gallery"),
        ("test/query/d/1.png", "d", "test", "query"),
        ("train/loose.png", None, "train", None),
        ("valid/b/1.png", "b", "val", None),
    ]


def test_loose_images_are_of_unknown_object(tmp_path):
    images = load_images(make(tmp_path, "a/1.png", "a/2.png", "3.png"))
    assert by_path(images) == {"a/1.png": "a", "a/2.png": "a", "3.png": None}
    assert len(images.notes) == 1 and images.notes[0].startswith("1 images lie outside")


def test_a_folder_without_labels(tmp_path):
    images = load_images(make(tmp_path, "1.png", "2.png"))
    assert not images.has("object")
    assert images.notes == ("no labels: the images lie directly in the folder",)


def test_unlabelled_ignores_folders_and_their_index(tmp_path):
    make(tmp_path, "a/1.png", "train/b/2.png")
    (tmp_path / "index.csv").write_text("path,object\na/1.png,x\n")
    images = load_images(tmp_path, unlabelled=True)
    assert by_path(images) == {"a/1.png": None, "train/b/2.png": None}
    assert by_path(images, "split") == {"a/1.png": None, "train/b/2.png": "train"}
    assert images.notes == ()


def test_links_are_followed_but_not_in_circles(tmp_path):
    make(tmp_path / "set", "a/1.png", "b/2.png")
    make(tmp_path / "far", "3.png")
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a" / "self").symlink_to(".")
    (tmp_path / "set" / "c").symlink_to(tmp_path / "far")
    (tmp_path / "set" / "d").symlink_to(tmp_path / "far")  # a second way to it is no circle
    (tmp_path / "set" / "e").symlink_to(tmp_path / "nowhere")
    expected = {"a/1.png": "a", "b/2.png": "b", "c/3.png": "c", "d/3.png": "d"}
    assert by_path(load_images(tmp_path / "set")) == expected


def test_a_closed_folder_is_named_in_the_notes(tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "closed/2.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images = load_images(tmp_path)
    assert by_path(images) == {"a/1.png": "a"}
    assert images.notes == (f"{tmp_path / 'closed'}: can't be read and was left out",)


def test_names_that_are_not_utf8_are_left_out_and_counted(tmp_path):
    make(tmp_path, "a/1.png")
    (Path(os.fsencode(tmp_path / "a").decode()) / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    images = load_images(tmp_path)
    assert by_path(images) == {"a/1.png": "a"}
    assert images.notes == ("1 files whose names are not valid UTF-8 were left out",)


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(UserError, match="not found"):
        load_images(tmp_path / "absent")
    with pytest.raises(UserError, match="no images in this folder"):
        load_images(tmp_path)
    make(tmp_path, "a.png")
    with pytest.raises(UserError, match="--columns needs a table"):
        load_images(tmp_path, columns={"object": "sku"})


@pytest.mark.parametrize("name", ["index.csv", "images.csv", "index.parquet"])
def test_an_index_inside_a_folder_rules(tmp_path, name):
    make(tmp_path, "a/1.png", "b/2.png")
    rows = pl.DataFrame({"path": ["a/1.png"], "sku": ["007"]})
    if name.endswith("csv"):
        rows.write_csv(tmp_path / name)
    else:
        rows.write_parquet(tmp_path / name)
    images = load_images(tmp_path, columns={"object": "sku"})
    assert by_path(images) == {"a/1.png": "007"}
    assert images.source == str(tmp_path / name) and images.root == tmp_path


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_kinds_of_text_tables(abc, separator, mark, end):
    rows = ["path|object|split", "a.png|007|train", "b.png|1e5|test", "c.png||"]
    text = end.join(rows).replace("|", separator) + end
    images = table(abc, mark + text.encode(), "set.tsv" if separator == "\t" else "set.csv")
    assert by_path(images) == {"a.png": "007", "b.png": "1e5", "c.png": None}
    assert by_path(images, "split") == {"a.png": "train", "b.png": "test", "c.png": None}


def test_a_parquet_table_with_absolute_paths(abc, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "set.parquet"
    rows = {"path": [str(abc / "a.png")], "object": [7], "box": [[0, 1, 2, 3]], "own": [1.5]}
    pl.DataFrame(rows).write_parquet(elsewhere)
    images = load_images(elsewhere)
    assert images.table.drop("path").row(0) == ("7", None, None, None, [0, 1, 2, 3], 1.5)
    assert images.full_paths() == [abc / "a.png"]


text_value = st.text(alphabet='aé0 ,;\t"\n漢|', max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(text_value, text_value, st.booleans()), min_size=1, max_size=5),
    separator=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_text_tables_against_the_csv_module(rows, separator, quoting, tmp_path_factory):
    """Values come through as they are, blank lines are no rows, and errors name the line."""
    folder = tmp_path_factory.getbasetemp()
    save(folder / "0.png")
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator="\n")
    writer.writerow(["path", "own", "object", "split"])
    starts = []
    for number, (own, name, blank) in enumerate(rows):
        if blank:
            file.write("\n")
        starts.append(file.getvalue().count("\n") + 1)
        writer.writerow([f"{number}.png", own, name, "train"])
    images = table(folder, file.getvalue())
    assert images.table["object"].to_list() == [name.strip() or None for _, name, _ in rows]
    assert [own or "" for own in images.table["own"]] == [own for own, _, _ in rows]
    lines = refusal(folder, file.getvalue().replace("train", "dev"))
    assert [line.partition(":")[0] for line in lines] == [f"FILE, line {n}" for n in starts]


def test_other_names_of_columns(abc):
    images = table(abc, "FileName,pid,camid,label,Split,note\na.png,1,2,shoe,Train,x\n")
    assert images.table.rows(named=True) == [
        {"path": "a.png", "object": "shoe", "camera": "2", "split": "train", "role": None}
        | {"box": None, "pid": "1", "note": "x"}
    ]
    assert "column 'label' taken as 'object'" in images.notes
    assert by_path(table(abc, "image_path,id\na.png,7\n")) == {"a.png": "7"}
    assert by_path(table(abc, "path,object,label\na.png,7,8\n")) == {"a.png": "7"}
    assert by_path(table(abc, " path , object \n a.png , 7 \n")) == {"a.png": "7"}


def test_columns_as_told(abc):
    text = "path,object,sku,object_original\na.png,1,2,3\n"
    images = table(abc, text, columns={"object": "sku"})
    row = images.table.row(0, named=True)
    assert row["object"] == "2"
    assert row["object_original_"] == "1" and row["object_original"] == "3"  # nothing is lost
    assert images.notes == ("column 'sku' taken as 'object'",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"objekt": "sku"}, "no such column; ours are path, object"),
        ({"object": "size"}, "FILE: no column 'size' (--columns); it has: path, sku"),
        ({"object": "sku", "camera": "sku"}, "'sku' can't be two columns at once"),
    ],
)
def test_columns_told_wrongly(abc, columns, message):
    assert message in refusal(abc, "path,sku\na.png,2\n", columns=columns)[0]


@pytest.mark.parametrize(
    "text",
    [
        'path,box\na.png,1 2 3.5 4\nb.png,"[1, 2, 3.5, 4]"\nc.png,\n',
        'path,bbox\na.png,"1,2,3.5,4"\nb.png,(1;2;3.5;4)\nc.png,\n',
        "path,x1,y1,x2,y2\na.png,1,2,3.5,4\nb.png,1.0,2e0,3.5,4\nc.png,,,,\n",
        "path,XMin,YMin,XMax,YMax\na.png,1,2,3.5,4\nb.png,1,2,3.5,4\nc.png, , , , \n",
    ],
)
def test_kinds_of_boxes(abc, text):
    boxes = by_path(table(abc, text), "box")
    assert boxes == {"a.png": [1, 2, 3.5, 4], "b.png": [1, 2, 3.5, 4], "c.png": None}


@pytest.mark.parametrize(
    "text",
    [
        "path,box\n{}1 2 3\n{}one 2 3 4\n{}3 2 1 4\n{}1 2 inf 4\n{}nan 1 2 3\n{}1 1 2 1\n",
        "path,x1,y1,x2,y2\n{}1,2,3,\n{}one,2,3,4\n{}3,2,1,4\n{}1,2,inf,4\n{}nan,1,2,3\n{},1,2,1\n",
    ],
)
def test_every_bad_box_is_listed(abc, text):
    lines = refusal(abc, text.format(*(f"{n}.png," for n in range(6))))
    assert [line.partition(": box ")[0] for line in lines] == [
        f"FILE, line {number}" for number in range(2, 8)
    ]


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("box", [3], "Int64"),
        ("box", [{"x1": 3}], "Struct"),
        ("box", [["1", "2", "3", "x"]], "List(String)"),
        ("object", [["a"]], "List(String)"),
        ("path", [b"a.png"], "Binary"),
    ],
)
def test_a_parquet_column_of_a_wrong_type(abc, column, values, kind):
    pl.DataFrame({"path": ["a.png"]} | {column: values}).write_parquet(abc / "set.parquet")
    with pytest.raises(UserError, match=r"column '\w+' holds " + kind.split("(")[0]):
        load_images(abc / "set.parquet")


def test_all_errors_come_at_once(abc):
    text = "path,split,role,box\na.png,dev,,\n,train,,\na.png,,judge,x\na.png,,,\n"
    assert [
        line.split(": ")[0] + ": " + line.split(": ")[1][:9] for line in refusal(abc, text)
    ] == [
        "FILE, line 2: split 'de",
        "FILE, line 3: no path",
        "FILE, line 4: 'a.png' s",
        "FILE, line 4: box 'x' i",
        "FILE, line 4: role 'jud",
        "FILE, line 5: 'a.png' s",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "FILE: empty; a first line"),
        ("path,object\n", "FILE: no images; at least one row"),
        ("path,object\n\n\n", "FILE: no images; at least one row"),
        ("photo album,object\na.png,1\n", "FILE: no column 'path'; it has: photo album, object."),
        ("path, path\na.png,b.png\n", "FILE: two columns are called 'path'"),
        ("path,object\na.png,1\na.png,1\n", "FILE, line 3: 'a.png' stands already in line 2"),
        ("path,object\nx.png,1\ny.png,2\n", "none of its 2 images exists, the first would be"),
        ("path,object\na.png,1\nb.png,1,2\n", "FILE: can't be read as csv: line 3 has 3 values"),
        ("path,object\na.png,é\n".encode("latin-1"), "FILE: not UTF-8 text"),
        (b"path,object\n" + b"a.png,1\n" * 3000 + b"b.png,\xe9\n", "not UTF-8 text"),
        ("path,object\na.png,é\n".encode("utf-16")[:-1], "FILE: not UTF-16 text"),
        ("path\tobject\na.png\t1\t2\n".encode("utf-16"), "csv: line 2 has 3 values"),
    ],
)
def test_tables_that_are_refused(abc, text, message):
    lines = refusal(abc, text)
    assert len(lines) == 1 and message in lines[0]


def test_a_short_line_leaves_the_rest_unknown(abc):
    assert by_path(table(abc, "path,object\na.png\nb.png,1\n")) == {"a.png": None, "b.png": "1"}


def test_files_of_other_kinds(abc):
    assert "holds no image set" in refusal(abc, "{}", "set.json")[0]
    assert "can't be read as parquet" in refusal(abc, "path,object\n", "set.parquet")[0]
    with pytest.raises(UserError, match="holds no image set"):
        load_images(abc / "a.png")
