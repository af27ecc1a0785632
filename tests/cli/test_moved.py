"""A folder that holds everything is moved, and everything goes on working."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from command import resight
from pictures import save
from resight.features.store import Features
from resight.search.gallery import Gallery


@pytest.fixture
def project(embedder, tmp_path: Path) -> Path:
    """Photos with a table beside, a model, features and a gallery."""
    home = tmp_path / "home"
    rows = ["path,object"]
    for number in range(12):
        save(home / "photos" / f"o{number // 3}" / f"{number % 3}.png", number, (40, 40))
        rows.append(f"o{number // 3}/{number % 3}.png,o{number // 3}")
    (home / "photos" / "index.csv").write_text("\n".join(rows) + "\n")
    embedder.save(home / "model")
    words = (home / "model", home / "photos")
    assert call("embed", *words, "--out", home / "features", "--workers", 0) == 0
    assert call("index", home / "features", "--out", home / "gallery") == 0
    return home


def call(*words: object) -> int:
    return resight(*map(str, words))


def scores(folder: Path) -> list[float]:
    return [one["mAP"] for one in json.loads((folder / "scores.json").read_text())["scores"]]


def test_photos_and_all_that_was_made_of_them(project, tmp_path, capfd):
    assert call("evaluate", project / "features", "--out", tmp_path / "before") == 0
    there = Path(shutil.move(project, tmp_path / "other" / "place"))
    loaded = Features.load(there / "features")
    assert loaded.images.missing() == [] and loaded.images.root == there / "features"
    assert call("evaluate", there / "features", "--out", tmp_path / "after") == 0
    assert scores(tmp_path / "after") == scores(tmp_path / "before")
    page = (tmp_path / "after" / "report.html").read_text()
    assert "no picture" not in page and "data:image/jpeg" in page
    # The features are those of the table in its new place, and the query is not its own hit.
    words = (there / "features", there / "photos")
    assert call("evaluate", *words, "--out", tmp_path / "table") == 0
    photo, sheet = there / "photos" / "o1" / "0.png", tmp_path / "hits.png"
    capfd.readouterr()
    assert call("search", there / "gallery", photo, "-k", 2, "--sheet", sheet, "--json") == 0
    out, err = capfd.readouterr()
    hits = json.loads(out)["queries"][0]["hits"]
    assert hits and all(Path(hit["path"]).is_file() for hit in hits)
    assert str(photo) not in {hit["path"] for hit in hits} and "gone" not in err


def test_a_run_goes_on(run_folder: Path, shapes: Path, tmp_path: Path):
    home = tmp_path / "home"
    shutil.copytree(shapes, home / "photos")
    shutil.copytree(run_folder, home / "run")
    # As if trained there.
    table = pl.read_parquet(home / "run" / "images.parquet")
    here = table.with_columns(pl.col("path").str.replace(str(shapes), str(home / "photos")))
    place = {"resight.place": str(home / "run")}
    here.write_parquet(home / "run" / "images.parquet", metadata=place)
    there = home.rename(tmp_path / "there")
    assert call("evaluate", there / "run", "--out", tmp_path / "e", "--workers", 0) == 0
    shutil.move(there / "photos", tmp_path / "photos")
    assert call("evaluate", there / "run", "--workers", 0) == 2
    words = (tmp_path / "photos", "--out", tmp_path / "f", "--workers", 0)
    assert call("evaluate", there / "run", *words) == 0
    assert scores(tmp_path / "e") == scores(tmp_path / "f")


def test_only_the_photos_were_moved(project, tmp_path, capfd):
    photos = Path(shutil.move(project / "photos", tmp_path / "photos"))
    assert call("evaluate", project / "features") == 0  # needs no photo
    capfd.readouterr()
    sheet = tmp_path / "hits.png"
    assert call("search", project / "gallery", photos / "o1" / "0.png", "--sheet", sheet) == 0
    err = capfd.readouterr().err
    assert "photos on the sheet are gone" in err and "index them where they are now" in err
    # The same embed with the new place: nothing is embedded again, the table is mended.
    shards = sorted((project / "features").glob("shard-*.npy"))
    at = [shard.stat().st_mtime_ns for shard in shards]
    assert call("embed", project / "model", photos, "--out", project / "features") == 0
    assert [shard.stat().st_mtime_ns for shard in shards] == at
    assert Features.load(project / "features", check=True).images.missing() == []


def test_features_of_other_images_are_refused(project, tmp_path, capfd):
    def refused(table: str, name: str) -> str:
        (project / "photos" / name).write_text(table)
        capfd.readouterr()
        data = project / "photos" / name
        assert call("evaluate", project / "features", data) == 2
        return capfd.readouterr().err.replace("\n", " ")

    lines = (project / "photos" / "index.csv").read_text().splitlines()
    assert "they are of 12 images, not of 11" in refused("\n".join(lines[:-1]), "short.csv")
    swapped = [lines[0], lines[2], lines[1], *lines[3:]]
    assert "row 0 is of o0/0.png, not of o0/1.png" in refused("\n".join(swapped), "order.csv")
    relabelled = [lines[0], *(line.split(",")[0] + ",x" for line in lines[1:])]
    (project / "photos" / "labels.csv").write_text("\n".join(relabelled))
    words = (project / "features", project / "photos" / "labels.csv")
    assert call("evaluate", *words) == 0
    np.save(tmp_path / "f.npy", np.eye(12, dtype=np.float32)[:11])
    words = (tmp_path / "f.npy", project / "photos")
    capfd.readouterr()
    assert call("evaluate", *words) == 2 and "11 features for 12 images" in capfd.readouterr().err


def test_features_of_another_model_are_refused(project, embedder, capfd):
    other = copy.deepcopy(embedder)
    with torch.no_grad():
        other.neck.weight[0] = 2
    other.save(project / "features" / "embedder")
    for verb in ("index", "fit"):
        capfd.readouterr()
        assert call(verb, project / "features", "--out", project / "new") == 2
        assert "were not made by" in capfd.readouterr().err
        assert not (project / "new").exists()
    gallery = Gallery(other)
    with pytest.raises(Exception, match="not made by the gallery's embedder"):
        gallery.add(Features.load(project / "features"))
    assert len(Gallery(embedder).add(Features.load(project / "features"))) == 12
