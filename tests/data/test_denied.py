"""What images are not: read, reported by the doctor, left out of training."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from pictures import noise
from resight.data.denied import denials, denied
from resight.data.doctor import examine
from resight.data.sources import load_images
from resight.data.splits import training_parts


def test_lists_and_plain_names() -> None:
    told = ['["a", "b"]', "a", "", None, "[]", '{"x": 1}', "[3]", '["ä\\"x"]']
    table = pl.DataFrame(
        {"object": ["a", "a", "a", "a", "b", None, "3", 'ä"x'], "not_object": told}
    )
    assert denials(table) == [{"a", "b"}, {"a"}, set(), set(), set(), {'{"x": 1}'}, {"3"}, {'ä"x'}]
    assert denied(table).to_list() == [True, True, False, False, False, False, True, True]
    assert denied(table.drop("not_object")).to_list() == [False] * 8
    lists = pl.DataFrame({"object": ["a"], "not_object": [["a", "c"]]})
    assert denied(lists).to_list() == [True]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten objects with three images; rows 0 and 4 deny their object, the last has none."""
    lines = ["path,object,not_object"]
    for number in range(31):
        noise(number).save(tmp_path / f"{number}.png")
        name = f"o{number // 3}" if number < 30 else ""
        wrong = {0: ["o0"], 4: ["o7", "o1"], 5: ["o2"], 30: ["o3"]}.get(number)
        quoted = json.dumps(wrong).replace('"', '""') if wrong else ""
        lines.append(f'{number}.png,{name},"{quoted}"')
    (tmp_path / "index.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_no_image_is_trained_as_what_it_denies(folder: Path) -> None:
    images = load_images(folder / "index.csv")
    parts = training_parts(images, val_share=0.2, seed=0)
    assert "2 images left out: their not_object denies their object" in parts.notes
    used = pl.concat([parts.train.table, parts.val.table])
    assert not {"0.png", "4.png", "30.png"} & set(used["path"])
    test = parts.images.where(pl.col("split") == "test").table
    assert set(used["path"]) | set(test["path"]) == {f"{n}.png" for n in range(30)} - {
        "0.png",
        "4.png",
    }
    assert "5.png" in set(used["path"]) | set(test["path"])  # what it is not is something else


def test_the_doctor_says_so(folder: Path) -> None:
    (folder / "copy.png").write_bytes((folder / "9.png").read_bytes())
    with open(folder / "index.csv", "a") as file:
        file.write('copy.png,,"[""o3""]"\n')
    found = {f.code: f.rows for f in examine(load_images(folder / "index.csv")).findings}
    assert found["denied-object"] == [0, 4]
    assert found["only-denied"] == [30, 31]
    assert found["denied-elsewhere"] == [9]


def test_nothing_is_said_without_the_column(folder: Path) -> None:
    table = pl.read_csv(folder / "index.csv").drop("not_object")
    table.write_csv(folder / "index.csv")
    codes = {f.code for f in examine(load_images(folder / "index.csv")).findings}
    assert not [code for code in codes if "denied" in code]
