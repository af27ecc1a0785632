"""Folders of every kind, and mistakes: a usable model, or one clear sentence why not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from unlabelled_sets import folder, view

from command import TINY, resight
from pictures import noise, picture
from resight.data.sources import load_images
from resight.models.embedder import Embedder
from resight.train.unlabelled.stage import ROWS

PLAIN = ["--backbone", TINY, "--weights", "none", "--size", "32", "--workers", "0"]
PLAIN += ["--epochs", "1", "--set", "lr=1e-3", "--set", "stages=[{}]"]
QUICK = ["--set", "steps=2", "--set", "tuples=3"]

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def train(tmp_path: Path, capfd: pytest.CaptureFixture[str], quick_plots: None) -> Run:
    """`train(data, *words)` into tmp/run -> exit status and what was said, without tmp's name."""

    def call(data: Path, *words: str) -> tuple[int, str]:
        out = ["--out", str(tmp_path / "run")]
        status = resight("train", str(data), "--recipe", "insclr", *out, *PLAIN, *words)
        said = capfd.readouterr().err
        assert "Traceback" not in said
        return status, said.replace(str(tmp_path), "TMP")

    return call


def usable(run: Path, photo: Path) -> bool:
    """Whether the run has a page, and an embedder that embeds."""
    vectors = Embedder.load(run).embed([photo])
    return (run / "evidence.html").is_file() and bool(np.isfinite(vectors).all())


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def saved(path: Path, pictures: list[Image.Image], ending: str = "png", times: int = 1) -> Path:
    """Every picture, each `times` times at another quality."""
    path.mkdir(parents=True)
    for k, image in enumerate(pictures):
        for n in range(times):
            image.save(path / f"{k:03d}-{n}.{ending}", quality=95 - 8 * n)
    return path


def complaint(said: str) -> str:
    """The one line of an error."""
    lines = [line for line in said.splitlines() if line.startswith("resight: ")]
    assert len(lines) == 1, said
    return lines[0]


def test_forty_photos(train: Run, tmp_path: Path) -> None:
    photos = folder(tmp_path / "Fotos vom Öl & ß", 10, 4)
    for k, photo in enumerate(sorted(photos.iterdir())):
        photo.rename(photos / f"Bild {k} ü.png")
    status, said = train(photos, *QUICK)
    assert status == 0 and "stage 1 of 1" in said, said
    assert usable(tmp_path / "run", photos / "Bild 3 ü.png")
    assert weights(tmp_path / "run/embedder") != weights(tmp_path / "run/start")


def test_a_thousand_photos(train: Run, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", 200, 5, side=16)
    status, said = train(photos)
    assert status == 0 and re.search(r"the 9\d nearest of 9\d\d images", said), said
    assert usable(tmp_path / "run", photos / "007-1.png")


def test_copies_are_told_and_left_out(train: Run, tmp_path: Path) -> None:
    photos = saved(
        tmp_path / "photos", [view(k, i, 64) for k in range(8) for i in range(3)], "jpg", 3
    )
    status, said = train(photos, *QUICK)
    assert status == 0 and re.search(r"48 images are near-duplicates .*24 groups", said), said
    rows = np.load(tmp_path / "run/stage-1" / ROWS)
    names = load_images(photos).table["path"][rows].to_list()
    assert names == [f"{k:03d}-0.jpg" for k in range(24)]
    # Only they are drawn, and only they are anyone's neighbours.
    near = np.load(tmp_path / "run/stage-1/pool/neighbours.npy")
    assert set(np.unique(near[rows])) <= {*rows.tolist(), -1}
    assert (np.delete(near, rows, axis=0) == -1).all()


@pytest.mark.parametrize("way", ["saved again", "the same file"])
def test_one_photo_many_times(train: Run, tmp_path: Path, way: str) -> None:
    if way == "saved again":
        photos = saved(tmp_path / "photos", [view(1, 1, 64)], "jpg", 11)
    else:
        photos = saved(tmp_path / "photos", [view(1, 1, 64)] * 30)
    status, said = train(photos, *QUICK)
    assert status == 2 and "all but 1 are near-duplicates of others" in complaint(said), said
    assert not (tmp_path / "run").exists(), "something was left behind"


ONE_OFFS: dict[str, Callable[[int], Image.Image]] = {
    "noise": lambda k: noise(k, (32, 32)),
    "unrelated": lambda k: picture(k, (40, 40)),
    "one grey": lambda k: Image.new("RGB", (40, 40), (120, 120, 120)),
    "two greys": lambda k: Image.new("RGB", (40, 40), (40 + 160 * (k % 2),) * 3),
}


@pytest.mark.parametrize("kind", [name for name in ONE_OFFS if name != "two greys"])
def test_nothing_to_learn_from(train: Run, tmp_path: Path, kind: str) -> None:
    photos = saved(tmp_path / "photos", [ONE_OFFS[kind](k) for k in range(70)])
    status, said = train(photos, *QUICK)
    assert status == 0 and said.count("nothing to learn from: ") == 1, said
    assert weights(tmp_path / "run/embedder") == weights(tmp_path / "run/start")
    assert usable(tmp_path / "run", photos / "003-0.png")
    assert json.loads((tmp_path / "run/run.json").read_text())["finished"]


def test_copies_of_unrelated_photos_teach_nothing(train: Run, tmp_path: Path) -> None:
    photos = saved(tmp_path / "photos", [picture(k, (64, 64)) for k in range(60)], "jpg", 3)
    status, said = train(photos, *QUICK)
    assert status == 0 and "120 images are near-duplicates" in said, said
    assert said.count("nothing to learn from: ") == 1, said


@pytest.mark.parametrize("kind", ["colours", "two greys"])
def test_pictures_of_one_colour_each(train: Run, tmp_path: Path, kind: str) -> None:
    """Whatever comes of it, it ends well."""
    colours = np.random.default_rng(0).integers(0, 256, (40, 3)).tolist()
    made = [Image.new("RGB", (40, 40), tuple(colour)) for colour in colours]
    if kind == "two greys":
        made = [ONE_OFFS[kind](k) for k in range(40)]
    photos = saved(tmp_path / "photos", made)
    status, said = train(photos, *QUICK)
    assert status == 0, said
    assert usable(tmp_path / "run", photos / "003-0.png")


def test_bad_images_are_named_and_left_out(train: Run, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", 8, 4)
    for name in ("001-1.png", "005-2.png"):
        (photos / name).write_bytes(b"no image")
    status, said = train(photos, *QUICK)
    assert status == 0 and said.count("skipped TMP/photos/001-1.png: not an image") == 1, said
    assert "2 bad images skipped" in said
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert [Path(path).name for path in record["skipped"]] == ["001-1.png", "005-2.png"]


def test_strict_stops_at_a_bad_image(train: Run, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", 8, 4)
    (photos / "001-1.png").write_bytes(b"no image")
    status, said = train(photos, "--strict", *QUICK)
    assert status == 2 and "001-1.png: not an image" in complaint(said), said
    assert not (tmp_path / "run").exists()


TOO_FEW: dict[str, tuple[int, int, str]] = {
    # good photos, broken ones, what is said
    "seven": (7, 0, "photos: 7 images to train on; without labels at least 8"),
    "none": (0, 0, "photos: no images in this folder"),
    "all broken": (0, 12, "photos: none of its 12 images can be used"),
    "hardly any left": (5, 7, "photos: only 5 of 12 images can be used; .*at least 8"),
}


@pytest.mark.parametrize("kind", TOO_FEW)
def test_too_few(train: Run, tmp_path: Path, kind: str) -> None:
    good, bad, expected = TOO_FEW[kind]
    photos = saved(tmp_path / "photos", [view(k, 0) for k in range(good)])
    for k in range(bad):
        (photos / f"x{k}.jpg").write_bytes(b"no image")
    status, said = train(photos, *QUICK)
    assert status == 2 and re.search(expected, complaint(said)), said
    assert not (tmp_path / "run").exists(), "something was left behind"


def test_names_of_folders_are_no_labels_to_train_by(train: Run, tmp_path: Path) -> None:
    """Two folders with the same photos under other names: the same weights."""
    found = []
    for way in ("right", "wrong"):
        photos = tmp_path / way
        for k in range(10):
            for i in range(3):
                inside = photos / f"thing {k}" if way == "right" else photos / f"a/b {i}"
                inside.mkdir(parents=True, exist_ok=True)
                view(k, i).save(inside / f"{k:03d}-{i}.png")
        table = load_images(photos).table.sort(pl.col("path").str.split("/").list.last())
        table.select("path", "object").write_csv(photos / "list.csv")
        status, said = train(photos / "list.csv", *QUICK, "--force")
        assert status == 0 and "labels are not used for training" in said, said
        found.append(weights(tmp_path / "run/embedder"))
    assert found[0] == found[1]


def test_test_rows_are_never_opened(train: Run, tmp_path: Path) -> None:
    """They are broken, and `--strict` doesn't mind."""
    photos = folder(tmp_path / "photos", 10, 4)
    names = sorted(path.name for path in photos.iterdir())
    for name in names[30:]:
        (photos / name).write_bytes(b"no image")
    split = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    pl.DataFrame({"path": names, "split": split}).write_csv(photos / "list.csv")
    status, said = train(photos / "list.csv", "--strict", *QUICK)
    assert status == 0 and "10 test images are left out" in said, said
    assert pl.read_parquet(tmp_path / "run/images.parquet").height == 30


def test_no_stages_give_the_whitened_start(train: Run, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", 8, 4)
    status, said = train(photos, "--set", "stages=[]")
    assert status == 0, said
    assert weights(tmp_path / "run/embedder") == weights(tmp_path / "run/start")
    assert Embedder.load(tmp_path / "run").config.whiten == 8


VIT = ["--backbone", "test_vit"]
MISTAKES: dict[str, tuple[list[str], str]] = {
    "unknown name in a stage": (
        ["stages=[{}, {calibrat: 2}]"], "no setting 'calibrat'; did you mean calibrate",
    ),
    "what all stages share": (["stages=[{whiten: 4}]"], "stages: whiten can't differ"),
    "wrong value in a stage": (["stages=[{}, {epochs: 0}]"], "epochs = 0: .*greater than"),
    "wrong value within a stage": (["stages=[{pool: {scales: big}}]"], "pool.scales = 'big'"),
    "whitened to too many": (["whiten=5000"], r"whiten=5000: .*at most 3\d dim"),
    "tuples of one": (["neighbours=0", "views=1"], r"neighbours \+ views must be at least 2"),
    "unknown loss": (["loss=magic"], "no loss 'magic'; .*infonce"),
    "a loss with labels": (["loss=arcface"], "no loss 'arcface'"),
    "no weights for aliked": (["spatial={detector: aliked}"], "aliked needs weights"),
    "weights not there": (
        ["spatial={detector: aliked, weights: /no/aliked.pth}"], "/no/aliked.pth: no such file",
    ),
    "size of the pool": (["pool.size=[40, 56]", "vit"], "test_vit can't take images of 40 x 56"),
    "scales of the pool": (["pool.scales=[1, 0.7]", "vit"], "test_vit can't take images at"),
    "one tuple": (["tuples=1"], "tuples = 1: .*2"),
    "thresholds out of order": (
        ["mining.candidate_at=0.9"], "candidate_at must not be above initial_at",
    ),
    "oracle without labels": (["oracle=true"], "no labels"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_one_clear_line(train: Run, tmp_path: Path, name: str) -> None:
    pairs, expected = MISTAKES[name]
    photos = saved(tmp_path / "photos", [view(k, i) for k in range(8) for i in range(4)])
    words = [word for pair in pairs if pair != "vit" for word in ("--set", pair)]
    status, said = train(photos, *QUICK, *words, *(VIT if "vit" in pairs else []))
    assert status == 2, said
    assert re.search(expected, complaint(said)), complaint(said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"], "something is left"
