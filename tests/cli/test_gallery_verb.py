"""`resight gallery` as a person uses it: what is typed, what is seen, what comes next."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests.damage import flip
from tests.pictures import picture

from command import resight


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    """Run `resight WORDS`; (status, stdout, stderr)."""

    def carry_out(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = resight(*map(str, words))
        return status, *capfd.readouterr()

    return carry_out


def following(err: str) -> list[str]:
    last = err.strip().splitlines()[-1]
    assert last.startswith("next: resight "), err
    return shlex.split(last)[2:]


@pytest.fixture
def place(shapes: Path, run_folder: Path, tmp_path: Path, monkeypatch) -> Path:
    shutil.copytree(shapes, tmp_path / "my photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shop(place: Path, run_folder: Path, run) -> Path:
    assert run("index", run_folder, "my photos", "--out", "shop", "--level", "object")[0] == 0
    return Path("shop")


def test_five_commands_to_a_live_gallery(place, run_folder, run):
    status, out, err = run("gallery", "create", run_folder, "--out", "shop", "--level", "object")
    assert (status, out) == (0, "shop\n")
    status, out, err = run(*following(err))
    assert status == 0 and "0 images of 0 objects" in out
    status, out, err = run("gallery", "add", "shop", "my photos")
    assert status == 0 and "60 added" in err and "object level: 12 vectors" in err
    status, out, err = run("gallery", "info", "shop")
    assert "60 images of 12 objects" in out and "photos my photos: " in out
    assert following(err) == ["gallery", "calibrate", "shop"]
    status, out, err = run("gallery", "calibrate", "shop", "--alpha", 0.2, "--plot", "points.png")
    assert status == 0 and "of things not in the gallery, matched" in out
    assert Path("points.png").stat().st_size > 5000
    status, out, err = run(*following(err), "--json")
    (query,) = json.loads(out)["queries"]
    assert query["hits"][0]["object"] == "object 00" and 0 < query["hits"][0]["probability"] <= 1
    assert query["alpha"] == 0.2 and query["no_match"] is (query["p_value"] > 0.2)
    status, out, err = run("search", "shop", Path("my photos/object 03/foto_ä1.png"), "-k", 3)
    assert status == 0 and "probability" in out


def test_a_night_with_changes(shop, run):
    picture(5, (48, 48)).save("my photos/object 00/new.png")
    Path("my photos/object 01/foto_ä0.png").unlink()
    shutil.copy("my photos/object 02/foto_ä0.png", "my photos/object 03/copy.png")
    status, out, err = run("gallery", "add", "shop", "my photos", "--sync", "--json")
    assert status == 0
    told = json.loads(out)
    assert (told["added"], told["unchanged"], told["removed"], told["conflicts"]) == (1, 59, 1, 1)
    status, out, err = run("gallery", "add", "shop", "my photos")
    assert "60 unchanged" in err and "label conflict: " in err and "object 03/copy.png" in err
    status, out, err = run(*following(err))
    assert status == 0 and "object 00" in out
    status, out, err = run("gallery", "add", "shop", "my photos/object 00/new.png", "--object", "x")
    assert status == 0
    assert json.loads(run("gallery", "info", "shop", "--json")[1])["objects"] == 13


def test_remove_and_move(shop, run):
    photo = "my photos/object 02/foto_ä1.png"
    status, _, err = run("gallery", "move", "shop", photo, "--to", "another")
    assert status == 0 and "1 image moved; 13 vectors" in err
    status, _, err = run("gallery", "move", "shop", "--object", "another", "--to", "object 02")
    assert "12 vectors" in err
    status, _, err = run("gallery", "remove", "shop", "--object", "object 05")
    assert "5 images removed; 11 vectors" in err
    *_, err = run("gallery", "remove", "shop", "--where", "object like 'object 1%'")
    assert "10 images removed; 9 vectors" in err
    status, _, err = run("gallery", "add", "shop", "my photos")
    assert "45 unchanged" in err and "15 left out, removed before" in err
    for words, text in (
        (("remove", "shop"), "nothing is named"),
        (("remove", "shop", "none.png"), "none.png: not in this gallery"),
        (("remove", "shop", "--object", "none"), "object 'none': not in this gallery"),
        (("move", "shop", "--where", "prise < 3", "--to", "x"), "no column 'prise'"),
        (("info", "nowhere"), "a gallery .* was expected here"),
        (("create", "none", "--out", "shop"), "already holds a gallery"),
        (("calibrate", "shop", "--alpha", "2"), "alpha"),
    ):
        status, _, err = run("gallery", *words)
        assert status == 2, (words, err)
        assert re.search(text, err), err
        assert len(err.strip().splitlines()) == 1, err


def test_filters_cameras_regions_and_several_photos(shop, run):
    photos = [f"my photos/object 07/foto_ä{n}.png" for n in range(3)]
    status, out, err = run("search", "shop", *photos, "--together", "--json")
    (query,) = json.loads(out)["queries"]
    assert query["hits"][0]["object"] == "object 07"
    where = "object = 'object 03' or object in ('object 04')"
    status, out, err = run("search", "shop", photos[0], "--where", where, "--json")
    hits = json.loads(out)["queries"][0]["hits"]
    assert sorted(hit["object"] for hit in hits) == ["object 03", "object 04"]
    for level in ("image", "object", "both"):
        status, out, err = run(
            "search", "shop", photos[1], "--level", level, "--region", "0,0,40,40", "--json"
        )
        assert json.loads(out)["queries"][0]["hits"][0]["object"] == "object 07", level
    for option, value, text in (
        ("--region", "5,5,1,1", "not x1,y1,x2,y2"),
        ("--level", "shelf", "none of image, object, both"),
        ("--where", "object =", "filter"),
    ):
        status, out, err = run("search", "shop", photos[0], option, value)
        assert status == 2 and text in err, err


def test_check_finds_and_mends(shop, run):
    status, out, err = run("gallery", "check", "shop")
    assert status == 0 and "0 faults" in err
    import sqlite3

    with sqlite3.connect("shop/gallery.sqlite") as connection:
        blob = connection.execute("SELECT vector FROM vectors_1 WHERE image = 7").fetchone()[0]
        bad = bytes([blob[0] ^ 1]) + blob[1:]
        connection.execute("UPDATE vectors_1 SET vector = ? WHERE image = 7", (bad,))
    connection.close()
    status, out, err = run("gallery", "check", "shop", "--json")
    assert status == 1 and json.loads(out)["faults"] >= 1
    status, out, err = run("gallery", "check", "shop")
    assert status == 1 and "its vector is not what was written" in out
    status, out, err = run(*following(err))
    assert status == 0 and "1 images were embedded again" in err
    assert run("gallery", "check", "shop")[0] == 0
    flip(Path("shop/gallery.sqlite"), 5)
    status, out, err = run("gallery", "check", "shop")
    assert status == 2 and "damaged" in err and "--repair" in err


def test_copy_export_import_compact_and_another_embedder(shop, run, embedder):
    status, out, err = run("gallery", "copy", "shop", "copied")
    assert status == 0 and "60 images, checksums equal" in err
    assert run("gallery", "copy", "shop", "copied")[0] == 0  # goes on with a copy
    status, out, err = run("gallery", "export", "shop", "--out", "features")
    assert (status, out) == (0, "features\n")
    status, out, err = run(*following(err))
    assert status == 0 and "60 vectors" in err
    assert run("evaluate", "features")[0] == 0
    status, out, err = run("gallery", "compact", "shop")
    assert status == 0 and "MB now" in err
    embedder.save("other")
    status, out, err = run("gallery", "reembed", "shop", "other")
    assert status == 0 and "60 images embedded" in err
    status, out, err = run("gallery", "reembed", "shop", "other")
    assert "it has this embedder already" in err
    status, out, err = run("search", "shop", "my photos/object 03/foto_ä1.png", "--json")
    assert json.loads(out)["queries"][0]["hits"][0]["object"] == "object 03"
    assert run("gallery", "check", "shop")[0] == 0
    assert run("embed", "shop", "my photos", "--out", "again")[0] == 0  # by the new embedder
    status, out, err = run("gallery", "add", "shop", "features")
    assert status == 2 and "not made by the gallery's embedder" in err


def test_photos_that_moved(shop, run):
    shutil.move("my photos", "elsewhere")
    status, out, err = run("gallery", "check", "shop")
    assert status == 0 and "no longer there" in out and "move-root" in out
    status, out, err = run("gallery", "move-root", "shop", "my photos", "elsewhere")
    assert status == 0 and "60 of its first 60 photos are there" in err
    status, out, err = run("gallery", "reembed", "shop", "shop")
    assert status == 0
