"""`resight whiten`: what it learns on, what it writes, and mistakes."""

from __future__ import annotations

import json
import re
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


def test_without_labels_the_training_rows_become_white(saved, shapes, tmp_path, capfd):
    from resight import Embedder

    data, out = halves(shapes, tmp_path / "set.csv"), tmp_path / "white"
    words = ["whiten", str(saved), "--data", str(data), "--out", str(out)]
    assert resight(*words, "--workers", "0", "--scales", "1,0.5") == 0
    stdout, err = capfd.readouterr()
    assert stdout.strip() == str(out)
    assert "learned on 30 training images of 60; no test image is used" in err
    assert "8 dimensions, for 30 images (--dims decides)" in err
    kept = re.search(r"8 of 96 dimensions, with (\d+\.\d) % of the variance of 30 images", err)
    assert kept is not None, err
    model, plain = Embedder.load(out, "cpu"), Embedder.load(saved, "cpu")
    assert model.dim == 8
    info = model.info["whitening"]
    assert info["images"] == 30 and info["scales"] == [1, 0.5] and info["from"] == "images"
    train = sorted(shapes.rglob("*.png"))[:30]
    import torch

    pictures = torch.stack([plain._prepare(path) for path in train])
    out_rows = model.embed_tensor(pictures, scales=(1, 0.5)).numpy()
    np.testing.assert_allclose(out_rows.mean(0), 0, atol=1e-3)  # of just these rows
    covariance = out_rows.T @ out_rows / 30
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3
    unit = torch.nn.functional.normalize(plain.embed_tensor(pictures, scales=(1, 0.5))).double()
    variances = torch.linalg.svdvals(unit - unit.mean(0)) ** 2
    assert float(kept[1]) == pytest.approx(100 * float(variances[:8].sum() / variances.sum()), 0.01)
    assert "whitening" in (out / "README.md").read_text()
    assert resight(*words) == 2
    assert "already holds an embedder" in capfd.readouterr().err
    assert resight(*words, "--force", "--dims", "3", "--power", "0.25", "--workers", "0") == 0
    assert Embedder.load(out, "cpu").dim == 3
    evaluated = ["evaluate", str(out), "--data", str(data), "--json", "--workers", "0"]
    capfd.readouterr()
    assert resight(*evaluated) == 0
    assert json.loads(capfd.readouterr().out)["queries"] == 30


def test_labels_of_an_unsplit_set_hold_test_objects_out(saved, shapes, tmp_path, capfd):
    """And `evaluate` then keeps to those."""
    out = tmp_path / "white"
    words = ["whiten", str(saved), "--data", str(shapes), "--out", str(out), "--workers", "0"]
    assert resight(*words, "--with-labels") == 0
    err = capfd.readouterr().err
    assert "30 % of the objects are held out as test" in err
    assert "learned on 40 training images of 60" in err
    assert resight("evaluate", str(out), "--data", str(shapes), "--json", "--workers", "0") == 0
    stdout, err = capfd.readouterr()
    assert json.loads(stdout)["queries"] == 20 and "held out as test" in err


def test_an_unsplit_set_is_taken_whole_without_labels(saved, shapes, tmp_path, capfd):
    words = ["--data", str(shapes), "--out", str(tmp_path / "white"), "--workers", "0"]
    assert resight("whiten", str(saved), *words) == 0
    err = capfd.readouterr().err
    assert "learned on all 60 images, without labels" in err and "15 dimensions" in err


def test_a_run_never_learns_from_the_objects_it_is_tested_on(run_folder, shapes, tmp_path, capfd):
    words = ["--data", str(shapes), "--out", str(tmp_path / "white"), "--workers", "0"]
    assert resight("whiten", str(run_folder), *words) == 0
    assert "learned on 40 training images of 60" in capfd.readouterr().err


def test_stored_features_give_the_same_as_their_images(saved, shapes, tmp_path, capfd):
    from resight import Embedder

    data, features = halves(shapes, tmp_path / "set.csv"), str(tmp_path / "features")
    assert resight("embed", str(saved), str(data), "--out", features, "--workers", "0") == 0
    for how in ("--pca", "--with-labels"):
        direct, stored = str(tmp_path / f"direct{how}"), str(tmp_path / f"stored{how}")
        words = ["whiten", str(saved), "--data", str(data), "--out", direct, how, "--workers", "0"]
        assert resight(*words) == 0
        assert resight("whiten", features, "--out", stored, how) == 0
        assert "learned on 30 training images of 60" in capfd.readouterr().err
        a, b = (Embedder.load(folder, "cpu").whitening.linear for folder in (direct, stored))
        np.testing.assert_allclose(
            a.weight.detach().numpy(), b.weight.detach().numpy(), rtol=0.02, atol=0.02
        )


def test_more_dimensions_than_images_are_cut_and_said(saved, shapes, tmp_path, capfd):
    few = tmp_path / "few"
    for source in sorted(p for p in shapes.iterdir() if p.is_dir())[:2]:
        shutil.copytree(source, few / source.name)
    words = ["whiten", str(saved), "--data", str(few), "--out", str(tmp_path / "white")]
    assert resight(*words, "--dims", "64", "--workers", "0") == 0
    assert "9 dimensions instead of 64: 10 vectors differ in no more" in capfd.readouterr().err


MISTAKES = {
    "no --out": (["{saved}", "--data", "{shapes}"], "--out is missing"),
    "no --data": (["{saved}", "--out", "{out}"], "--data is missing"),
    "data not there": (["{saved}", "--data", "/no/set", "--out", "{out}"], "/no/set: not found"),
    "model not there": (["/no/x", "--data", "{shapes}", "--out", "{out}"], "/no/x: not found"),
    "power with labels": (
        ["{saved}", "--data", "{shapes}", "--out", "{out}", "--with-labels", "--power", "0.3"],
        "--power goes with --pca",
    ),
    "wrong power": (
        ["{saved}", "--data", "{shapes}", "--out", "{out}", "--power", "2"], "--power 2: not from"
    ),
    "no dimensions": (["{saved}", "--data", "{shapes}", "--out", "{out}", "--dims", "0"], "dims"),
    "too many dimensions": (
        ["{saved}", "--data", "{shapes}", "--out", "{out}", "--dims", "4096"],
        "--dims 4096: the model has only 96",
    ),
    "no labels": (
        ["{saved}", "--data", "{shapes}/object 00", "--out", "{out}", "--with-labels"],
        "object 00: no labels; --with-labels needs objects",
    ),
    "one image": (["{saved}", "--data", "{one}", "--out", "{out}"], "usable vectors: 1;"),
    "the same image twice": (["{saved}", "--data", "{twice}", "--out", "{out}"], "are the same"),
    "test rows only": (["{saved}", "--data", "{tests}", "--out", "{out}"], "no training rows"),
    "whitened already": (
        ["{white}", "--data", "{shapes}", "--out", "{out}"], "whitened already .to 4 dimensions."
    ),
    "other files in --out": (["{saved}", "--data", "{shapes}", "--out", "{one}"], "other files"),
    "wrong scales": (
        ["{saved}", "--data", "{shapes}", "--out", "{out}", "--scales", "x"], "--scales x"
    ),
    "a size for a saved embedder": (
        ["{saved}", "--data", "{shapes}", "--out", "{out}", "--size", "64"], "saved embedder"
    ),
    "images for features": (
        ["{features}", "--data", "{shapes}", "--out", "{out}"], "--data: .*is a features folder"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(embedder, saved, shapes, tmp_path_factory) -> dict[str, str]:
    from resight.models.whitening import whitened

    tmp = tmp_path_factory.mktemp("places")
    photo = next(path for path in sorted(shapes.rglob("*.png")))
    for name, count in (("one", 1), ("twice", 2)):
        for k in range(count):
            (tmp / name).mkdir(exist_ok=True)
            shutil.copy(photo, tmp / name / f"{k}.png")
    names = [path.name for path in shapes.iterdir() if path.is_dir()]
    tests = table(shapes, tmp / "tests.csv", dict.fromkeys(names, "test"))
    pair = np.eye(4, embedder.dim, dtype=np.float32), np.zeros(4, np.float32)
    white = whitened(embedder, *pair).save(tmp / "white")
    features = str(tmp / "features")
    words = ["embed", str(saved), str(tmp / "one"), "--out", features, "--workers", "0"]
    assert resight(*words) == 0
    return {
        "saved": str(saved), "shapes": str(shapes), "one": str(tmp / "one"),
        "twice": str(tmp / "twice"), "tests": str(tests), "white": str(white),
        "features": features,
    }  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_one_clear_line(name, places, tmp_path, capfd):
    words, expected = MISTAKES[name]
    out = tmp_path / "out"
    assert resight("whiten", *(word.format(**places, out=out) for word in words)) == 2
    stdout, err = capfd.readouterr()
    complaints = [line for line in err.splitlines() if line.startswith("resight: ")]
    assert len(complaints) == 1 and re.search(expected, complaints[0]), err
    assert "Traceback" not in err and stdout == "" and not out.exists()


def test_help_has_examples(capfd):
    assert resight("whiten", "--help") == 0
    assert "resight whiten runs/shop" in capfd.readouterr().out


def test_a_bare_backbone_by_name(shapes, tmp_path, capfd):
    words = ["--weights", "none", "--size", "32", "--workers", "0", "--dims", "4"]
    out = str(tmp_path / "white")
    assert resight("whiten", TINY, "--data", str(shapes), "--out", out, *words) == 0
    assert "4 of 96 dimensions" in capfd.readouterr().err
