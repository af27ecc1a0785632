"""Mistakes of a user: one clear line that names what and where, status 2, nothing left behind."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from command import TINY, resight

PLAIN = ["--backbone", TINY, "--weights", "none", "--size", "32", "--epochs", "1"]


class World:
    """The files that the mistakes are made with."""

    def __init__(self, tmp: Path, shapes: Path, run: Path):
        self.tmp, self.shapes, self.run = tmp, shapes, run
        self.out = tmp / "out"

    def write(self, name: str, content: str | bytes) -> str:
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def folder(self, name: str, objects: int, shots: int) -> str:
        for source in sorted(self.shapes.iterdir())[:objects]:
            target = self.tmp / name / source.name
            target.mkdir(parents=True)
            for picture in sorted(source.iterdir())[:shots]:
                shutil.copy(picture, target)
        (self.tmp / name).mkdir(exist_ok=True)
        return str(self.tmp / name)

    def csv(self, name: str, *lines: str) -> str:
        return self.write(name, "\n".join(lines) + "\n")

    def array(self, name: str, values: np.ndarray) -> str:
        np.save(self.tmp / name, values)
        return str(self.tmp / name)

    @property
    def picture(self) -> str:
        return str(next(self.shapes.rglob("*.png")))


def train(w: World, data: str, *more: str) -> list[str]:
    return ["train", data, "--out", str(w.out), *PLAIN, *more]


MISTAKES: dict[str, tuple[Callable[[World], list[str]], str]] = {
    "images not there": (lambda w: train(w, "/no/such/folder"), "/no/such/folder: not found"),
    "empty folder": (lambda w: train(w, w.folder("empty", 0, 0)), "empty: no images in this"),
    "one object only": (lambda w: train(w, w.folder("one", 1, 5)), "one: .*object.* at least 2"),
    "one image an object": (
        lambda w: train(w, w.folder("single", 9, 1), "--recipe", "ctl"),
        "no training object has two images",
    ),
    "no labels": (
        lambda w: train(w, str(w.shapes / "object 00"), "--recipe", "ctl"),
        "object 00: no labels; training needs",
    ),
    "all images corrupt": (
        lambda w: ["embed", str(w.run), str(Path(w.write("bad/a/x.jpg", b"no")).parent.parent),
                   "--out", str(w.out)], "none of its 1 images can be used .*x.jpg"
    ),
    "strict": (
        lambda w: ["index", str(w.run), str(Path(w.write("bad/a/x.jpg", b"no")).parent.parent),
                   "--out", str(w.out), "--strict"], "x.jpg: not an image of a known format"
    ),
    "csv without a path column": (
        lambda w: train(w, w.csv("a.csv", "where,what", "x.jpg,a")),
        "a.csv: no column 'path'; it has: where, what",
    ),
    "csv with a wrong split": (
        lambda w: train(w, w.csv("a.csv", "path,object,split", "x.jpg,a,trian")),
        "a.csv, line 2: split 'trian' is none of train, val, test",
    ),
    "csv with a wrong role": (
        lambda w: train(w, w.csv("a.csv", "path,object,role", "x.jpg,a,boss")),
        "a.csv, line 2: role 'boss'",
    ),
    "csv with a wrong box": (
        lambda w: train(w, w.csv("a.csv", "path,object,box", "x.jpg,a,9 9 1 1")),
        "a.csv, line 2: box .*x1 < x2",
    ),
    "csv with an empty path": (
        lambda w: train(w, w.csv("a.csv", "path,object", "x.jpg,a", ",b")), "a.csv, line 3: no path"
    ),
    "csv whose images are elsewhere": (
        lambda w: train(w, w.csv("a.csv", "path,object", "x.jpg,a")),
        "a.csv: none of its 1 images exists",
    ),
    "csv with a header only": (lambda w: train(w, w.csv("a.csv", "path")), "a.csv: no images"),
    "empty csv": (lambda w: train(w, w.write("a.csv", "")), "a.csv: empty"),
    "csv not in UTF-8": (
        lambda w: train(w, w.write("a.csv", "path,object\nstraße.jpg,é\n".encode("latin-1"))),
        "a.csv: .*UTF-8",
    ),
    "parquet that is none": (lambda w: train(w, w.write("a.parquet", b"PK")), "a.parquet: can't"),
    "file of no known kind": (lambda w: train(w, w.write("a.docx", b"x")), "a.docx: a file of"),
    "wrong --columns": (
        lambda w: train(w, str(w.shapes), "--columns", "object"), "--columns object: .*object=sku"
    ),
    "column that is not there": (
        lambda w: train(w, w.csv("a.csv", "path,x", "y.jpg,1"), "--columns", "object=sku"),
        "a.csv: no column 'sku'",
    ),
    "unknown backbone": (
        lambda w: [*train(w, str(w.shapes)), "--backbone", "resnet5O"],
        "--backbone resnet5O: .*did you mean resnet50",
    ),
    "weights not there": (
        lambda w: [*train(w, str(w.shapes)), "--weights", "/no/w.safetensors"],
        "--weights /no/w.safetensors: no such file",
    ),
    "weights that are none": (
        lambda w: [*train(w, str(w.shapes)), "--weights", w.write("w.pth", b"<html>")],
        "w.pth: holds no tensors",
    ),
    "weights of another model": (
        lambda w: [*train(w, str(w.shapes)), "--backbone", "test_vit", "--weights",
                   str(w.run / "embedder" / "model.safetensors")],
        "these are not weights of test_vit",
    ),
    "unknown setting": (
        lambda w: train(w, str(w.shapes), "--set", "learning_rate=1"),
        "no setting 'learning_rate'",
    ),
    "misspelt setting": (
        lambda w: train(w, str(w.shapes), "--set", "augment.flipp=1"), "did you mean flip"
    ),
    "setting out of range": (
        lambda w: train(w, str(w.shapes), "--set", "lr=-1"), "lr = -1: .*greater than 0"
    ),
    "setting without a value": (
        lambda w: train(w, str(w.shapes), "--set", "lr"), "--set lr: not of the form name=value"
    ),
    "settings file not there": (
        lambda w: train(w, str(w.shapes), "--config", "/no.yaml"), "/no.yaml: no such settings file"
    ),
    "settings file broken": (
        lambda w: train(w, str(w.shapes), "--config", w.write("c.yaml", "a: [")), "c.yaml: not"
    ),
    "unknown recipe": (
        lambda w: train(w, str(w.shapes), "--recipe", "magic"), "--recipe magic: no such recipe"
    ),
    "size that is none": (
        lambda w: [*train(w, str(w.shapes)), "--size", "big"], "--size big: not HEIGHTxWIDTH"
    ),
    "out is a file": (
        lambda w: ["train", str(w.shapes), "--out", w.write("file", "x"), *PLAIN], "file: is a file"
    ),
    "out holds other files": (
        lambda w: ["train", str(w.shapes), "--out", str(Path(w.write("full/x", "x")).parent),
                   *PLAIN, "--force"], "full: holds other files"
    ),
    "out can't be made": (
        lambda w: ["train", str(w.shapes), "--out", "/proc/nothing/run", *PLAIN], "/proc/nothing"
    ),
    "resume what is no run": (
        lambda w: ["train", "--resume", str(w.shapes)], "not a training run"
    ),
    "resume with settings": (
        lambda w: ["train", "--resume", str(w.run), "--epochs", "9"], "takes everything from"
    ),
    "resume what is finished": (lambda w: ["train", "--resume", str(w.run)], "run is finished"),
    "no images given": (lambda w: ["train", "--out", str(w.out)], "IMAGES is missing"),
    "unknown option": (lambda w: ["train", "--speed", "9"], "[Nn]o such option.*--speed"),
    "unknown verb": (lambda w: ["find"], "[Nn]o such command.*find"),
    "number that is none": (lambda w: train(w, str(w.shapes), "--seed", "x"), "--seed"),
    "model that is a plain folder": (
        lambda w: ["embed", str(w.shapes), str(w.shapes), "--out", str(w.out)],
        "a folder without an embedder",
    ),
    "model that is nothing": (
        lambda w: ["evaluate", "runs/typo", str(w.shapes)], "runs/typo: not found"
    ),
    "dtype": (
        lambda w: ["embed", str(w.run), str(w.shapes), "--out", str(w.out), "--dtype", "int8"],
        "--dtype int8",
    ),
    "level": (
        lambda w: ["index", str(w.run), str(w.shapes), "--out", str(w.out), "--level", "pixel"],
        "--level pixel",
    ),
    "gallery not there": (lambda w: ["search", "/no/gallery", w.picture], "/no/gallery.*not found"),
    "query not there": (
        lambda w: ["search", str(w.gallery), "/no/photo.jpg"], "/no/photo.jpg: not found"
    ),
    "query that is no image": (
        lambda w: ["search", str(w.gallery), w.write("q.jpg", b"no")], "q.jpg: not an image"
    ),
    "sheet of no image kind": (
        lambda w: ["search", str(w.gallery), w.picture, "--sheet", str(w.tmp / "s.pdf")],
        "s.pdf: its name must end in",
    ),
    "features not there": (
        lambda w: ["evaluate", "/no.npy", str(w.shapes)], "/no.npy: not"
    ),
    "features that are none": (
        lambda w: ["evaluate", w.write("f.npy", b"x"), str(w.shapes)],
        "f.npy: can't be read",
    ),
    "features pickled": (
        lambda w: ["evaluate", w.array("f.npy", np.array([{}], dtype=object)),
                   str(w.shapes)], "f.npy: can't be read",
    ),
    "features of another length": (
        lambda w: ["evaluate", w.array("f.npy", np.ones((3, 4), np.float32)),
                   str(w.shapes)], "3 features for 60 images",
    ),
    "features of another shape": (
        lambda w: ["evaluate", w.array("f.npy", np.ones(60, np.float32)),
                   str(w.shapes)], r"shape \(60,\)",
    ),
    "features with NaN": (
        lambda w: ["evaluate", w.array("f.npy", np.full((60, 4), np.nan)),
                   str(w.shapes)], "NaN or infinity",
    ),
    "nothing has a match": (
        lambda w: ["evaluate", w.array("f.npy", np.ones((9, 4), np.float32)),
                   w.folder("single", 9, 1)], "no query has a match",
    ),
    "training rows only": (
        lambda w: ["evaluate", str(w.run), w.csv(
            "a.csv", "path,object,split", f"{w.picture},a,train")], "none is test",
    ),
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, shapes: Path, run_folder: Path, gallery_folder: Path) -> World:
    made = World(tmp_path, shapes, run_folder)
    made.gallery = gallery_folder  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="session")
def gallery_folder(
    run_folder: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from resight import Embedder, Gallery, load_images

    out = tmp_path_factory.mktemp("galleries") / "shapes"
    return Gallery(Embedder.load(run_folder)).add(load_images(shapes)).save(out)


@pytest.mark.parametrize("name", MISTAKES)
def test_one_clear_line(name: str, world: World, capfd: pytest.CaptureFixture[str]) -> None:
    words, expected = MISTAKES[name]
    before = words(world)
    present = {p for p in world.tmp.rglob("*")}
    status = resight(*before)
    out, err = capfd.readouterr()
    complaints = [line for line in err.splitlines() if line.startswith("resight: ")]
    assert status == 2, err
    assert len(complaints) == 1, err
    assert re.search(expected, complaints[0]), complaints[0]
    assert "Traceback" not in err and out == ""
    assert {p for p in world.tmp.rglob("*")} == present, "something was left behind"


def test_all_errors_of_a_table_are_listed(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    table = world.csv("a.csv", "path,object,split,role", "a.jpg,a,x,", ",b,,", "c.jpg,c,,y")
    assert resight("data", "check", table) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(":")[1].split()[-1] for line in lines] == ["2", "3", "4"]


def test_a_full_disk(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """A real one, of one megabyte."""
    small = world.tmp / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        for words in (
            ["embed", str(world.run), str(world.shapes), "--out", str(small / "features")],
            ["index", str(world.run), str(world.shapes), "--out", str(small / "gallery")],
            train(world, str(world.shapes), "--out", str(small / "run")),
        ):
            (small / "filler").write_bytes(b"")
            status = resight(*words)
            err = capfd.readouterr().err
            assert status == 2 and "no space left on the disk" in err, err
            assert "Traceback" not in err
            assert not list(small.rglob("*.part")), "half-written files were left"
            assert not list(small.rglob("model.safetensors"))
            subprocess.run(f"rm -rf {small}/*", shell=True, check=True)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_unicode_and_spaces(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """The whole way, on a table with other columns' names."""
    rows = [
        {"Datei Nr": n, "filename": str(p.relative_to(world.shapes)), "label": f"Straße {p.parent}"}
        for n, p in enumerate(sorted(world.shapes.rglob("*.png")))
    ]
    table = world.shapes / "Übersicht 1.csv"
    pl.DataFrame(rows).write_csv(table, separator=";")
    try:
        run = world.tmp / "Lauf 1"
        assert resight("train", str(table), "--out", str(run), *PLAIN) == 0
        assert resight("evaluate", str(run), "--json") == 0
        features = str(world.tmp / "Merkmale ß")
        assert resight("embed", str(run), str(table), "--out", features) == 0
        gallery = str(world.tmp / "Galerie")
        assert resight("index", features, "--out", gallery, "--level", "object") == 0
        sheet = world.tmp / "Bögen" / "Treffer.png"
        assert resight("search", gallery, str(table), "--sheet", str(sheet)) == 0
        assert sheet.is_file()
    finally:
        table.unlink()
