"""The whole way, as `make demo` goes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from command import TINY, resight

SMALL = ["--minutes", "0.02", "--backbone", TINY, "--weights", "none", "--size", "32"]


def test_labelled_images(shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo ü"
    assert resight("demo", str(shapes), "--out", str(out), *SMALL) == 0
    printed = capfd.readouterr()
    for path in (
        "check.png",
        "run/embedder",
        "gallery-after",
        "search-after.png",
        "search-before.png",
    ):
        assert (out / path).exists() or path == "check.png", path
        assert path == "check.png" or str(out / path) in printed.out
    for way in ("weights as they come", "without labels", "closed form", "trained from there"):
        assert way in printed.err
    for verb in ("data check", "train", "embed", "index", "search", "evaluate"):
        assert f"$ resight {verb}" in printed.err
    assert resight("demo", str(shapes), "--out", str(out), *SMALL) == 0  # once more, over the old


def test_images_without_labels(
    shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    photos = tmp_path / "photos"
    photos.mkdir()
    for k, path in enumerate(sorted(shapes.rglob("*.png"))[:30]):
        shutil.copy(path, photos / f"{k}.png")
    assert resight("demo", str(photos), "--out", str(out), *SMALL) == 0
    assert "Labels are not used" in capfd.readouterr().err
    assert (out / "search-after.png").exists() and (out / "run" / "embedder").exists()


def test_mistakes_leave_everything_alone(
    shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert resight("demo", str(tmp_path / "typo"), "--out", str(out)) == 2
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    assert resight("demo", str(shapes), "--out", str(out)) == 2
    assert resight("demo", str(out), "--out", str(out)) == 2
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    assert "holds other files" in capfd.readouterr().err
