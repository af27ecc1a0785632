"""`resight compare` and `resight report`: on folders as they are written, and mistakes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from command import resight
from evaluations import PROTOCOL, evaluation, photos, ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs a and b (better), each with an evaluation; and x, of another protocol."""
    made = tmp_path_factory.mktemp("runs [1]")
    images = photos(made / "data", 60, 20)
    evaluation(made / "a" / "evaluation", images, ranks(1, 60, 1.0))
    evaluation(made / "b" / "evaluation", images, ranks(2, 60))
    evaluation(made / "x", images, ranks(2, 60), protocol=PROTOCOL | {"name": "other"})
    return made


def test_table_and_page(folder, tmp_path, capfd):
    page = tmp_path / "page.html"
    words = ["compare", str(folder / "a"), str(folder / "b" / "evaluation"), "--out", str(page)]
    assert resight(*words, "--by", "category") == 0
    out, err = capfd.readouterr()
    assert "market1501: market1501 in words; 60 queries" in out
    assert re.search(r"b is better: \+\d+\.\d mAP \[\d+\.\d, \d+\.\d\], p < \.001", out), out
    assert re.search(r"R@1 +│ \d+\.\d ± \d+\.\d +│ \d+\.\d ± \d+\.\d +│ \+\d+\.\d", out), out
    assert f"page: {page}" in err and "<th>category</th>" in page.read_text()


def test_json(folder, capfd):
    assert resight("compare", str(folder / "a"), str(folder / "b"), "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["baseline"] == "a" and found["runs"] == ["a", "b"]
    assert found["protocols"][0]["metrics"][0]["differences"][0]["p"] < 0.001


def test_report(folder, tmp_path, capfd):
    page = tmp_path / "pages" / "all.html"
    runs = [str(folder / name) for name in ("a", "b", "x")]
    assert resight("report", *runs, "--out", str(page)) == 0
    out, err = capfd.readouterr()
    assert out == f"{page}\n" and "3 evaluations" in err
    text = page.read_text()
    assert "<h2>market1501</h2>" in text and "<h2>other</h2>" in text


def damaged(tmp: Path) -> str:
    (tmp / "bad").mkdir()
    (tmp / "bad" / "scores.json").write_text("{")
    return str(tmp / "bad")


def several(folder: Path, tmp: Path) -> str:
    for name in "12":
        shutil.copytree(folder / "a" / "evaluation", tmp / name)
    return str(tmp)


Words = Callable[[Path, Path], list[str]]
MISTAKES: dict[str, tuple[Words, str]] = {
    "one run": (lambda f, t: ["compare", str(f / "a")], "others|OTHERS"),
    "not there": (lambda f, t: ["compare", str(f / "a"), "/no/run"], "/no/run: not found"),
    "no evaluation": (lambda f, t: ["compare", str(f / "a"), str(t)], "not an evaluation folder"),
    "several": (
        lambda f, t: ["compare", several(f, t), str(f / "a")], r"holds 2 evaluations \(1, 2\)"
    ),
    "damaged": (lambda f, t: ["compare", str(f / "a"), damaged(t)], "scores.json: not valid JSON"),
    "twice": (lambda f, t: ["compare", str(f / "a"), str(f / "a" / "evaluation")], "given twice"),
    "no protocol": (
        lambda f, t: ["compare", str(f / "a"), str(f / "x")], "no protocol in common: a"
    ),
    "another protocol": (
        lambda f, t: ["compare", str(f / "a"), str(f / "b"), "--protocol", "sop"],
        "--protocol sop: not in all: a has market1501; b has market1501",
    ),
    "no such column": (
        lambda f, t: ["compare", str(f / "a"), str(f / "b"), "--by", "colour", "--out",
                      str(t / "p.html")], "--by colour: .*object, camera, category",
    ),
    "column without a page": (
        lambda f, t: ["compare", str(f / "a"), str(f / "b"), "--by", "camera"], "give --out"
    ),
    "page of no such kind": (
        lambda f, t: ["compare", str(f / "a"), str(f / "b"), "--out", str(t / "p.pdf")],
        "p.pdf: a page's name ends in .html",
    ),
    "report without a page": (lambda f, t: ["report", str(f / "a")], "--out is missing"),
    "report into a folder": (
        lambda f, t: ["report", str(f / "a"), "--out", str(f)], r"a page's name ends in \.html"
    ),
    "report of nothing": (
        lambda f, t: ["report", str(t), "--out", str(t / "p.html")], "not an evaluation folder"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, folder, tmp_path, capfd):
    words, expected = MISTAKES[name]
    status = resight(*words(folder, tmp_path))
    out, err = capfd.readouterr()
    assert status == 2 and out == "", err
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("resight: "), err
    assert re.search(expected, lines[0]), lines[0]
    assert not list(tmp_path.glob("*.html"))
