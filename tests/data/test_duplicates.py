"""Duplicates: found after re-encoding, told apart by kind, and not seen in mere likeness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw

from resight.data import duplicates
from resight.data.doctor import Report, examine
from resight.data.duplicates import Labels, near_duplicates, perceptual_hash
from resight.data.imageset import ImageSet, normalise


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def clock(hour: int) -> Image.Image:
    """A clock face; other hours differ in one thin hand only."""
    face = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(face)
    draw.ellipse((8, 8, 88, 88), outline="black", width=4)
    angle = hour * np.pi / 6
    draw.line((48, 48, 48 + 30 * np.sin(angle), 48 - 30 * np.cos(angle)), "black", 4)
    return face


def scribble(seed: int) -> Image.Image:
    """A one-bit line drawing."""
    page = Image.new("1", (105, 105), 1)
    points = np.random.default_rng(seed).integers(15, 90, (6, 2))
    ImageDraw.Draw(page).line([tuple(point) for point in points.tolist()], 0, 3)
    return page


def report_on(root: Path, rows: list[dict[str, Any]]) -> Report:
    schema = {"path": pl.String, "object": pl.String, "split": pl.String, "role": pl.String}
    schema |= {"box": pl.List(pl.Float64)}
    return examine(ImageSet(normalise(pl.DataFrame(rows, schema=schema)), root), workers=2)


def pairs(report: Report) -> dict[str, list[tuple[int, int]]]:
    return {
        finding.code: list(zip(finding.rows, finding.partners, strict=True))
        for finding in report.findings
        if finding.partners
    }


@pytest.mark.parametrize(("quality", "scale"), [(40, 1.0), (75, 0.5), (60, 0.75), (90, 2.0)])
def test_found_across_splits_after_saving_anew(tmp_path: Path, quality: int, scale: float) -> None:
    rows = []
    for number in range(8):
        original = picture(number)
        original.save(tmp_path / f"{number}.jpg", quality=90)
        size = (round(original.width * scale), round(original.height * scale))
        original.resize(size).save(tmp_path / f"{number}-again.jpg", quality=quality)
        rows.append({"path": f"{number}.jpg", "object": f"o{number}", "split": "test"})
        again = {"path": f"{number}-again.jpg", "object": f"o{number}", "split": "train"}
        rows.append(again)
    expected = [(row, row + 1) for row in range(0, 16, 2)]  # the test row is named
    found = pairs(report_on(tmp_path, rows))
    assert found["near-duplicate-across-splits"] == expected
    assert "near-duplicate-across-objects" not in found


@pytest.mark.parametrize("draw", [clock, scribble, picture])
def test_other_pictures_of_the_same_style_are_not_duplicates(tmp_path: Path, draw: Any) -> None:
    rows = []
    for number in range(12):
        draw(number).save(tmp_path / f"{number}.png")
        split = "train" if number % 2 else "test"
        rows.append({"path": f"{number}.png", "object": str(number // 4), "split": split})
    assert pairs(report_on(tmp_path, rows)) == {}


def test_blank_pictures_are_not_near_duplicates(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (64, 64), (200 + number, 200, 200)).save(tmp_path / f"{number}.png")
    rows = [{"path": f"{number}.png", "object": str(number)} for number in range(4)]
    assert pairs(report_on(tmp_path, rows)) == {}


def test_exact_copies_by_kind(tmp_path: Path) -> None:
    content = {"a": 1, "b": 1, "c": 1, "d": 2, "e": 2, "f": 3, "g": 3, "h": 4, "i": 4}
    labels = {
        "a": ("x", "test", None),
        "b": ("x", "train", None),
        "c": ("y", "test", None),
        "d": ("z", "test", "gallery"),
        "e": ("z", "test", "query"),
        "f": ("w", "test", None),
        "g": (None, "test", None),
        "h": ("v", "train", None),
        "i": ("v", "train", None),
    }
    rows = []
    for name, seed in content.items():
        picture(seed).save(tmp_path / f"{name}.png")
        values = dict(zip(("object", "split", "role"), labels[name], strict=True))
        rows.append({"path": f"{name}.png", **values})
    assert pairs(report_on(tmp_path, rows)) == {
        "duplicate-across-splits": [(0, 1), (2, 1)],
        "duplicate-across-objects": [(2, 0)],
        "duplicate-query-in-gallery": [(4, 3)],
        "duplicate-within-object": [(1, 0), (4, 3), (8, 7)],
        "duplicate-without-object": [(6, 5)],
    }


def test_boxes_of_one_picture_are_not_duplicates(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    picture(0).save(tmp_path / "copy.png")
    left, right = [0.0, 0.0, 80.0, 120.0], [80.0, 0.0, 160.0, 120.0]
    rows = [
        {"path": "a.png", "object": "l", "split": "train", "box": left},
        {"path": "a.png", "object": "r", "split": "test", "box": right},
        {"path": "a.png", "object": "r", "split": "test", "box": [81.0, 0.0, 160.0, 120.0]},
        {"path": "copy.png", "object": "r", "split": "test", "box": right},
        {"path": "copy.png", "object": "r", "split": "train", "box": [0.0, 0.0, 160.0, 60.0]},
    ]
    # Row 3 is a copy of row 1; nothing else is, not even rows 1 and 2, of nearly the same box.
    assert pairs(report_on(tmp_path, rows)) == {"duplicate-within-object": [(3, 1)]}


def test_sorted_search_finds_what_the_full_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (1500, 5, 5, 3), dtype=np.uint8)
    originals = np.stack(
        [np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse]
    )
    noise = random.integers(-6, 7, originals.shape)
    copies = np.clip(originals.astype(int) + noise, 0, 255).astype(np.uint8)
    thumbs = np.concatenate([originals, copies])
    small = thumbs.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4)).astype(np.uint8)
    n = len(thumbs)
    labels = Labels(object=np.arange(n) % 1500, split=np.arange(n) // 1500 * 2, role=np.full(n, -1))
    digest = np.stack([np.arange(n), np.arange(n)], 1).astype(np.uint64)

    def search() -> duplicates.Pairs:
        return near_duplicates(
            perceptual_hash(thumbs),
            small,
            digest,
            np.arange(n),
            np.ones(n, bool),
            labels,
            lambda a, b: True,
        )

    full = search()["across-splits"]
    assert len(full[0]) > 1490  # a few lose more bits to the noise than are allowed
    assert (full[0] - full[1] == 1500).all()
    monkeypatch.setattr(duplicates, "_ALL_PAIRS", 0)
    monkeypatch.setattr(duplicates, "_WINDOW", 16)
    fast = search()["across-splits"]
    assert len(fast[0]) >= 0.99 * len(full[0])
    assert np.isin(fast[0], full[0]).all()
