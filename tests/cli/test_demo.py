"""The whole way, as `make demo` goes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import TINY, resight

SMALL = ["--minutes", "0.02", "--backbone", TINY, "--weights", "none", "--size", "32"]


def test_labelled_images(shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo ü"
    assert resight("demo", str(shapes), "--out", str(out), *SMALL) == 0
    printed = capfd.readouterr()
    for path in ("check.png", "run/embedder", "gallery", "search.png", "evaluation/report.html"):
        assert (out / path).exists() or path == "check.png", path
        assert path == "check.png" or str(out / path) in printed.out
    for verb in ("data check", "train", "embed", "index", "search", "evaluate"):
        assert f"$ resight {verb}" in printed.err
    assert resight("demo", str(shapes), "--out", str(out), *SMALL) == 0  # once more, over the old


def test_images_without_labels(
    shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert resight("demo", str(shapes / "object 00"), "--out", str(out), *SMALL) == 0
    assert "no training" in capfd.readouterr().err
    assert (out / "search.png").exists() and not (out / "run").exists()


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
