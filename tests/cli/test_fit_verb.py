"""`resight fit`: what it is fitted to, what it writes, and mistakes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from command import TINY, resight


@pytest.fixture(scope="module")
def saved(embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedder.save(tmp_path_factory.mktemp("models") / "plain")


def table(shapes: Path, target: Path, splits: dict[str, str | None]) -> Path:
    """A CSV of `shapes`, whose objects have these splits (others none)."""
    rows = [
        {"path": str(path), "object": path.parent.name, "split": splits.get(path.parent.name)}
        for path in sorted(shapes.rglob("*.png"))
    ]
    pl.DataFrame(rows, schema=dict.fromkeys(("path", "object", "split"), pl.String)).write_csv(
        target
    )
    return target


def halves(shapes: Path, target: Path) -> Path:
    names = [path.name for path in sorted(shapes.iterdir()) if path.is_dir()]
    return table(
        shapes, target, {name: "train" if k < 6 else "test" for k, name in enumerate(names)}
    )


def fit(*words: str | Path) -> int:
    return resight("fit", *map(str, words), "--workers", "0")


def test_labels_choose_on_held_out_objects_and_test_rows_are_not_seen(shapes, tmp_path, capfd):
    from resight import Embedder

    data, out = halves(shapes, tmp_path / "set.csv"), tmp_path / "fitted"
    bare = [TINY, data, "--weights", "none", "--size", "32"]
    assert fit(*bare, "--out", out) == 0
    stdout, err = capfd.readouterr()
    assert stdout.strip() == str(out)
    assert "fitted to 30 images of 60; no test image is used" in err
    assert re.search(r"best of \d+ on held-out objects, with labels", err), err
    assert re.search(r"embedding \d+\.\d s, fitting \d+\.\d s", err)
    model = Embedder.load(out, "cpu")
    assert model.config.depths and model.config.whiten is None
    assert model.config.projection == model.dim
    assert model.info["fit"]["images"] == 30 and model.info["fit"]["from"] == "labels"
    assert not (tmp_path / "fitted.fitting").exists()
    assert fit(*bare, "--out", out) == 2
    assert "already holds an embedder" in capfd.readouterr().err
    assert fit(*bare, "--out", out, "--force", "--dims", "3", "--depths", "1,2", "--grid", "2") == 0
    again = Embedder.load(out, "cpu")
    assert again.dim == 3 and again.config.depths == (1, 2) and again.config.grids == (2, 2)
    capfd.readouterr()
    assert fit(*bare, "--out", out, "--force", "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["labels"] and found["candidates"][0]["mAP"] >= found["candidates"][-1]["mAP"]


def test_what_is_printed_last_is_the_next_command(shapes, tmp_path, capfd):
    data, out = halves(shapes, tmp_path / "a set.csv"), tmp_path / "fitted"
    assert fit(TINY, data, "--weights", "none", "--size", "32", "--out", out) == 0
    last = [line for line in capfd.readouterr().err.splitlines() if line.startswith("next: ")][-1]
    words = shlex.split(last.removeprefix("next: resight "))
    assert resight(*words, "--workers", "0", "--json") == 0
    assert json.loads(capfd.readouterr().out)["queries"] == 30


def test_without_labels_all_rows_of_an_unsplit_set_count(shapes, tmp_path, capfd):
    from resight import Embedder

    words = [TINY, shapes, "--weights", "none", "--size", "32", "--unlabelled"]
    assert fit(*words, "--out", tmp_path / "a") == 0
    assert "fitted to 60 images" in capfd.readouterr().err
    assert Embedder.load(tmp_path / "a").info["fit"]["from"] == "images"
    assert fit(*words, "--out", tmp_path / "b", "--method", "whitening") == 0
    assert "whitening to 15" in capfd.readouterr().err


def test_a_trained_embedder_gets_its_projection_at_the_end(saved, shapes, tmp_path, capfd):
    from resight import Embedder

    data = halves(shapes, tmp_path / "set.csv")
    assert fit(saved, data, "--out", tmp_path / "a", "--dims", "5", "--method", "discriminant") == 0
    model = Embedder.load(tmp_path / "a")
    assert model.config.whiten == model.dim == 5 and not model.config.depths
    # Fitted again it replaces that projection, and does not stand on it.
    assert fit(tmp_path / "a", data, "--out", tmp_path / "b", "--dims", "6") == 0
    assert Embedder.load(tmp_path / "b").config.whiten == 6


def test_a_run_never_learns_from_the_objects_it_is_tested_on(run_folder, shapes, tmp_path, capfd):
    assert fit(run_folder, shapes, "--unlabelled", "--out", tmp_path / "white") == 0
    assert "fitted to 40 images of 60; no test image is used" in capfd.readouterr().err


def test_stored_features_give_the_same_as_their_images(saved, shapes, tmp_path, capfd):
    from resight import Embedder

    data, features = halves(shapes, tmp_path / "set.csv"), tmp_path / "features"
    assert resight("embed", str(saved), str(data), "--out", str(features), "--workers", "0") == 0
    for how in ("whitening", "discriminant"):
        direct, stored = tmp_path / f"direct {how}", tmp_path / f"stored {how}"
        more = ["--method", how, "--dims", "6"]
        assert fit(saved, data, "--out", direct, *more) == 0
        assert fit(features, "--out", stored, *more) == 0
        pictures = sorted(shapes.rglob("*.png"))
        a, b = (Embedder.load(folder, "cpu").embed(pictures) for folder in (direct, stored))
        np.testing.assert_allclose(np.abs((a * b).sum(1)), 1, atol=0.02)


def test_scales_put_the_projection_after_their_sum(shapes, tmp_path):
    from resight import Embedder

    words = [TINY, shapes, "--weights", "none", "--size", "32", "--scales", "1,0.5"]
    assert fit(*words, "--out", tmp_path / "a") == 0
    model = Embedder.load(tmp_path / "a")
    assert model.config.depths and model.config.projection is None and model.config.whiten


def test_more_dimensions_than_images_are_cut_and_said(saved, shapes, tmp_path, capfd):
    few = tmp_path / "few"
    for source in sorted(p for p in shapes.iterdir() if p.is_dir())[:2]:
        shutil.copytree(source, few / source.name)
    words = [saved, few, "--out", tmp_path / "white", "--method", "whitening", "--dims", "64"]
    assert fit(*words, "--unlabelled") == 0
    assert "9 dimensions instead of 64: the images differ in no more" in capfd.readouterr().err


MISTAKES = {
    "no --out": (["{saved}", "{shapes}"], "--out is missing"),
    "no images": (["{saved}", "--out", "{out}"], "IMAGES is missing"),
    "data not there": (["{saved}", "/no/set", "--out", "{out}"], "/no/set: not found"),
    "model not there": (["/no/x", "{shapes}", "--out", "{out}"], "/no/x: not found"),
    "no such method": (
        ["{saved}", "{shapes}", "--out", "{out}", "--method", "magic"], "--method magic: choose"
    ),
    "no such depth": (
        [TINY, "{shapes}", "--out", "{out}", "--weights", "none", "--depths", "2,9"],
        "depths 2, 9: backbone test_resnet has the depths 0 to 4",
    ),
    "depths in words": (["{saved}", "{shapes}", "--out", "{out}", "--depths", "low"], "--depths"),
    "shrink out of range": (["{saved}", "{shapes}", "--out", "{out}", "--shrink", "2"], "shrink"),
    "no dimensions": (["{saved}", "{shapes}", "--out", "{out}", "--dims", "0"], "dims"),
    "labels asked for and not there": (
        ["{saved}", "{shapes}/object 00", "--out", "{out}", "--method", "discriminant"],
        "discriminant needs labels",
    ),
    "one image": (["{saved}", "{one}", "--out", "{out}"], "usable vectors: 1;"),
    "the same image twice": (["{saved}", "{twice}", "--out", "{out}"], "are the same"),
    "test rows only": (["{saved}", "{tests}", "--out", "{out}"], "all its rows are test rows"),
    "other files in --out": (["{saved}", "{shapes}", "--out", "{one}"], "other files"),
    "wrong scales": (["{saved}", "{shapes}", "--out", "{out}", "--scales", "x"], "--scales x"),
    "a size for a saved embedder": (
        ["{saved}", "{shapes}", "--out", "{out}", "--size", "64"], "saved embedder"
    ),
    "images for features": (
        ["{features}", "{shapes}", "--out", "{out}"], "IMAGES: .*is a features folder"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(saved, shapes, tmp_path_factory) -> dict[str, str]:
    tmp = tmp_path_factory.mktemp("places")
    photo = next(path for path in sorted(shapes.rglob("*.png")))
    for name, count in (("one", 1), ("twice", 2)):
        for k in range(count):
            (tmp / name).mkdir(exist_ok=True)
            shutil.copy(photo, tmp / name / f"{k}.png")
    names = [path.name for path in shapes.iterdir() if path.is_dir()]
    tests = table(shapes, tmp / "tests.csv", dict.fromkeys(names, "test"))
    features = str(tmp / "features")
    words = ["embed", str(saved), str(tmp / "one"), "--out", features, "--workers", "0"]
    assert resight(*words) == 0
    return {
        "saved": str(saved), "shapes": str(shapes), "one": str(tmp / "one"),
        "twice": str(tmp / "twice"), "tests": str(tests), "features": features,
    }  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_one_clear_line(name, places, tmp_path, capfd):
    words, expected = MISTAKES[name]
    out = tmp_path / "out"
    assert fit(*(word.format(**places, out=out) for word in words)) == 2
    stdout, err = capfd.readouterr()
    complaints = [line for line in err.splitlines() if line.startswith("resight: ")]
    assert len(complaints) == 1 and re.search(expected, complaints[0]), err
    assert "Traceback" not in err and stdout == "" and not out.exists()


def test_help_has_examples(capfd):
    assert resight("fit", "--help") == 0
    assert "resight fit runs/shop" in capfd.readouterr().out
