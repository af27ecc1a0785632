"""The doctor: every fault is found on the rows that have it, and nothing on sound ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import pytest
import typer
from PIL import Image
from tests.pictures import claim, picture
from typer.testing import CliRunner

from resight.cli.data_check import check as check_command
from resight.data.doctor import Finding, Report, examine, write_sheet
from resight.data.imageset import ImageSet, normalise
from resight.data.inspect import inspect
from resight.errors import UserError


def image_set(root: Path, rows: Sequence[dict[str, Any]]) -> ImageSet:
    schema = {"path": pl.String, "object": pl.String, "camera": pl.String, "split": pl.String}
    schema |= {"role": pl.String, "box": pl.List(pl.Float64)}
    return ImageSet(normalise(pl.DataFrame(list(rows), schema=schema)), root, str(root))


def clean(root: Path) -> list[dict[str, Any]]:
    """Four objects with three images each, two cameras, train and test: nothing to complain of."""
    rows = []
    for number in range(12):
        name = f"{number}.png"
        picture(number).save(root / name)
        split = "train" if number < 6 else "test"
        rows.append({"path": name, "object": str(number // 3), "camera": "ab"[number % 2]})
        rows[-1]["split"] = split
    return rows


def labels_only(root: Path, rows: Sequence[Sequence[str | None]]) -> Report:
    """A report on rows (object, camera, split, role) that all have sound, different pictures."""
    made = []
    for number, row in enumerate(rows):
        path = root / f"{number}.png"
        picture(number, (40, 40)).save(path)
        values = dict(zip(("object", "camera", "split", "role"), row, strict=False))
        made.append({"path": path.name, **values})
    return examine(image_set(root, made), workers=1)


def found(report: Report) -> dict[str, list[int]]:
    """Code and rows of each finding, the summary of labels left out."""
    return {f.code: f.rows for f in report.findings if f.code != "images-per-object"}


def one(report: Report, code: str) -> Finding:
    return next(finding for finding in report.findings if finding.code == code)


def broken_files(root: Path) -> list[tuple[str, str, list[float] | None]]:
    """(file, the code it must raise, box) of one file for every fault."""
    cases: list[tuple[str, str, list[float] | None]] = []

    def case(name: str, code: str, box: list[float] | None = None) -> Path:
        cases.append((name, code, box))
        return root / name

    case("gone.png", "missing")
    case("text.jpg", "unreadable").write_text("no picture")
    case("empty.png", "unreadable").write_bytes(b"")
    case("folder.png", "unreadable").mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for ending in ("jpg", "png", "webp"):
        cut = case(f"cut.{ending}", "truncated")
        noise.save(cut)
        cut.write_bytes(cut.read_bytes()[:-400])
    zeros = case("zeros.jpg", "truncated")
    Image.new("RGB", (64, 64)).save(zeros)  # its data is so short that zeros pass for the rest
    zeros.write_bytes(zeros.read_bytes()[:-12] + bytes(4000))
    case("bomb.png", "over-pixel-limit").write_bytes(claim(20_000, 9_000))
    case("worse.png", "over-pixel-limit").write_bytes(claim(60_000, 60_000))  # Pillow's own limit
    picture(1).save(case("outside.png", "box-outside", [100, 0, 150, 50]))
    picture(2).save(case("partly.png", "box-partly-outside", [40, 20, 120, 70]))
    picture(3, (31, 90)).save(case("tiny.png", "tiny"))
    picture(4).save(case("small-box.png", "tiny", [10, 10, 60, 40]))
    picture(5, (400, 60)).save(case("wide.png", "unusual-aspect"))
    frames = [picture(6), picture(7)]
    frames[0].save(case("moving.gif", "animated"), save_all=True, append_images=frames[1:])
    frames[0].save(case("pages.tif", "animated"), save_all=True, append_images=frames[1:])
    flat = np.random.default_rng(0).integers(100, 110, (320, 320, 3), dtype=np.uint8)
    Image.fromarray(flat).save(case("blank.png", "blank"))  # sensor noise on a covered lens
    picture(8).save(case("a-jpeg.png", "wrong-extension"), "JPEG")
    picture(9).convert("CMYK").save(case("cmyk.jpg", "cmyk"))
    cv2.imwrite(str(case("deep.png", "16-bit")), np.asarray(picture(10)).astype(np.uint16) * 257)
    clear = picture(11).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(case("clear.png", "alpha"))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(12).save(case("turned.jpg", "exif-rotated", [0, 0, 80, 96]), exif=exif)
    picture(13).convert("L").save(case("grey.jpg", "grayscale"))
    large = case("large.jpg", "huge")
    picture(14).resize((8000, 6300)).save(large, quality=30)
    return cases


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, dict[str, list[int]]]:
    root = tmp_path_factory.mktemp("broken")
    cases = broken_files(root)
    expected: dict[str, list[int]] = {"no-labels": list(range(len(cases)))}
    for row, (_, code, _) in enumerate(cases):
        expected.setdefault(code, []).append(row)
    return image_set(root, [{"path": name, "box": box} for name, _, box in cases]), expected


def test_every_fault_of_a_file_is_found_on_its_row_and_nowhere_else(
    broken: tuple[ImageSet, dict[str, list[int]]],
) -> None:
    images, expected = broken
    report = examine(images, near=False)
    rows = found(report)
    assert rows == expected
    assert one(report, "truncated").severity == "error"
    assert report.reasons[expected["missing"][0]] == "no such file"
    assert "not an image" in report.reasons[expected["unreadable"][0]]


def test_the_report_does_not_depend_on_the_number_of_workers(
    broken: tuple[ImageSet, dict[str, list[int]]],
) -> None:
    images, _ = broken
    steps: list[tuple[int, int]] = []
    alone = examine(images, workers=1, progress=lambda *step: steps.append(step))
    assert alone == examine(images, workers=4)
    assert steps[-1] == (len(images), len(images))


def test_a_clean_set_has_no_findings_above_information(tmp_path: Path) -> None:
    report = examine(image_set(tmp_path, clean(tmp_path)))
    assert {f.code for f in report.findings} == {"images-per-object"}
    assert (report.images, report.files, report.objects, report.cameras) == (12, 12, 4, 2)
    assert report.splits == {"test": 6, "train": 6}
    assert report.formats == {"PNG": 12}
    assert report.sizes["short_side"]["median"] == 80


def test_a_phone_picture_with_a_second_frame_is_not_animated(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[picture(1)])
    assert set(found(examine(image_set(tmp_path, [{"path": "a.jpg"}])))) == {"no-labels"}


def test_a_file_is_read_once_for_all_its_boxes(tmp_path: Path) -> None:
    picture(0, (200, 100)).save(tmp_path / "a.png")
    boxes = [[0, 0, 100, 100], [100, 0, 200, 100], [0, 0, 250, 100]]
    images = image_set(tmp_path, [{"path": "a.png", "box": box} for box in boxes])
    seen = inspect(images)
    assert seen.file.tolist() == [0, 0, 0]
    report = examine(images)
    assert report.files == 1
    assert found(report) == {"box-partly-outside": [2], "no-labels": [0, 1, 2]}


def test_json_is_one_object_with_paths(broken: tuple[ImageSet, dict[str, list[int]]]) -> None:
    images, _ = broken
    content = json.loads(json.dumps(examine(images, near=False).to_json()))
    missing = next(f for f in content["findings"] if f["code"] == "missing")
    assert missing["paths"] == ["gone.png"]
    assert missing["reasons"] == ["no such file"]
    order = ["error", "warning", "info"]
    ranks = [order.index(finding["severity"]) for finding in content["findings"]]
    assert ranks == sorted(ranks)


def test_sheet_draws_readable_and_unreadable_images(
    broken: tuple[ImageSet, dict[str, list[int]]], tmp_path: Path
) -> None:
    images, _ = broken
    report = examine(images, near=False)
    told: list[str] = []
    tiles = write_sheet(report, images, tmp_path / "check.png", limit=2, tell=told.append)
    assert len(told) == 1 and " photos on the sheet are gone" in told[0] and "gone.png)" in told[0]
    serious = [f for f in report.findings if f.severity != "info"]
    assert tiles == sum(min(2, len(f.rows)) for f in serious)
    assert Image.open(tmp_path / "check.png").width > 300
    with pytest.raises(UserError, match="png"):
        write_sheet(report, images, tmp_path / "check.gif")


# Rows as object, camera, split, role; "-" is null.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a - train, a - train, b - train",
            {"single-image-object": [2], "empty-split": []},
        ),
        (
            "a - train, a - train, a - test, b - test, b - test",
            {"object-across-splits": [0, 1, 2], "query-without-match": [2]},
        ),
        ("a, a, -, b, b", {"unlabelled-in-train": [2]}),
        ("a, a, a", {"one-object": [0, 1, 2]}),
        ("-, -, -", {"no-labels": [0, 1, 2]}),
        (
            "a - test query, b - test gallery, - - test gallery, b - test query",
            {"query-without-match": [0], "unlabelled-in-test": [2], "empty-split": []},
        ),
        (
            "a - test query, b - test gallery",
            {"no-query-has-match": [0], "empty-split": []},
        ),
        (
            "- - - query, b - - query, b - - gallery",
            {"query-without-object": [0], "unlabelled-in-train": [0], "one-object": [1, 2]},
        ),
        ("a - test query, a - test query, b - train, b - train", {"no-gallery": [0, 1]}),
        ("a - test gallery, a - test gallery, b - train, b - train", {"no-query": [0, 1]}),
        (
            "a - test, a - test, b - train, b - train, b",
            {"image-without-split": [4], "single-image-object": [4]},
        ),
        ("a 1, a 1, b 1, b 1", {"one-camera": []}),
        ("a 1, a 2, b 3, b 4", {"camera-per-image": []}),
        ("a 1, a 1, b 2, b 2", {"camera-equals-object": []}),
        (
            "a 1, a 1, b 2, b 2, c 1, c 1, d 2, d 1, d",
            {"object-in-one-camera": [0, 1, 2, 3, 4, 5], "image-without-camera": [8]},
        ),
        (
            "a 1 train, a 1 train, c 1 train, c 1 train, b 2 test, b 2 test",
            {"object-in-one-camera": [0, 1, 2, 3, 4, 5], "camera-equals-split": []},
        ),
        (
            "a 1 train, a 2 train, b 3 test, b 4 test, b 3 test",
            {"cameras-apart-by-split": []},
        ),
    ],
)
def test_labels_and_cameras(tmp_path: Path, text: str, expected: dict[str, list[int]]) -> None:
    rows = [[None if v == "-" else v for v in row.split()] for row in text.split(", ")]
    assert found(labels_only(tmp_path, rows)) == expected


def test_exit_statuses(tmp_path: Path) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(check_command)

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout

    for name in ("good", "odd", "bad"):
        (tmp_path / name).mkdir()
        table = pl.DataFrame(clean(tmp_path / name))
        if name == "odd":
            picture(0, (20, 20)).save(tmp_path / name / "0.png")
        if name == "bad":
            (tmp_path / name / "0.png").write_bytes(b"nothing")
        table.write_csv(tmp_path / name / "index.csv")
    status, out = run(str(tmp_path / "good"))
    assert status == 0 and "no errors" in out
    status, out = run(str(tmp_path / "odd"))
    assert status == 0 and "tiny" in out and out.strip().endswith("--sheet check.png")
    assert run(str(tmp_path / "odd"), "--fail-on-warnings")[0] == 1
    sheet = tmp_path / "check.png"
    status, out = run(str(tmp_path / "bad"), "--json", "--sheet", str(sheet))
    assert status == 1 and json.loads(out)["errors"] == 1
    assert json.loads(out)["sheet"] == str(sheet) and sheet.is_file()
    with pytest.raises(UserError):
        run(str(tmp_path / "absent"))
    with pytest.raises(UserError):
        run(str(tmp_path / "good"), "--sheet", "check.gif")
