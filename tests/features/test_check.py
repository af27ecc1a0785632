"""The doctor of features: every damage is named with its rows, and nothing on sound ones."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.damage import flip

from command import resight
from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.features.check import check_features
from resight.features.compute import EmbedOptions
from resight.features.write import embed_images

OPTIONS = EmbedOptions(batch_size=16, workers=0)


@pytest.fixture(scope="module")
def written(embedder, crops: ImageSet, small_shards, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("features") / "f"
    embed_images(embedder, crops, out, options=OPTIONS)
    return out


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "f"))


def codes(folder: Path) -> dict[str, int]:
    return {finding.code: finding.count for finding in check_features(folder)[0]}


def test_sound_features(folder, crops):
    findings, images = check_features(folder)
    assert findings == [] and len(images) == len(crops) and images.missing() == []


def test_damaged_shards_are_named_with_their_rows(folder):
    flip(folder / "shard-00001.npy")
    (folder / "shard-00002.npy").unlink()
    (finding,) = check_features(folder)[0]
    assert (finding.code, finding.severity, finding.count) == ("damaged-shard", "error", 2)
    rows = [["shard-00001.npy", "rows 64 to 127"], ["shard-00002.npy", "rows 128 to 179"]]
    assert finding.names == rows
    assert "run the same 'resight embed' again" in finding.meaning


def test_a_damaged_table_and_embedder(folder, embedder):
    (folder / "images.parquet").write_bytes(b"PAR1")
    flip(folder / "embedder" / "model.safetensors")
    findings, images = check_features(folder)
    assert [f.code for f in findings] == ["damaged-table", "damaged-embedder"] and not len(images)
    other = copy.deepcopy(embedder)
    with torch.no_grad():
        other.neck.weight[0] = 2
    other.save(folder / "embedder")
    assert codes(folder) == {"damaged-table": 1, "other-embedder": 1}


def test_folders_of_older_versions_and_unfinished_ones(folder):
    record = json.loads((folder / "features.json").read_text())
    sums = record.pop("sums")
    (folder / "features.json").write_text(json.dumps(record))
    assert codes(folder) == {"no-checksums": 3}
    part = record | {"sums": sums, "complete": False}
    (folder / "features.json").write_text(json.dumps(part))
    assert codes(folder) == {"unfinished-features": 180}
    (folder / "features.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        check_features(folder)


def dead(embedder):
    model = copy.deepcopy(embedder)
    with torch.no_grad():
        model.neck.weight.zero_()
        model.neck.bias.fill_(1)
    return model


def test_collapsed_features_and_rows_without_a_vector(embedder, shapes, tmp_path):
    shutil.copytree(shapes, tmp_path / "photos")
    photos = sorted((tmp_path / "photos").rglob("*.png"))
    table = pl.DataFrame({"path": [str(path) for path in photos]})
    images = ImageSet(normalise(table), Path(), "photos")
    photos[3].write_text("no picture")
    embed_images(dead(embedder), images, tmp_path / "f", options=OPTIONS)
    findings = {finding.code: finding for finding in check_features(tmp_path / "f")[0]}
    assert set(findings) == {"collapsed", "no-vector"}
    assert findings["no-vector"].rows == [3]
    assert findings["collapsed"].count == 59 and findings["collapsed"].severity == "error"
    assert "all similarities are alike" in findings["collapsed"].meaning


def test_the_verb(folder, crops, capfd, tmp_path):
    def check(*words: str) -> tuple[int, dict, str]:
        capfd.readouterr()
        status = resight("data", "check", str(folder), "--json", "--no-near", *words)
        out, err = capfd.readouterr()
        return status, json.loads(out), err

    status, report, err = check()
    assert report["images"] == 180 and report["files"] == 60 and "any more" not in err
    assert "damaged-shard" not in {f["code"] for f in report["findings"]}
    flip(folder / "shard-00000.npy")
    status, report, _ = check()
    assert status == 1 and report["findings"][0]["code"] == "damaged-shard"
    assert report["findings"][0]["names"] == [["shard-00000.npy", "rows 0 to 63"]]
    assert resight("data", "check", str(folder), "--no-near") == 1
    out = capfd.readouterr().out
    assert "shard-00000.npy / rows 0 to 63" in out
    # Without the photos, and then without their table.
    table = pl.read_parquet(folder / "images.parquet")
    table = table.with_columns(path="/gone" + pl.col("path"))
    table.write_parquet(folder / "images.parquet")
    record = json.loads((folder / "features.json").read_text())
    del record["sums"]["images.parquet"]
    (folder / "features.json").write_text(json.dumps(record))
    status, report, err = check()
    assert status == 1 and report["files"] == 0 and report["images"] == 180
    assert "the photos are not there any more" in err
    assert {"damaged-shard", "images-per-object"} <= {f["code"] for f in report["findings"]}
    (folder / "images.parquet").unlink()
    status, report, _ = check()
    assert status == 1 and report["images"] == 0
    assert [f["code"] for f in report["findings"]][:1] == ["damaged-table"]
    assert np.load(folder / "shard-00001.npy").shape == (64, 96)
