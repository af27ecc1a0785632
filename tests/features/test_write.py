"""Embedding an image set: shards, resuming after kill -9, bad images, foreign folders."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from tests.damage import flip
from tests.pictures import encoded, picture

from resight.data.imageset import ImageSet, normalise
from resight.data.sources import load_images
from resight.errors import UserError
from resight.features import compute
from resight.features.compute import EmbedOptions, find_batch_size
from resight.features.store import Features
from resight.features.write import embed_images
from resight.models.embedder import Embedder

OPTIONS = EmbedOptions(batch_size=16, workers=0)


@pytest.fixture(scope="module")
def whole(embedder, crops) -> np.ndarray:
    """The vectors of `crops`, embedded in memory."""
    return np.asarray(embed_images(embedder, crops, options=OPTIONS))


def equal(features: Features, expected: np.ndarray) -> bool:
    return np.array_equal(np.asarray(features), expected)


def test_they_are_the_embedders_vectors(embedder, crops, whole):
    rows = [0, 59, 60, 100, 179]
    boxes = crops.table["box"].to_list()
    photos = [Image.open(crops.full_paths()[r]).convert("RGB").crop(boxes[r]) for r in rows]
    expected = embedder.embed(photos, normalize=False)
    np.testing.assert_allclose(whole[rows], expected, rtol=1e-4, atol=1e-4)
    assert np.abs(whole[0] - whole[60]).max() > 0.1  # the boxes count


def test_a_folder_holds_what_memory_would(embedder, crops, whole, tmp_path):
    seen = []
    features = embed_images(
        embedder,
        crops,
        str(tmp_path / "f"),
        options=OPTIONS,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert equal(features, whole) and equal(Features.load(tmp_path / "f"), whole)
    assert features.valid.all() and features.info["skipped"] == []
    assert seen == [(0, 180), (64, 180), (128, 180), (180, 180)]
    assert features.images.table.drop("path").equals(crops.table.drop("path"))
    assert features.images.full_paths() == [path.absolute() for path in crops.full_paths()]
    assert Embedder.load(tmp_path / "f", "cpu").fingerprint() == embedder.fingerprint()


def test_only_a_missing_shard_is_computed_again(embedder, crops, whole, tmp_path, monkeypatch):
    out = tmp_path / "f"
    embed_images(embedder, crops, out, options=OPTIONS)
    (out / "shard-00001.npy").unlink()
    kept = {name: (out / name).stat().st_mtime_ns for name in ("shard-00000.npy", "images.parquet")}
    embedded = []
    real = Embedder.embed_tensor

    def count(self, images, **options):
        embedded.append(len(images))
        return real(self, images, **options)

    monkeypatch.setattr(Embedder, "embed_tensor", count)
    features = embed_images(embedder, crops, out, options=OPTIONS)
    assert embedded == [16] * 4
    assert equal(features, whole)
    assert all((out / name).stat().st_mtime_ns == at for name, at in kept.items())
    embedded.clear()
    assert equal(embed_images(embedder, crops, out, options=OPTIONS), whole)
    assert not embedded  # all was there


_CHILD = """
import sys, time
import polars as pl
from pathlib import Path
from resight.data.imageset import ImageSet
from resight.features.compute import EmbedOptions
from resight.features import write
from resight.models.embedder import Embedder

write.SHARD_ROWS = 64
root, model, table, out = sys.argv[1:]
images = ImageSet(pl.read_parquet(table), Path(root), "crops")
options = EmbedOptions(batch_size=16, workers=0)
slow = lambda done, total: time.sleep(30 if done else 0)  # so that it is killed after a shard
write.embed_images(Embedder.load(model, "cpu"), images, Path(out), options=options, progress=slow)
"""


def test_killed_and_started_again_gives_the_same(embedder, crops, whole, tmp_path):
    model, table, out = embedder.save(tmp_path / "e"), tmp_path / "crops.parquet", tmp_path / "f"
    crops.table.write_parquet(table)
    arguments = [str(crops.root), str(model), str(table), str(out)]
    child = subprocess.Popen([sys.executable, "-c", _CHILD, *arguments])
    end = time.monotonic() + 120
    while not (out / "shard-00000.npy").is_file() and time.monotonic() < end:
        assert child.poll() is None, "the child ended by itself"
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert (out / "shard-00000.npy").is_file() and not (out / "shard-00002.npy").is_file()
    with pytest.raises(UserError, match="not finished"):
        Features.load(out)
    first = (out / "shard-00000.npy").stat().st_mtime_ns
    assert equal(embed_images(embedder, crops, out, options=OPTIONS), whole)
    assert (out / "shard-00000.npy").stat().st_mtime_ns == first


@pytest.mark.parametrize("at", ["images", "embedder", "shard"])
def test_stopped_anywhere_it_goes_on(embedder, crops, whole, tmp_path, monkeypatch, at):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "images":
            patch.setattr(ImageSet, "write", stop)
        elif at == "embedder":
            patch.setattr(Embedder, "save", stop)
        else:
            patch.setattr(Embedder, "embed_tensor", stop)
        with pytest.raises(KeyboardInterrupt):
            embed_images(embedder, crops, tmp_path / "f", options=OPTIONS)
    assert equal(embed_images(embedder, crops, tmp_path / "f", options=OPTIONS), whole)
    assert Embedder.load(tmp_path / "f", "cpu").fingerprint() == embedder.fingerprint()


def test_float16(embedder, crops, whole, tmp_path):
    for out in (None, tmp_path / "f"):
        features = embed_images(embedder, crops, out, dtype="float16", options=OPTIONS)
        assert features.dtype == np.float16 and features[3:5].dtype == np.float16
        assert equal(features, whole.astype(np.float16))


def test_features_of_something_else_are_not_mixed(embedder, crops, whole, tmp_path):
    out = tmp_path / "f"
    embed_images(embedder, crops, out, options=OPTIONS)
    other = copy.deepcopy(embedder)
    with torch.no_grad():
        other.neck.weight[0] = 2
    relabelled = replace(crops, table=crops.table.with_columns(pl.lit("x").alias("object")))
    cases = [
        ("embedder", other, crops, {}),
        ("images", embedder, crops.rows(range(179)), {}),
        ("images", embedder, relabelled, {}),
        ("dtype", embedder, crops, {"dtype": "float16"}),
        ("flip", embedder, crops, {"options": replace(OPTIONS, flip=True)}),
        ("scales", embedder, crops, {"options": replace(OPTIONS, scales=(1, 0.5))}),
    ]
    for name, model, images, options in cases:
        with pytest.raises(UserError, match=f"holds features made with other {name};.*--force"):
            embed_images(model, images, out, **({"options": OPTIONS} | options))
    assert equal(Features.load(out), whole)
    flipped = embed_images(embedder, crops, out, options=replace(OPTIONS, flip=True), force=True)
    assert not np.allclose(np.asarray(flipped), whole)
    # Of the batch size and the workers the result does not depend.
    other_batches = replace(OPTIONS, flip=True, batch_size=7)
    embed_images(embedder, crops, out, options=other_batches)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_others_is_left_alone(embedder, crops, tmp_path, force):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        embed_images(embedder, crops, tmp_path, options=OPTIONS, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="is a file"):
        embed_images(embedder, crops, tmp_path / "thesis.txt", options=OPTIONS, force=force)


@pytest.fixture
def mixed(tmp_path) -> ImageSet:
    """Eight pictures, three of them unusable in different ways."""
    for k in range(8):
        picture(k, (40, 40)).save(tmp_path / f"{k}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:200])
    (tmp_path / "4.png").write_text("no picture at all")
    (tmp_path / "5.png").unlink()
    table = pl.DataFrame({"path": [f"{k}.png" for k in range(8)], "object": list("aabbccdd")})
    return ImageSet(normalise(table), tmp_path, "mixed")


@pytest.mark.parametrize("folder", [False, True], ids=["memory", "folder"])
def test_bad_images_are_marked_and_the_others_are_right(embedder, mixed, tmp_path, folder):
    out = tmp_path / "out" if folder else None
    features = embed_images(embedder, mixed, out, options=OPTIONS)
    good = [0, 1, 3, 6, 7]
    assert np.flatnonzero(features.valid).tolist() == good
    assert np.isnan(features[[2, 4, 5]]).all()
    expected = embedder.embed([mixed.full_paths()[row] for row in good], normalize=False)
    np.testing.assert_allclose(features[good], expected, rtol=1e-4, atol=1e-4)
    skipped = {Path(entry["path"]).name: entry["reason"] for entry in features.info["skipped"]}
    assert list(skipped) == ["2.png", "4.png", "5.png"]
    assert skipped["2.png"] == "truncated"
    assert skipped["4.png"] == "not an image of a known format"
    assert skipped["5.png"] == "no such file"
    assert np.array_equal(features.rows([1, 2]).valid, [True, False])


def test_strict_stops_at_the_first(embedder, mixed, tmp_path):
    with pytest.raises(UserError, match=r"2\.png: truncated \(--strict stops"):
        embed_images(embedder, mixed, options=replace(OPTIONS, strict=True))


def test_not_one_usable_image(embedder, mixed, tmp_path):
    for out in (None, tmp_path / "out"):
        with pytest.raises(UserError, match=r"none of its 3 images can be used .*truncated"):
            embed_images(embedder, mixed.rows([2, 4, 5]), out, options=OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_damaged_shard_is_made_anew_and_does_not_cost_the_others(
    embedder, crops, whole, tmp_path
):
    out = tmp_path / "f"
    embed_images(embedder, crops, out, options=OPTIONS)
    (out / "shard-00001.npy").write_bytes(b"")
    flip(out / "shard-00002.npy")
    kept, told = (out / "shard-00000.npy").stat().st_mtime_ns, []
    features = embed_images(embedder, crops, out, options=OPTIONS, tell=told.append)
    assert equal(features, whole) and equal(Features.load(out, check=True), whole)
    assert (out / "shard-00000.npy").stat().st_mtime_ns == kept
    assert len(told) == 2 and "shard-00002.npy: damaged" in told[1] and "anew" in told[1]


def test_a_damaged_table_is_written_anew(embedder, crops, tmp_path):
    out = tmp_path / "f"
    embed_images(embedder, crops, out, options=OPTIONS)
    (out / "images.parquet").write_bytes(b"PAR1")
    features = embed_images(embedder, crops, out, options=OPTIONS)
    assert features.images.table.drop("path").equals(crops.table.drop("path"))


def test_an_image_mended_in_place_is_no_longer_marked(embedder, tmp_path):
    """Of the same length, so that the set counts as the same; its shard is deleted by hand."""
    good = encoded(picture(1), "PNG")
    (tmp_path / "a.png").write_bytes(good)
    (tmp_path / "b.png").write_bytes(bytes(len(good)))
    images = load_images(tmp_path)
    features = embed_images(embedder, images, tmp_path / "f", options=OPTIONS)
    assert features.valid.tolist() == [True, False]
    (tmp_path / "b.png").write_bytes(good)
    (tmp_path / "f" / "shard-00000.npy").unlink()
    features = embed_images(embedder, images, tmp_path / "f", options=OPTIONS)
    assert features.valid.tolist() == [True, True] and features.info["skipped"] == []
    np.testing.assert_allclose(features[0:1], features[1:2], atol=1e-5)


def test_an_embedding_that_is_not_finite_is_a_bad_image(embedder, crops, monkeypatch):
    real = Embedder.embed_tensor

    def spoil(self, images, **options):
        vectors = real(self, images, **options).clone()
        vectors[2, 5] = torch.inf
        return vectors

    monkeypatch.setattr(Embedder, "embed_tensor", spoil)
    features = embed_images(embedder, crops.rows(range(16)), options=OPTIONS)
    assert np.flatnonzero(~features.valid).tolist() == [2]
    assert features.info["skipped"][0]["reason"] == "its embedding is not finite"


def test_the_batch_size_found_is_the_last_that_paid(embedder, monkeypatch):
    rates = {8: 100.0, 16: 180.0, 32: 260.0, 64: 262.0}
    monkeypatch.setattr(compute, "_rate", lambda _, size, __: rates[size])
    monkeypatch.setattr(type(embedder), "device", torch.device("cuda"))
    assert find_batch_size(embedder) == 32


@pytest.mark.parametrize(("side", "expected"), [(32, 64), (224, 32), (512, 4), (2048, 1)])
def test_on_a_cpu_the_batch_follows_from_the_pixels(embedder, monkeypatch, side, expected):
    """Not from timing: a busy machine must not change the last digits."""
    wide = embedder.preprocess.model_copy(update={"size": (side, side)})
    monkeypatch.setattr(type(embedder), "preprocess", wide)
    assert find_batch_size(embedder) == expected
