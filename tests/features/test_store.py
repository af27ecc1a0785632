"""Features on disk: rows as of one array, whatever the shards; damage is a clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.damage import flip

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.features.compute import EmbedOptions
from resight.features.store import Features, is_features
from resight.features.write import embed_images


def features(rows: int, per_shard: int) -> tuple[Features, np.ndarray]:
    """Features in shards, and the one array that they stand for."""
    whole = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    table = normalise(pl.DataFrame({"path": [str(row) for row in range(rows)]}))
    shards = tuple(whole[start : start + per_shard] for start in range(0, rows, per_shard))
    return Features(ImageSet(table, Path()), shards, np.ones(rows, bool)), whole


sizes = st.tuples(st.integers(1, 23), st.integers(1, 9))
edge = st.none() | st.integers(-30, 30)


@settings(max_examples=200, deadline=None)
@given(size=sizes, start=edge, stop=edge, step=st.none() | st.integers(-5, 5).filter(bool))
def test_slices(size, start, stop, step):
    sharded, whole = features(*size)
    rows = slice(start, stop, step)
    got = sharded[rows]
    assert got.dtype == whole.dtype
    np.testing.assert_array_equal(got, whole[rows])


@settings(max_examples=200, deadline=None)
@given(size=sizes, data=st.data())
def test_arrays_of_rows(size, data):
    sharded, whole = features(*size)
    rows = data.draw(st.lists(st.integers(-size[0], size[0] - 1), max_size=30))
    wanted = whole[np.array(rows, dtype=int)]
    np.testing.assert_array_equal(sharded[rows], wanted)
    np.testing.assert_array_equal(sharded[np.array(rows, dtype=np.int32)], wanted)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size[0], max_size=size[0])))
    np.testing.assert_array_equal(sharded[mask], whole[mask])
    some = sharded.rows([row % size[0] for row in rows]) if rows else None
    if some is not None:
        np.testing.assert_array_equal(some[:], wanted)
        assert some.images.table["path"].to_list() == [str(row % size[0]) for row in rows]


def test_rows_that_are_not_there():
    sharded, whole = features(10, 4)
    for rows in ([10], [-11], [0, 99], np.ones(9, bool), np.ones(11, bool)):
        with pytest.raises(IndexError):
            whole[np.asarray(rows)]
        with pytest.raises(IndexError):
            sharded[rows]


@pytest.mark.parametrize("per_shard", [4, 10], ids=["shards", "one shard"])
def test_as_an_array(per_shard):
    sharded, whole = features(10, per_shard)
    assert sharded.shape == whole.shape and sharded.ndim == 2 and len(sharded) == 10
    np.testing.assert_array_equal(np.asarray(sharded), whole)
    half = np.asarray(sharded, dtype=np.float16)
    assert half.dtype == np.float16
    copy = np.array(sharded)
    copy[:] = -1
    np.testing.assert_array_equal(np.asarray(sharded), whole)


@pytest.fixture(scope="module")
def written(embedder, crops, small_shards, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("features") / "f"
    embed_images(embedder, crops, out, options=EmbedOptions(batch_size=16, workers=0))
    return out


@pytest.fixture
def folder(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "f"))


def test_the_vectors_stay_on_disk(folder):
    loaded = Features.load(str(folder))
    assert is_features(folder)
    assert [len(shard) for shard in loaded.shards] == [64, 64, 52]
    assert all(isinstance(shard, np.memmap) for shard in loaded.shards)
    assert isinstance(loaded[10:20], np.memmap)  # a part of a shard is a view
    with pytest.raises(ValueError, match="read-only"):
        loaded[10:20][0] = 0
    assert loaded.shape == (180, 96) and loaded.dtype == np.float32
    np.testing.assert_array_equal(
        loaded[np.arange(180)], np.concatenate([np.asarray(shard) for shard in loaded.shards])
    )


def test_the_photos_need_not_be_there_any_more(folder):
    images = pl.read_parquet(folder / "images.parquet")
    images.with_columns(path="/gone/" + pl.col("path")).write_parquet(folder / "images.parquet")
    with pytest.raises(UserError, match=r"images.parquet: damaged, not what .*of your own beside"):
        Features.load(folder)
    without_sums(folder)
    loaded = Features.load(folder)
    assert loaded.shape == (180, 96)
    assert loaded.images.objects() == sorted(images["object"].unique())


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda f: (f / "shard-00001.npy").unlink(), "shard-00001.npy: this shard is gone"),
        (
            lambda f: (f / "shard-00001.npy").write_bytes(
                (f / "shard-00001.npy").read_bytes()[:900]
            ),
            "shard-00001.npy: damaged shard",
        ),
        (lambda f: (f / "shard-00001.npy").write_bytes(b""), "shard-00001.npy: damaged shard"),
        (
            lambda f: shutil.copy(f / "shard-00002.npy", f / "shard-00001.npy"),
            "shard-00001.npy: of another size",
        ),
        (lambda f: (f / "features.json").write_text("[]"), "features.json: damaged"),
        (lambda f: (f / "features.json").write_text("{}"), "features.json: damaged"),
        (lambda f: (f / "features.json").write_text("{"), "features.json: not valid JSON"),
        (lambda f: (f / "features.json").unlink(), "a features folder was expected here"),
        (lambda f: (f / "images.parquet").write_bytes(b"PAR1"), "images.parquet: damaged"),
        (lambda f: flip(f / "images.parquet", -2000), "images.parquet: damaged"),
        (lambda f: (f / "images.parquet").unlink(), "images.parquet: damaged"),
    ],
)
def test_damage_is_one_clear_line(folder, damage, text):
    damage(folder)
    with pytest.raises(UserError) as error:
        Features.load(folder)
    assert text in str(error.value) and "\n" not in str(error.value)


def without_sums(folder: Path) -> None:
    """As versions before checksums wrote it."""
    record = json.loads((folder / "features.json").read_text())
    del record["sums"]
    (folder / "features.json").write_text(json.dumps(record))


def test_a_flipped_bit_is_told_where_all_is_read(folder):
    whole = np.asarray(Features.load(folder, check=True)).copy()
    flip(folder / "shard-00001.npy")
    assert not np.array_equal(np.asarray(Features.load(folder)), whole)
    with pytest.raises(UserError) as error:
        Features.load(folder, check=True)
    assert "shard-00001.npy: damaged, not what was written" in str(error.value)
    assert "run the same 'resight embed' again" in str(error.value)
    without_sums(folder)
    assert Features.load(folder, check=True).shape == whole.shape


def test_bytes_too_many_and_another_type_are_told(folder):
    with (folder / "shard-00001.npy").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=r"shard-00001.npy: of another size or type"):
        Features.load(folder)
    np.save(folder / "shard-00001.npy", np.load(folder / "shard-00000.npy").astype(np.float16))
    with pytest.raises(UserError, match=r"shard-00001.npy: of another size or type"):
        Features.load(folder)


def test_unfinished_features_are_not_opened(folder):
    record = json.loads((folder / "features.json").read_text()) | {"complete": False}
    (folder / "features.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="not finished; run the same 'resight embed' again"):
        Features.load(folder)
