"""Names that differ in writing only are found, and no others."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.test_doctor import labels_only, one

from resight.data.spelling import plainly, spellings, told_apart

CAFE = "café"
APART = unicodedata.normalize("NFD", CAFE)


@pytest.mark.parametrize(
    "names",
    [
        ["007", "07", "7", "7.0", "7.", "7,0", " 7", "+7", "7.00"],
        ["0", "00", "0.0"],
        ["-7", "-07", "-7.0"],
        [CAFE, APART, "CAFÉ", "Cafe\u0301 "],
        ["Blue Mug", "blue mug", "blue  mug", "blue\u00a0mug", "blue\tmug", "blue mug\u200b"],
        ["Straße", "STRASSE", "strasse"],
        ["ｓｋｕ１", "sku1"],  # a keyboard set to wide letters
        ["ΣΊΣΥΦΟΣ", "σίσυφος"],
    ],
)
def test_one_name_in_several_writings(names):
    assert len({plainly(name) for name in names}) == 1
    assert [set(group) for group in spellings(pl.Series(names))] == [set(names)]


@pytest.mark.parametrize(
    "names",
    [
        ["7", "70", "77", "-7", "7.5", "7.05", "07.5", "7a", "7 7"],
        ["0", "o", ""],
        ["cafe", CAFE],
        ["blue mug", "bluemug", "blue-mug", "blue_mug"],
        ["1.10", "1.1", "1.01"],  # versions
        ["shoe 1", "shoe 01"],
        ["a/b", "a\\b"],
    ],
)
def test_names_that_differ(names):
    assert spellings(pl.Series(names)) == []


@given(st.lists(st.text(alphabet="aA0 7.é\u0301", max_size=4), max_size=12))
def test_groups_against_pairs(names):
    groups = spellings(pl.Series(names, dtype=pl.String))
    same = {name: set(group) for group in groups for name in group}
    for name in set(names):
        alike = {other for other in names if plainly(other) == plainly(name)}
        assert same.get(name, {name}) == alike
    assert groups == sorted(groups) == spellings(pl.Series(names[::-1], dtype=pl.String))


def test_the_most_frequent_comes_first():
    assert spellings(pl.Series(["07", "7", None, "7", "x"])) == [["7", "07"]]


def test_what_can_not_be_seen_is_written_out():
    assert told_apart("blue  mug") == '"blue  mug"' and told_apart(CAFE) == '"café"'
    assert told_apart(APART) == '"cafe\\u0301"' and told_apart("a\u200b") == '"a\\u200b"'


def test_the_doctor_names_them_and_merges_nothing(tmp_path):
    names = ["007", "07", "7", "7", "7.0", CAFE, APART, "Blue Mug", "blue mug", "blue  mug", "x"]
    report = labels_only(tmp_path, [(name, camera) for name in names for camera in ("c1", "C1")])
    assert report.objects == 10
    finding = one(report, "object-in-several-spellings")
    assert (finding.severity, finding.count, finding.unit) == ("warning", 3, "groups")
    assert finding.names[0] == ['"7"', '"007"', '"07"', '"7.0"']
    assert len(finding.names[1]) == 3 and finding.names[2] == ['"café"', '"cafe\\u0301"'][::-1]
    assert finding.rows == list(range(20))
    assert one(report, "camera-in-several-spellings").names == [['"C1"', '"c1"']]
    listed = [f for f in report.to_json()["findings"] if f["code"] == finding.code]
    assert listed[0]["names"] == finding.names
    plain = labels_only(tmp_path, [("7", "a"), ("7", "b"), ("8", "a"), ("8", "b")])
    assert "object-in-several-spellings" not in {found.code for found in plain.findings}
