"""`resight evaluate`, the whole way: numbers worked by hand, records done again, mistakes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from command import TINY, resight
from pictures import picture, save

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "similarity"
ROWS = """\
path,object,camera,role,name,positives,site
0.png,a,1,query,,a2;c,north
1.png,b,1,query,,b2,north
2.png,a,1,gallery,a1,,
3.png,a,2,gallery,a2,,
4.png,b,2,gallery,b2,,
5.png,c,2,gallery,c,,
"""
# Seen from query a: a1, c, a2, b2; from query b: b2, a2, c, a1.
ANGLES = (0, 90, 1, 20, 70, 10)
# With the camera rule a1 is junk for query a: a2 comes second there, after c.
BY_HAND = {"query-gallery": (1 + 2 / 3) / 2, "cross-camera": 1 / 2}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with pictures, their table and features whose order can be seen."""
    for i in range(6):
        save(tmp_path / f"{i}.png", i)
    (tmp_path / "set.csv").write_text(ROWS)
    turns = np.radians(ANGLES)
    features = np.stack((np.cos(turns), np.sin(turns)), axis=1)
    np.save(tmp_path / "features.npy", features.astype(np.float32))
    return tmp_path


@pytest.fixture(scope="module")
def model(embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    embedder.save(folder)
    return folder


Say = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def evaluate(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Run `resight evaluate WORDS --json`: status, what stdout holds, stderr."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    def run(*words: object) -> tuple[int, Any, str]:
        capfd.readouterr()
        status = resight("evaluate", *map(str, words), "--json")
        out, err = capfd.readouterr()
        return status, json.loads(out) if out else None, err

    return run


def features_of(here: Path) -> list[object]:
    return [here / "features.npy", here / "set.csv"]


# Numbers and files


def test_protocols_by_name_and_by_file(here: Path, evaluate: Say) -> None:
    (here / "mine.yaml").write_text("mode: query-gallery\ncross_camera: true\nap: trapezoidal\n")
    out = here / "out"
    words = ["-p", "query-gallery", "--protocol", "cross-camera", "-p", here / "mine.yaml"]
    status, found, err = evaluate(*features_of(here), *words, "--out", out)
    assert status == 0 and f"report: {out}/report.html" in err.replace("\n", "")
    names = ["query-gallery", "cross-camera", "mine"]
    assert [one["protocol"] for one in found["scores"]] == names
    plain, crossed, mine = found["scores"]
    for one in (plain, crossed):
        assert one["mAP"] == pytest.approx((BY_HAND[one["protocol"]] + 1) / 2, abs=1e-15)
        assert one["queries"] == 2 and one["gallery"] == 4 and one["primary"] == "mAP"
    assert plain["R@1"] == 1 and crossed["R@1"] == 0.5 and crossed["R@5"] == 1
    assert crossed["mINP"] == (1 / 2 + 1) / 2 and plain["mINP"] == (2 / 3 + 1) / 2
    # Precision 0 before rank 2 and 1/2 there; 1 and 1 at rank 1.
    assert mine["mAP trapezoidal"] == (1 / 4 + 1) / 2 and "mAP" not in mine
    stored = json.loads((out / "scores.json").read_text())
    assert stored["scores"] == found["scores"]
    assert [one["name"] for one in stored["protocols"]] == names
    assert stored["data"]["source"] == str(here / "set.csv")
    assert stored["job"]["features"] == str(here / "features.npy")
    for name in names:
        own = json.loads((out / name / "scores.json").read_text())
        assert own["protocol"]["name"] == name
        assert own["summary"] == next(s for s in stored["scores"] if s["protocol"] == name)
    page = (out / "report.html").read_text()
    assert all(name in page for name in names) and "<script" not in page
    assert not list(out.rglob("*.part"))


def test_a_benchmark_by_its_protocols_as_far_as_its_lists_go(tmp_path: Path, evaluate: Say) -> None:
    """VehicleID with the small list only, two vehicles of two images: the first's are 10 degrees
    apart, the second's 100, with the first's between them."""
    save(tmp_path / "image" / "0000001.jpg")
    (tmp_path / "train_test_split").mkdir()
    lines = "0000001 7\n0000002 7\n0000003 8\n0000004 8\n"
    (tmp_path / "train_test_split" / "test_list_800.txt").write_text(lines)
    turns = np.radians([50, 60, 0, 100])
    np.save(tmp_path / "f.npy", np.stack((np.cos(turns), np.sin(turns)), axis=1).astype("f4"))
    words = [tmp_path / "f.npy", tmp_path]
    status, found, err = evaluate(*words)
    assert status == 0 and "vehicleid-medium left out: nothing to evaluate" in err
    by_name = {one["protocol"]: one for one in found["scores"]}
    assert set(by_name) == {"vehicleid-small", "vehicleid-small-one-gallery"}
    small = by_name["vehicleid-small"]
    assert small["R@1"] == 0.5 and small["mAP"] == pytest.approx((1 + 1 + 1 / 3 + 1 / 3) / 4)
    assert by_name["vehicleid-small-one-gallery"]["queries"] == 2 * 10
    status, _, err = evaluate(*words, "-p", "vehicleid-large")
    assert status == 2 and "nothing to evaluate" in err


def test_collapsed_features_are_told(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", *map(str, features_of(here)), "--out", str(here / "out")]
    for bad in (False, True):
        if bad:
            np.save(here / "features.npy", np.ones((6, 8), np.float32))
        assert resight(*words) == 0
        out = capfd.readouterr().out
        assert ("note: collapsed: all similarities are alike" in out) == bad
        assert ("ollapsed: all similarities" in (here / "out" / "report.html").read_text()) == bad
        stored = json.loads((here / "out" / "scores.json").read_text())
        assert [one["collapsed"] for one in stored["scores"]] == [bad, bad]


def test_memory_changes_no_digit(here: Path, evaluate: Say) -> None:
    words = [here / "features.npy", here / "set.csv"]
    assert evaluate(*words)[1] == evaluate(*words, "--memory", 16)[1]
    assert evaluate(*words, "--memory", 1)[0] == 2


def test_columns_of_the_queries(here: Path, evaluate: Say) -> None:
    out = here / "out"
    evaluate(*features_of(here), "-p", "cross-camera", "--out", out)
    table = pl.read_parquet(out / "cross-camera" / "per_query.parquet")
    assert table.columns == [
        "row", "repeat", "path", "object", "camera", "split", "role", "name", "site", "AP", "INP",
        "MAP@R", "R-precision", "first_rank", "positives", "gallery", "right_similarity",
        "wrong_similarity", "right", "wrong",
    ]  # fmt: skip
    first, second = table.iter_rows(named=True)
    assert (first["row"], first["path"], first["object"], first["camera"]) == (0, "0.png", "a", "1")
    assert first["AP"] == first["INP"] == 0.5 and first["first_rank"] == 2
    assert first["positives"] == 1 and first["gallery"] == 3 and second["gallery"] == 4
    assert first["right"] == 3 and first["wrong"] == 5 and second["right"] == 4
    assert first["right_similarity"] == pytest.approx(np.cos(np.radians(20)), abs=1e-7)
    assert first["wrong_similarity"] == pytest.approx(np.cos(np.radians(10)), abs=1e-7)
    assert first["repeat"] == 0 and first["site"] == "north" and first["MAP@R"] == 0


def test_forms_of_the_json(here: Path, evaluate: Say) -> None:
    data = features_of(here)
    _, both, _ = evaluate(*data)
    assert both["level"] == "image" and both["protocol"] == "cross-camera"
    assert both["object_level"]["level"] == "object"
    assert both["object_level"]["protocol"] == "cross-camera-centroid"
    # Centroids without the query's own camera: a2 at 20, b2 at 70, c at 10.
    assert both["object_level"]["mAP"] == (1 / 2 + 1) / 2 and "note" in both["object_level"]
    assert evaluate(*data, "--level", "both")[1] == both
    _, image, _ = evaluate(*data, "--level", "image")
    assert image == {k: v for k, v in both.items() if k != "object_level"}
    _, centroid, _ = evaluate(*data, "--level", "object")
    assert centroid == both["object_level"]
    _, off, _ = evaluate(*data, "--level", "image", "--no-cross-camera")
    assert off["protocol"] == "query-gallery"
    assert off["mAP"] == pytest.approx((BY_HAND["query-gallery"] + 1) / 2, abs=1e-15)
    _, named, _ = evaluate(*data, "-p", "cross-camera", "--level", "object")
    assert named["protocol"] == "cross-camera-centroid" and named["mAP"] == centroid["mAP"]
    _, changed, _ = evaluate(*data, "-p", "cross-camera", "--no-cross-camera")
    assert changed["protocol"] == "cross-camera-changed" and changed["mAP"] == off["mAP"]


def test_the_table_for_people(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "by site.yaml").write_text("mode: query-gallery\nwithin: kind\n")
    text = ROWS.replace("site", "kind").replace(",,\n", ",,north\n")
    (here / "set.csv").write_text(text)
    words = [*map(str, features_of(here)), "-p", str(here / "by site.yaml"), "-p", "single-shot"]
    assert resight("evaluate", *words) == 0
    out, err = capfd.readouterr()
    assert "by site" in out and "single-shot" in out and "91.67 %" in out and "95 % interval" in out
    assert "north: mAP 91.67 %" in out and "mean: mAP 91.67 %" in out
    assert "within kind" in out and "100 draws from seed 0" in out and "report" not in err


def test_listed_positives_from_a_csv(here: Path, evaluate: Say) -> None:
    (here / "mine.yml").write_text("mode: query-gallery\npositives: positives\njunk: []\n")
    status, found, _ = evaluate(*features_of(here), "-p", here / "mine.yml")
    assert status == 0 and found["protocol"] == "mine"
    assert found["mAP"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1) / 2, abs=1e-15)


def test_a_model_a_features_folder_and_its_vectors_agree(
    here: Path, shapes: Path, model: Path, evaluate: Say
) -> None:
    assert (
        resight("embed", str(model), str(shapes), "--out", str(here / "f"), "--workers", "0") == 0
    )
    _, folder, _ = evaluate(here / "f", "--level", "image")
    assert evaluate(here / "f", "--level", "image")[1] == folder  # as MODEL
    _, direct, _ = evaluate(model, shapes, "--level", "image", "--workers", 0)
    assert direct == folder and folder["protocol"] == "leave-one-out" and folder["queries"] == 60
    from resight.features.store import Features

    np.save(here / "v.npy", np.asarray(Features.load(here / "f")))
    assert evaluate(here / "v.npy", shapes, "--level", "image")[1] == folder
    unit = np.load(here / "v.npy").astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    objects = np.arange(60) // 5
    first = []
    for q in range(60):
        order = [g for g in np.argsort(-(unit @ unit[q]), kind="stable") if g != q]
        first.append(objects[order[0]] == objects[q])
    assert folder["R@1"] == pytest.approx(np.mean(first), abs=1e-15)


# Given similarities

MATRIX = [[0.9, 0.2, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]]
# Query 0: columns 0, 2, 3, 1. Query 1: columns 3, 2, 1, 0.
TRUTHS: dict[str, tuple[Any, dict[str, float]]] = {
    "list": ([[1, 2], [0]], {"mAP": ((1 / 2 + 2 / 4) / 2 + 1 / 4) / 2, "R@1": 0}),
    "object": ({"positives": [[1, 2], [0]]}, {"mAP": ((1 / 2 + 2 / 4) / 2 + 1 / 4) / 2, "R@1": 0}),
    "junk": (
        {"positives": [[1, 2], [0]], "junk": [[0], [3, 2]]},
        {"mAP": ((1 + 2 / 3) / 2 + 1 / 2) / 2, "R@1": 0.5},
    ),
    "junk of one": (
        {"positives": [[1, 2], [0]], "junk": [[], [3, 2, 1]]},
        {"mAP": ((1 / 2 + 2 / 4) / 2 + 1) / 2, "R@1": 0.5},
    ),
    "a query without": (
        [[1, 2], []], {"mAP": (1 / 2 + 2 / 4) / 2, "queries": 1, "queries_without_match": 1}
    ),
    "twice": ([[2, 1, 2], [0, 0]], {"mAP": ((1 / 2 + 2 / 4) / 2 + 1 / 4) / 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", TRUTHS)
def test_similarities_by_hand(name: str, tmp_path: Path, evaluate: Say) -> None:
    truth, expected = TRUTHS[name]
    kind = {"twice": np.float16, "object": np.float32}.get(name, np.float64)
    np.save(tmp_path / "m.npy", np.array(MATRIX, kind))
    (tmp_path / "t.json").write_text(json.dumps(truth))
    words = ["--similarity", tmp_path / "m.npy", "--truth", tmp_path / "t.json"]
    status, found, _ = evaluate(*words)
    assert status == 0 and found["gallery"] == 4 and found["protocol"] == "m"
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-15), key


def test_a_protocol_says_how_given_similarities_are_counted(tmp_path: Path, evaluate: Say) -> None:
    """Positives at ranks 2 and 4, and at 4. AP@2 by all positives: (1/2) / 2, and 0."""
    np.save(tmp_path / "m.npy", np.array(MATRIX))
    (tmp_path / "t.json").write_text("[[1, 2], [0]]")
    words = ["--similarity", tmp_path / "m.npy", "--truth", tmp_path / "t.json", "-p"]
    (tmp_path / "p.yaml").write_text("mode: query-gallery\nap_at: 2\ncutoffs: [3]\n")
    _, found, _ = evaluate(*words, tmp_path / "p.yaml")
    assert found["mAP@2 / relevant"] == (1 / 2 / 2 + 0) / 2 and "R@3" in found
    for wrong, what in (("level: object", "object level"), ("pairs: true", "pairs")):
        (tmp_path / "p.yaml").write_text(f"mode: query-gallery\n{wrong}\n")
        data = tmp_path / "set.csv"
        data.write_text("path,object,role\n0.png,a,query\n1.png,a,gallery\n")
        save(tmp_path / "0.png")
        np.save(tmp_path / "one.npy", np.array([[0.5]]))
        status, _, err = evaluate(
            "--similarity", tmp_path / "one.npy", data, "-p", tmp_path / "p.yaml"
        )
        assert status == 2 and f"can't be scored by {what}" in err


def test_archives_of_similarities(tmp_path: Path, evaluate: Say) -> None:
    matrix = np.array(MATRIX)
    file = tmp_path / "all.npz"
    np.savez(file, one=matrix, two=-matrix, whole=(10 * matrix).astype(int), other=np.eye(3))
    (tmp_path / "t.json").write_text("[[1, 2], [0]]")
    truth = ["--truth", tmp_path / "t.json"]
    status, found, _ = evaluate("--similarity", file, *truth, "--out", tmp_path / "out")
    assert status == 0 and [one["protocol"] for one in found["scores"]] == ["one", "two", "whole"]
    # two, turned round: query 0 has columns 1, 2, 3, 0; query 1 has 0 first.
    assert [one["mAP"] for one in found["scores"]] == [0.375, 1.0, 0.375]
    assert (tmp_path / "out" / "two" / "per_query.parquet").is_file()
    assert "whole" in (tmp_path / "out" / "report.html").read_text()
    _, picked, _ = evaluate("--similarity", f"{file}:two", *truth)
    assert picked["protocol"] == "two" and picked["mAP"] == 1


def test_similarities_of_an_image_set(here: Path, evaluate: Say) -> None:
    turns = np.radians(ANGLES)
    np.save(here / "m.npy", np.cos(turns[:2, None] - turns[2:]))
    words = ["--similarity", here / "m.npy", here / "set.csv"]
    _, found, _ = evaluate(*words, "--out", here / "out")  # cameras are known
    assert found["mAP"] == 0.75 and found["title"] == "query-gallery, cross-camera"
    _, off, _ = evaluate(*words, "--no-cross-camera")
    assert off["mAP"] == pytest.approx((BY_HAND["query-gallery"] + 1) / 2, abs=1e-15)
    _, named, _ = evaluate(*words, "-p", "query-gallery")
    assert named["mAP"] == off["mAP"]
    table = pl.read_parquet(here / "out" / "m" / "per_query.parquet")
    assert table["right"].to_list() == [3, 4] and table["path"].to_list() == ["0.png", "1.png"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared similarity matrices are not here")
@pytest.mark.parametrize("name", ["corridor", "SPEDTEST"])
def test_similarities_of_others(name: str, evaluate: Say) -> None:
    """Published matrices, and R@1 and mAP by a script of others."""
    with open(SHARED / "expected.csv") as file:
        expected = {r["matrix"]: r for r in csv.DictReader(file) if r["matrix"].startswith(name)}
    status, found, _ = evaluate(
        "--similarity", SHARED / "scores.npz", "--truth", SHARED / f"{name}_gt.json"
    )
    assert status == 0
    by_name = {one["protocol"]: one for one in found["scores"]}
    assert set(by_name) == set(expected) and len(expected) == {"corridor": 10, "SPEDTEST": 4}[name]
    for matrix, row in expected.items():
        one = by_name[matrix]
        assert one["R@1"] == pytest.approx(float(row["R@1"]), abs=1e-6)
        assert one["mAP"] == pytest.approx(float(row["mAP_rectangular"]), abs=1e-6)
        assert one["queries"] == int(row["queries"]) and one["gallery"] == int(row["references"])


# Done again


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """Features of 150 rows that say something of their object, in a folder of their own."""
    rng = np.random.default_rng(0)
    for i in range(3):
        save(tmp_path / f"{i}.png", i)
    features = rng.normal(size=(150, 16)) + np.eye(16)[np.arange(150) % 16]
    np.save(tmp_path / "features.npy", features.astype(np.float32))
    rows = ["path,object,camera"] + [f"{i}.png,o{i % 16},c{i % 7}" for i in range(150)]
    (tmp_path / "set.csv").write_text("\n".join(rows))
    return tmp_path


def numbers(found: Any) -> Any:
    return {k: v for k, v in found.items() if k not in ("same", "differences", "changed")}


def test_features_again_and_what_changed(crowd: Path, evaluate: Say) -> None:
    out = crowd / "out"
    (crowd / "draws.yaml").write_text("mode: leave-one-out\ngallery_images: 1\nrepeats: 3\n")
    names = [crowd / "draws.yaml", "leave-one-out", "cross-camera"]
    words = [word for name in names for word in ("-p", name)]
    status, before, _ = evaluate(*features_of(crowd), *words, "--out", out)
    assert status == 0
    (crowd / "draws.yaml").unlink()  # the record needs it no more
    status, again, err = evaluate("--from", out, "--out", crowd / "second")
    assert status == 0 and f"the same as {out}, to the last digit" in err
    assert again["same"] is True and again["differences"] == again["changed"] == []
    assert numbers(again) == numbers(before)
    for name in ("draws", "leave-one-out", "cross-camera"):
        one, two = (
            pl.read_parquet(f / name / "per_query.parquet") for f in (out, crowd / "second")
        )
        assert one.drop("path").equals(two.drop("path"))
        assert [Path(path).name for path in two["path"]] == one["path"].to_list()
    assert evaluate("--from", crowd / "second")[0] == 0  # and once more
    # A number that somebody changed.
    stored = json.loads((out / "scores.json").read_text())
    stored["scores"][1]["R@5"] += 1e-16 + 2**-52
    (out / "scores.json").write_text(json.dumps(stored))
    status, again, err = evaluate("--from", out)
    assert status == 1 and again["same"] is False and again["changed"] == []
    assert len(again["differences"]) == 1
    assert again["differences"][0].startswith("leave-one-out: R@5 is ")
    assert "leave-one-out: R@5 is " in err and "changed since" not in err
    # Results of one query that somebody changed.
    file = crowd / "second" / "cross-camera" / "per_query.parquet"
    table = pl.read_parquet(file)
    ap = table["AP"].to_list()
    table.with_columns(pl.Series("AP", [ap[0] + 2**-50, *ap[1:]])).write_parquet(file)
    status, again, _ = evaluate("--from", crowd / "second")
    assert status == 1
    assert again["differences"] == ["cross-camera: results of single queries differ"]
    # A feature that changed.
    features = np.load(crowd / "features.npy")
    features[7] = features[8]
    np.save(crowd / "features.npy", features)
    status, again, err = evaluate("--from", out)
    assert status == 1 and "features: not the one of the record" in again["changed"]
    assert "changed since: features: not the one of the record" in err
    assert any(line.startswith("draws: mAP is ") for line in again["differences"])
    # A file that is gone.
    (crowd / "features.npy").unlink()
    status, again, err = evaluate("--from", out)
    assert status == 2 and again is None and "features.npy: not found" in err


def test_a_features_folder_again(here: Path, shapes: Path, model: Path, evaluate: Say) -> None:
    folder = here / "f"
    assert resight("embed", str(model), str(shapes), "--out", str(folder), "--workers", "0") == 0
    assert evaluate(folder, "--out", here / "out")[0] == 0
    status, again, _ = evaluate("--from", here / "out")
    assert status == 0 and again["same"] and again["changed"] == []
    shard = folder / "shard-00000.npy"
    vectors = np.load(shard)
    vectors[3] = vectors[59]
    np.save(shard, vectors)
    status, _, err = evaluate("--from", here / "out")
    assert status == 2 and "shard-00000.npy: damaged" in err
    record = json.loads((folder / "features.json").read_text())
    del record["sums"]  # as older versions wrote it: then the digits tell
    (folder / "features.json").write_text(json.dumps(record))
    status, again, _ = evaluate("--from", here / "out")
    assert status == 1 and not again["same"] and again["differences"]


def test_a_model_again_and_what_changed(
    here: Path, shapes: Path, model: Path, evaluate: Say
) -> None:
    own = here / "shapes"
    shutil.copytree(shapes, own)
    out = here / "out"
    words = [own, "--workers", 0, "--flip", "--scales", "1,0.5", "--out", out]
    status, before, _ = evaluate(model, *words)
    assert status == 0 and before["queries"] == 60 and "object_level" in before
    status, again, err = evaluate("--from", out)
    assert status == 0 and again["same"] and numbers(again) == before
    job = json.loads((out / "scores.json").read_text())["job"]
    assert job["flip"] is True and job["scales"] == [1.0, 0.5] and job["model"] == str(model)
    # A picture that changed.
    changed = next(own.rglob("*.png"))
    picture(5, (48, 48)).save(changed)
    status, again, err = evaluate("--from", out)
    assert status == 1 and not again["same"]
    assert again["changed"] == ["the images are not those of the record"]
    assert "changed since: the images are not those of the record" in err
    # And is not one any more: it is skipped, and said so.
    changed.write_bytes(b"no")
    status, again, err = evaluate("--from", out)
    assert status == 1 and re.search(r"skipped .*png", err)
    assert any("dropped is 1, was 0" in line for line in again["differences"])


def test_random_weights_are_not_the_same_again(here: Path, evaluate: Say) -> None:
    words = [here / "set.csv", "--weights", "none", "--size", "32", "--workers", 0]
    assert evaluate(TINY, *words, "--out", here / "out")[0] == 0
    _, again, _ = evaluate("--from", here / "out")
    assert again["changed"] == ["embedder: not the one of the record"]


def test_similarities_again(here: Path, evaluate: Say) -> None:
    np.savez(here / "m.npz", one=np.array(MATRIX), two=-np.array(MATRIX))
    (here / "t.json").write_text("[[1, 2], [0]]")
    words = ["--similarity", here / "m.npz", "--truth", here / "t.json", "--out", here / "out"]
    assert evaluate(*words)[0] == 0
    status, again, _ = evaluate("--from", here / "out")
    assert status == 0 and again["same"] and len(again["scores"]) == 2
    (here / "t.json").write_text("[[1], [0]]")
    status, again, _ = evaluate("--from", here / "out")
    assert status == 1 and "truth: not the one of the record" in again["changed"]
    assert any(line.startswith("one: mAP is ") for line in again["differences"])
    np.save(here / "n.npy", np.array(MATRIX))
    words = ["--similarity", here / "n.npy", here / "set.csv", "-p", "query-gallery"]
    assert evaluate(*words, "--out", here / "other")[0] == 0
    status, again, _ = evaluate("--from", here / "other")
    assert status == 0 and again["same"]
    np.save(here / "n.npy", -np.array(MATRIX))
    status, again, _ = evaluate("--from", here / "other")
    assert status == 1 and "similarity: not the one of the record" in again["changed"]


# Mistakes


def json_file(here: Path, content: str) -> Path:
    (here / "t.json").write_text(content)
    return here / "t.json"


def array(here: Path, values: Any, **more: Any) -> Path:
    if more:
        np.savez(here / "m.npz", **more)
        return here / "m.npz"
    np.save(here / "m.npy", values)
    return here / "m.npy"


def given(here: Path, truth: str, matrix: Any = MATRIX) -> list[object]:
    return [array(here, matrix), "--similarity", "--truth", json_file(here, truth)]


def spoiled(values: Any, value: float) -> np.ndarray:
    out = np.array(values, float)
    out[1, 2] = value
    return out


def text(here: Path, content: str) -> Path:
    (here / "p.yaml").write_text(content)
    return here / "p.yaml"


def market(here: Path) -> list[object]:
    save(here / "market" / "bounding_box_test" / "0001_c1s1_000001_00.jpg")
    return [TINY, here / "market", "--weights", "none", "--layout", "market1501"]


GOOD = "[[1, 2], [0]]"
MISTAKES: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "truth not there": (
        lambda h: [array(h, MATRIX), "--similarity", "--truth", h / "no.json"], "no.json: not found"
    ),
    "truth that is no JSON": (lambda h: given(h, "{"), "t.json: not valid JSON"),
    "truth that is a number": (lambda h: given(h, "5"), "t.json: positives must be one list"),
    "truth that is true": (lambda h: given(h, "true"), "t.json: positives must be one list"),
    "truth that is text": (lambda h: given(h, '"ab"'), "t.json: positives must be one list"),
    "truth without positives": (
        lambda h: given(h, '{"junk": [[], []]}'), "t.json: positives must be one list for each"
    ),
    "truth whose positives are a number": (
        lambda h: given(h, '{"positives": 3}'), "t.json: positives must be one list"
    ),
    "truth of names": (lambda h: given(h, '[["a"], [0]]'), "positives, query 0: not a list of col"),
    "truth of numbers": (lambda h: given(h, "[1, 0]"), "positives, query 0: not a list of col"),
    "truth of a negative": (lambda h: given(h, "[[1], [-1]]"), "positives, query 1: not a list"),
    "truth of a fraction": (lambda h: given(h, "[[1.5], [1]]"), "positives, query 0: not a list"),
    "truth of true": (lambda h: given(h, "[[true], [1]]"), "positives, query 0: not a list"),
    "junk of another length": (
        lambda h: given(h, '{"positives": [[1], [0]], "junk": [[2]]}'), "junk must be one list for"
    ),
    "junk that is no list": (
        lambda h: given(h, '{"positives": [[1], [0]], "junk": 5}'), "junk must be one list for"
    ),
    "truth of no query": (lambda h: given(h, "[]"), "no matrix of 0 rows"),
    "nothing is right": (lambda h: given(h, "[[], []]"), "no query has a match"),
    "truth of another length": (
        lambda h: given(h, "[[1], [0], [2]]"), r"no matrix of 3 rows .*there are m \(2, 4\)"
    ),
    "a column too many": (lambda h: given(h, "[[1], [4]]"), "2 rows and more than 4 columns"),
    "no truth": (
        lambda h: ["--similarity", array(h, MATRIX)], "ground truth is missing: --truth"
    ),
    "matrix with NaN": (lambda h: given(h, GOOD, spoiled(MATRIX, np.nan)), "NaN or infinity"),
    "matrix with infinity": (lambda h: given(h, GOOD, spoiled(MATRIX, np.inf)), "NaN or infinity"),
    "matrix of one dimension": (lambda h: given(h, GOOD, [1.0, 2.0]), r"there are m \(2,\)"),
    "matrix of three dimensions": (lambda h: given(h, GOOD, np.ones((2, 4, 1))), "no matrix of 2"),
    "matrix of words": (lambda h: given(h, GOOD, np.full((2, 4), "x")), "m has shape .* type <U1"),
    "matrix of complex numbers": (
        lambda h: given(h, GOOD, np.ones((2, 4), complex)), "type complex128"
    ),
    "matrix not there": (
        lambda h: ["--similarity", h / "no.npy", "--truth", json_file(h, GOOD)], "no.npy: not found"
    ),
    "matrix that is none": (
        lambda h: ["--similarity", json_file(h, GOOD), "--truth", h / "t.json"],
        "t.json: can't be read",
    ),
    "no such matrix in the archive": (
        lambda h: [f"{array(h, 0, one=MATRIX)}:two", "--similarity", "--truth", json_file(h, GOOD)],
        "m.npz: no array 'two'; there are one",
    ),
    "an archive that is damaged": (
        lambda h: [
            (h / "d.npz", (h / "d.npz").write_bytes(b"PK\3\4no"))[0], "--similarity",
            "--truth", json_file(h, GOOD),
        ], "d.npz: can't be read",
    ),
    "matrix of another set": (
        lambda h: [array(h, np.ones((3, 4))), h / "set.csv", "--similarity"],
        "similarity is 3 x 4, but the set has 2 queries and 4 gallery images",
    ),
    "two protocols for a matrix": (
        lambda h: [
            array(h, MATRIX), h / "set.csv", "--similarity", "-p", "query-gallery",
            "-p", "cross-camera",
        ], "--similarity: give one --protocol",
    ),
    "truth without a matrix": (
        lambda h: [*features_of(h), "--truth", json_file(h, GOOD)], "--truth goes with --similarity"
    ),
    "no such device": (
        lambda h: [*features_of(h), "--device", "banana"], "--device banana: can't be used",
    ),
    "a device without float32": (
        lambda h: [*features_of(h), "--device", "meta"], "products are made on cpu or cuda",
    ),
    "no such protocol": (
        lambda h: [*features_of(h), "-p", "market"], "no protocol 'market'; there are market1501,"
    ),
    "protocol file not there": (
        lambda h: [*features_of(h), "-p", "no/such.yaml"], "no/such.yaml: no such settings file"
    ),
    "unknown key of a protocol": (
        lambda h: [*features_of(h), "-p", text(h, "mode: leave-one-out\ncut: 3")],
        "p.yaml: unknown cut;",
    ),
    "key of a protocol that is a number": (
        lambda h: [*features_of(h), "-p", text(h, "mode: leave-one-out\n1: 3")], "p.yaml: unknown 1"
    ),
    "seed below zero": (
        lambda h: [*features_of(h), "-p",
                   text(h, "mode: leave-one-out\nseed: -1\ngallery_images: 1")], "p.yaml: seed -1",
    ),
    "column of a protocol that is not there": (
        lambda h: [*features_of(h), "-p", text(h, "mode: query-gallery\nwithin: brand")],
        "no column 'brand' to stay within; path,",
    ),
    "protocol that fits none": (
        lambda h: [*features_of(h), "-p", "sop"], "nothing to evaluate"
    ),
    "layout that is not whole": (market, "market.*(query|lacks|not there|missing|no )"),
    "no such layout": (
        lambda h: [*features_of(h), "--layout", "market"], "--layout market: none of folder, mark"
    ),
    "from what is no record": (lambda h: ["--from", h], "not an evaluation folder"),
    "from nothing": (lambda h: ["--from", h / "no"], "no: not found"),
    "two sources": (
        lambda h: [*features_of(h), array(h, MATRIX)], "[Gg]ot unexpected extra argument"
    ),
    "a model and a record": (lambda h: [TINY, "--from", h], "give one MODEL"),
    "images and a record": (lambda h: [h, h, "--from", h], "give one MODEL"),
    "no source": (lambda h: [], "give one MODEL"),
    "an archive that is not said to hold similarities": (
        lambda h: [array(h, 0, one=MATRIX), h / "set.csv"], "m.npz: an archive; .*--similarity"
    ),
    "features without images": (
        lambda h: [h / "features.npy"], "features.npy: IMAGES is missing: the images of"
    ),
    "features that are whole numbers": (
        lambda h: [array(h, np.ones((6, 2), int)), h / "set.csv"],
        "type int64; an",
    ),
    "features folder that is none": (
        lambda h: [h, h / "set.csv"], "a folder without an embedder"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_one_clear_line_and_nothing_written(
    name: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words, expected = MISTAKES[name]
    said = [str(word) for word in words(here)]
    present = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    status = resight("evaluate", *said, "--out", str(here / "out"))
    out, err = capfd.readouterr()
    complaints = [line for line in err.splitlines() if line.startswith("resight: ")]
    assert status == 2 and len(complaints) == 1, err
    assert re.search(expected, complaints[0]), complaints[0]
    assert out == "" and "Traceback" not in err
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == present


def test_a_record_that_is_damaged(here: Path, evaluate: Say) -> None:
    out = here / "out"
    assert evaluate(*features_of(here), "-p", "cross-camera", "--out", out)[0] == 0
    whole = json.loads((out / "scores.json").read_text())

    def spoil(**changes: Any) -> str:
        (out / "scores.json").write_text(json.dumps(whole | changes))
        status, found, err = evaluate("--from", out)
        assert status == 2 and found is None
        (line,) = [one for one in err.splitlines() if one.startswith("resight: ")]
        return line

    assert "did not record how; evaluate anew" in spoil(job={})
    assert "job is not one of this version's" in spoil(job={"modell": "x"})
    assert "unknown colour" in spoil(protocols=[whole["protocols"][0] | {"colour": 1}])
    assert "as this version writes them" in spoil(scores=[])
    (out / "scores.json").write_text(json.dumps(whole))
    assert evaluate("--from", out)[0] == 0
    (out / "images.parquet").unlink()
    status, _, err = evaluate("--from", out)
    assert status == 2 and "images.parquet: not found" in err
