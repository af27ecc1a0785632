"""`resight ask` and `resight compare --answers`: from photos to a verdict, and mistakes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import resight as public
from asking import THINGS, features, photos, precision, truth
from command import TINY, resight
from pages import Page

NETWORK = ["--weights", "none", "--size", "32", "--workers", "0"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and features of a good and of a bad embedder."""
    folder = tmp_path_factory.mktemp("ask [1]")
    photos(folder)
    np.save(folder / "good.npy", features(0.3, 1))
    np.save(folder / "bad.npy", features(1.0, 2))
    return folder


def content(page: Path) -> dict[str, Any]:
    """The data inside a page."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', text, re.S)
    assert found
    return dict(json.loads(found[1]))


def answer(page: Path, out: Path, **changes: str) -> Path:
    """The file that the page would save, with the truth as answers but for these."""
    design = content(page)["design"]
    said = truth(design) | changes
    out.write_text(json.dumps({"format": 1, "kind": "answers", "design": design, "answers": said}))
    return out


def test_all_asked_is_the_truth(made: Path, tmp_path: Path, capfd) -> None:
    """Every photo on which they differ: the verdict is the difference of the two precisions."""
    words = [str(made / "good.npy"), str(made / "bad.npy"), str(made / "photos")]
    page = tmp_path / "ask.html"
    assert resight("ask", *words, "--out", str(page), "--pairs", "200") == 0
    out, err = capfd.readouterr()
    assert out == f"{page}\n"
    assert err.strip().endswith("next: resight compare --answers answers.json")
    assert "fewer than the 200 pairs" in err
    exact = precision(features(0.3, 1)) - precision(features(1.0, 2))
    saved = answer(page, tmp_path / "answers.json")
    assert resight("compare", "--answers", str(saved), "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["over_all"]["value"] == pytest.approx(exact) and exact > 0.2
    assert found["over_all"]["low"] == found["over_all"]["high"] == found["over_all"]["value"]
    assert found["told"] and found["answered"] == found["queries"] == found["differ"]
    assert resight("compare", "--answers", str(saved)) == 0
    line = capfd.readouterr().out.splitlines()[0]
    good, bad = words[:2]
    assert line.startswith(f"{good} finds the same thing more often than {bad}: +{100 * exact:.1f}")
    assert f"pairs of {found['differ']} photos on which they differ" in line


def test_some_asked_and_some_not_answered(made: Path, tmp_path: Path, capfd) -> None:
    words = [str(made / "bad.npy"), str(made / "good.npy"), str(made / "photos")]
    page = tmp_path / "ask.html"
    assert resight("ask", *words, "--out", str(page), "--pairs", "20", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert told["queries"] == 10 and told["pairs"] <= 20 and told["photos"] == 48
    saved = answer(page, tmp_path / "answers.json", **{"0": "unsure"})
    assert resight("compare", "--answers", str(saved)) == 0
    out = capfd.readouterr().out
    assert "1 can't say: 1 of 10 photos left out" in out
    first = out.splitlines()[0]
    # The better one comes first, with a plus.
    assert first.startswith(f"{words[1]} finds") or first.startswith("no difference can be told")
    verdict = public.compare_answers(saved)
    assert verdict.over_all.value < 0 and verdict.unsure == 1 and verdict.answered == 9
    assert verdict.only_b > verdict.only_a


def test_the_page_stands_alone_and_is_blind(made: Path, tmp_path: Path) -> None:
    page, again = tmp_path / "ask.html", tmp_path / "again.html"
    words = ["ask", str(made / "good.npy"), str(made / "bad.npy"), str(made / "photos")]
    assert resight(*words, "--out", str(page), "--pairs", "40") == 0
    assert resight(*words, "--out", str(again), "--pairs", "40") == 0
    assert page.read_bytes() == again.read_bytes()
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.tags.count("script") == 2 and "b" not in parsed.tags
    assert all(one.startswith("data:") for one in parsed.addresses)
    assert not re.search(r"https?:|//[a-z]+\.", text) and len(text) < 6e6
    found = content(page)
    firsts = [found["design"]["queries"][k]["a"] < found["design"]["queries"][k]["b"]
              for k in range(len(found["design"]["queries"]))]  # fmt: skip
    assert any(firsts) and not all(firsts)  # A's pair is not always the first
    shown = [tuple(pair) for pair in found["shown"]]
    assert len({tuple(sorted(pair)) for pair in shown}) == len(shown)  # none is asked twice
    assert len(found["photos"]) == len({row for pair in shown for row in pair})
    assert all(one.startswith("data:image/jpeg;base64,") for one in found["photos"])


def test_big_noisy_photos_stay_small() -> None:
    from PIL import Image

    from resight.evaluate.report.thumbnails import within

    noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    assert len(within(picture, 320, 60_000)) < 60_000 < len(within(picture, 320, 10**6))


def test_copies_are_not_asked_about(made: Path, tmp_path: Path, capfd) -> None:
    """Each photo a second time, larger: its copy would be the nearest under both."""
    from PIL import Image

    shutil.copytree(made / "photos", tmp_path / "photos")
    inner = next((tmp_path / "photos").rglob("*.png")).parent
    for file in sorted(inner.glob("*.png")):
        picture = Image.open(file)
        picture.resize((64, 64)).save(inner / f"{file.stem} copy.png")
    names = sorted(path.name for path in inner.iterdir())
    row = {name: k for k, name in enumerate(sorted(p.name for p in inner.glob("*.png")
                                                   if "copy" not in p.name))}  # fmt: skip
    order = [row[name.replace(" copy.png", ".png")] for name in names]
    for name, noise, seed in (("good", 0.3, 1), ("bad", 1.0, 2)):
        np.save(tmp_path / f"{name}.npy", features(noise, seed)[order])
    words = [str(tmp_path / f"{name}.npy") for name in ("good", "bad")]
    page = tmp_path / "ask.html"
    words += [str(tmp_path / "photos"), "--out", str(page), "--pairs", "200", "--json"]
    assert resight("ask", *words) == 0
    out, err = capfd.readouterr()
    told = json.loads(out)
    assert told["copies"] == 48 and told["photos"] == 48
    assert "48 near-duplicates of other photos left out" in err
    pairs = content(page)["design"]["pairs"]
    assert not any(a.replace(" copy", "") == b.replace(" copy", "") for a, b in pairs)
    verdict = public.compare_answers(answer(page, tmp_path / "answers.json"))
    exact = precision(features(0.3, 1)) - precision(features(1.0, 2))
    assert verdict.over_all.value == pytest.approx(exact)


def test_a_run_and_a_backbone(shapes: Path, run_folder: Path, tmp_path: Path, capfd) -> None:
    """Features are kept beside the page, and taken when called again."""
    page = tmp_path / "ask.html"
    words = [str(run_folder), TINY, str(shapes), "--out", str(page), *NETWORK]
    assert resight("ask", *words) == 0
    kept = tmp_path / "ask-features"
    assert {path.name for path in kept.iterdir()} == {"a", "b"}
    before = page.read_bytes()
    stored = [str(kept / "a"), str(kept / "b")]
    assert resight("ask", *stored, str(shapes), "--out", str(tmp_path / "two.html")) == 0
    first, second = content(page)["design"], content(tmp_path / "two.html")["design"]
    assert first["pairs"] == second["pairs"] and before
    capfd.readouterr()
    assert resight("ask", str(run_folder), str(run_folder), str(shapes), "--out", str(page)) == 2
    assert "--force" in capfd.readouterr().err


def test_never_different(made: Path, tmp_path: Path, capfd) -> None:
    words = [str(made / "good.npy")] * 2 + [str(made / "photos"), "--out"]
    assert resight("ask", *words, str(tmp_path / "ask.html")) == 0
    assert "there is nothing to ask" in capfd.readouterr().out
    assert not (tmp_path / "ask.html").exists()
    assert resight("ask", *words, str(tmp_path / "ask.html"), "--json") == 0
    assert json.loads(capfd.readouterr().out)["page"] is None


def test_mistakes(made: Path, tmp_path: Path, capfd) -> None:
    good, bad, images = (str(made / name) for name in ("good.npy", "bad.npy", "photos"))
    np.save(tmp_path / "short.npy", features(1, 1)[:THINGS])
    page = tmp_path / "ask.html"
    for words, said in (
        (["ask", good, bad, images], "--out is missing"),
        (["ask", good, bad, images, "--out", "ask.txt"], "a page's name ends in .html"),
        (["ask", good, str(tmp_path / "short.npy"), images, "-o", str(page)], "of 12 images"),
        (["ask", good, "nowhere/", images, "-o", str(page)], "not found"),
        (["ask", good, bad, images, "-o", str(page), "--size", "32"], "none is given"),
        (["ask", good, bad, images, "-o", str(page), "--pairs", "2"], "--pairs"),
        (["ask", good, bad, images, "-o", str(page), "--seed", "-1"], "negative"),
        (["compare"], "give a BASELINE"),
        (["compare", good], "give a BASELINE"),
        (["compare", good, "--answers", good], "stands alone"),
        (["compare", "--answers", str(tmp_path / "no.json")], "not found"),
        (["compare", "--answers", str(tmp_path)], "is a folder"),
    ):
        assert resight(*words) == 2, words
        err = capfd.readouterr().err
        assert said in err and "Traceback" not in err, (words, err)
    assert not page.exists()


def test_damaged_answers(made: Path, tmp_path: Path, capfd) -> None:
    page, file = tmp_path / "ask.html", tmp_path / "answers.json"
    words = ["ask", str(made / "good.npy"), str(made / "bad.npy"), str(made / "photos")]
    assert resight(*words, "--out", str(page), "--pairs", "20") == 0
    whole = json.loads(answer(page, file).read_text())

    def damaged(**changes: Any) -> dict[str, Any]:
        return whole | changes

    design = whole["design"]
    for broken, said in (
        ({}, "not what a page"),
        ([], "not what a page"),
        (damaged(answers={}), "no photo has both"),
        (damaged(answers={"0": "yes"}), "answers"),
        (damaged(answers={"99": "same"}), "not among"),
        (damaged(format=2), "format"),
        (damaged(design=design | {"differ": 1}), "more photos asked"),
        (damaged(design={k: v for k, v in design.items() if k != "a"}), "missing"),
        (damaged(design=design | {"queries": [design["queries"][0] | {"probability": 0}]}), "prob"),
    ):
        file.write_text(json.dumps(broken))
        assert resight("compare", "--answers", str(file)) == 2
        err = capfd.readouterr().err
        assert said in err and "Traceback" not in err, err


def test_the_run_offers_it(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    """Trained without labels: the line before the last can be pasted."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shapes, tmp_path / "my photos")
    words = ["--backbone", TINY, "--weights", "none", "--size", "32", "--workers", "0"]
    assert resight("train", "my photos", "--unlabelled", *words, "--minutes", "0.02") == 0
    lines = capfd.readouterr().err.strip().splitlines()
    offer = next(line for line in lines if "resight ask" in line)
    assert offer == lines[-2]
    command = shlex.split(offer.partition("resight ")[2])
    assert command[0] == "ask" and command[-2:] == ["--out", "ask.html"]
    assert command[3:5] == ["my photos", "--unlabelled"]
    assert resight(*command, "--workers", "0") == 0
