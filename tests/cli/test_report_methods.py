"""`resight report` of methods with several runs, and of sweeps: one page, one table; mistakes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from command import resight
from evaluations import evaluation, photos, ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sweeps one and two, each of methods a and b with two seeds; of b's one isn't evaluated."""
    made = tmp_path_factory.mktemp("sweeps [1]")
    images = photos(made / "data", 60, 20)
    for place, name in enumerate(("one", "two")):
        for method, shift in (("a", 1.0), ("b", 0.0)):
            for seed in range(2):
                where = made / name / "evaluations" / f"{method}={seed}"
                evaluation(where, images, ranks(10 * place + seed, 60, shift))
        groups = {m: [f"evaluations/{m}={s}" for s in range(2)] for m in "ab"}
        groups["b"] += ["evaluations/b=2"] * (name == "two")
        (made / name / "sweep.json").write_text(json.dumps({"groups": groups}))
    return made


def test_methods_by_name(folder, tmp_path, capfd):
    at = folder / "one" / "evaluations"
    words = [f"A={at}/a=0", f"B={at}/b=0,{at}/b=1", f"A={at}/a=1"]
    page, table = tmp_path / "page.html", tmp_path / "tables" / "table.csv"
    assert resight("report", *words, "--out", str(page), "--csv", str(table)) == 0
    out, err = capfd.readouterr()
    assert out == f"{page}\n{table}\n" and err == "2 methods, 4 runs\n"
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    first = rows[0]
    expected = [np.mean(1 / ranks(seed, 60, 1.0)) for seed in range(2)]
    assert (first["method"], first["metric"], first["runs"], first["p"]) == ("A", "mAP", "2", "")
    np.testing.assert_allclose([float(v) for v in first["values"].split()], expected)
    assert float(first["mean"]) == pytest.approx(np.mean(expected))
    assert float(first["sd"]) == pytest.approx(np.std(expected, ddof=1))
    assert float(rows[1]["p_holm"]) < 0.001 and rows[1]["drawn"] == "20"
    text = page.read_text()
    assert "More than A" in text and "All image sets" not in text


def test_names_with_stars(folder, capfd, monkeypatch):
    monkeypatch.chdir(folder / "one" / "evaluations")
    assert resight("report", "A=a=*", "B=b=?", "--json", "--baseline", "B") == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    assert {(row["method"], row["runs"], row["baseline"]) for row in rows} == {
        ("A", 2, "B"), ("B", 2, "B"),
    }  # fmt: skip


def test_sweeps_make_one_page_and_one_table(folder, tmp_path, capfd):
    page = tmp_path / "page.html"
    words = ["report", str(folder / "one"), f"zwei={folder / 'two'}", "--out", str(page), "--json"]
    assert resight(*words) == 0
    out, err = capfd.readouterr()
    rows = json.loads(out)["rows"]
    assert len(rows) == 2 * 5 * 2 and [row["set"] for row in rows[::10]] == ["one", "zwei"]
    assert "zwei: 1 of 3 runs of b have no evaluation yet and are left out" in err
    text = page.read_text()
    overview = text.split("All image sets</h2>")[1].split("</table>")[0]
    assert "one<span" in overview and "zwei<span" in overview and overview.count("▲") == 4
    for row in rows:
        if row["metric"] in ("mAP", "R@1"):
            assert f"{100 * row['mean']:.1f} ± {100 * row['sd']:.1f}" in overview
    assert "1 of 3 runs of b" in text


def another(tmp: Path, content: str) -> str:
    (tmp / "sweep").mkdir()
    (tmp / "sweep" / "sweep.json").write_text(content)
    return str(tmp / "sweep")


def copied(folder: Path, tmp: Path) -> str:
    shutil.copytree(folder / "one", tmp / "one")
    return str(tmp / "one")


Words = Callable[[Path, Path], list[str]]
MISTAKES: dict[str, tuple[Words, str]] = {
    "not there": (lambda f, t: ["A=/no/run"], "/no/run: not found"),
    "no method": (lambda f, t: [f"={f}/one"], "not of the form NAME=evaluation"),
    "only commas": (lambda f, t: ["A=,"], "A=: no evaluation named"),
    "a run without a name": (
        lambda f, t: [f"A={f}/one/evaluations/a=0", f"{f}/one/evaluations/a=1"],
        r"of which method is it\? Give NAME=",
    ),
    "a sweep and a run": (
        lambda f, t: [f"{f}/one", f"{f}/one/evaluations/a=1"], "no sweep .* give only sweeps"
    ),
    "two of one name": (lambda f, t: [f"s={f}/one", f"s={f}/two"], "s: two sweeps of this name"),
    "no groups": (lambda f, t: [another(t, '{"runs": {}}')], "which evaluations belong together"),
    "groups of what": (
        lambda f, t: [another(t, '{"groups": {"a": [3]}}')], "which evaluations belong together"
    ),
    "nothing evaluated": (
        lambda f, t: [another(t, '{"groups": {"a": ["x"]}}')], "finish it first"
    ),
    "no such baseline": (lambda f, t: [f"{f}/one", "--baseline", "c"], "there are a, b"),
    "twice": (
        lambda f, t: [f"A={f}/one/evaluations/a=0", f"B={f}/one/evaluations/a=0"], "given twice"
    ),
    "baseline of single runs": (
        lambda f, t: [f"{f}/one/evaluations/a=0", "--baseline", "a"], "are for methods"
    ),
    "a table that is a folder": (
        lambda f, t: [f"{f}/one", "--csv", str(f)], "is a folder; a table is a file"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, folder, tmp_path, capfd):
    words, expected = MISTAKES[name]
    status = resight("report", *words(folder, tmp_path), "--out", str(tmp_path / "page.html"))
    out, err = capfd.readouterr()
    assert status == 2 and out == "", err
    lines = err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("resight: "), err
    assert re.search(expected, lines[0]), lines[0]
    assert not list(tmp_path.glob("*.html"))


def test_nothing_to_write(folder, capfd):
    assert resight("report", str(folder / "one")) == 2
    assert "--out is missing" in capfd.readouterr().err


def test_sweeps_of_the_same_name_are_told_apart(folder, tmp_path, capfd):
    other = copied(folder, tmp_path)
    assert resight("report", str(folder / "one"), other, "--json") == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    assert {row["set"] for row in rows} == {str(folder / "one"), other}
