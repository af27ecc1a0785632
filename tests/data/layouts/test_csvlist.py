"""CSV lists: what is read, and which line is wrong."""

from __future__ import annotations

import pytest

from resight.data.layouts.csvlist import read_list
from resight.errors import UserError


def test_columns_by_name(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('\ufeffid,url,x\n007,"http://a,b",1\n\n008,,2.5\n', encoding="utf-8")
    assert read_list(path, ["id"], ["x"]).rows() == [("007", 1.0), ("008", 2.5)]
    path.write_text("x,id\nnan,a\n,b\n1,\n")
    found = read_list(path, ["id"], ["x"], gaps=True)
    assert found.rows() == [("a", None), ("b", None), (None, 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,x\na,1\n\nb,two\n", r"x\.csv, line 4: 'two' is not a number in column x"),
        ("id,x\na,1\n\nb,\n", r"x\.csv, line 4: no value in column x"),
        ("id,x\na,nan\n", r"x\.csv, line 2: 'nan' is not a number in column x"),
        ("id,x\na,1\nb,1,2\n", r"x\.csv, line 3: 3 values for 2 columns"),
        ("id,y\na,1\n", r"x\.csv, line 1: no column x; it has id,y"),
        ("", r"x\.csv: empty; a first line with id,x is needed"),
        ("id,x\na,\xff\n", r"x\.csv: not UTF-8 text"),
    ],
)
def test_a_broken_line(tmp_path, text, message):
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        read_list(path, ["id"], ["x"])


def test_with_gaps_a_number_is_still_one(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,x\na,nan\nb,two\n")
    with pytest.raises(UserError, match=r"x\.csv, line 3: 'two' is not a number in column x"):
        read_list(path, ["id"], ["x"], gaps=True)
