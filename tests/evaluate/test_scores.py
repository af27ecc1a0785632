"""The whole evaluation against loops, at image and at object level, up to Market size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import retrieval
from tests.oracles.sliced import OnlySlices

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.evaluate.protocols import Protocol
from resight.evaluate.scores import evaluate


def image_set(**columns) -> ImageSet:
    count = len(next(iter(columns.values())))
    frame = pl.DataFrame({"path": [f"{i}.jpg" for i in range(count)]} | columns, strict=False)
    return ImageSet(normalise(frame), Path("."))


def random_set(rng: np.random.Generator, count: int, roles: bool) -> ImageSet:
    pick = lambda values: [values[i] for i in rng.integers(0, len(values), count)]  # noqa: E731
    return image_set(
        object=pick(["a", "b", "c", "d", None]),
        camera=pick(["1", "2", "3", None]),
        role=pick(["query", "gallery", "both", None]) if roles else [None] * count,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cross_camera=st.booleans(),
    roles=st.booleans(),
    block_bytes=st.sampled_from([500, 2**24]),
)
def test_both_levels_equal_loops(seed, cross_camera, roles, block_bytes):
    rng = np.random.default_rng(seed)
    images = random_set(rng, 30, roles)
    features = rng.normal(size=(30, 4)).astype(np.float32)
    rows = images.table.to_dicts()
    asked = retrieval.lists(rows, cross_camera, roles)
    asked = [found for found in asked if found["positives"]]
    mode = "query-gallery" if roles else "leave-one-out"
    if not asked:
        return
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for level in ("image", "object"):
        protocol = Protocol(mode, level=level, cross_camera=cross_camera)
        scores = evaluate(features, images, protocol=protocol, block_bytes=block_bytes)
        expected = []
        for found in asked:
            if level == "object":
                expected.append(1 / retrieval.object_rank(features, rows, found, cross_camera))
                continue
            searched = [g for g in found["gallery"] if g not in found["junk"]]
            searched.sort(key=lambda g: -(unit[found["query"]] @ unit[g]))
            hits = [g in found["positives"] for g in searched]
            expected.append(retrieval.average_precision(hits))
        assert scores.per_query["row"].to_list() == [found["query"] for found in asked]
        np.testing.assert_allclose(scores.per_query["AP"], expected, atol=1e-12)


def test_market_size_equals_a_full_sort():
    """3,368 queries, 15,913 gallery images, 2,048 dimensions, 751 objects, 6 cameras.

    The oracle sorts every query's float64 similarities and walks down the list: once with unit
    rows on the grid, where every query must agree, and once with plain float64 unit rows, where
    a few pairs closer than the grid's 4e-9 change places.
    """
    rng = np.random.default_rng(0)
    queries, gallery = 3368, 15913
    count = queries + gallery
    objects = rng.integers(0, 751, count)
    cameras = rng.integers(0, 6, count)
    centre = rng.standard_normal((751, 2048), dtype=np.float32)
    features = centre[objects] + 3.6 * rng.standard_normal((count, 2048), dtype=np.float32)
    images = image_set(
        object=[str(o) if o else None for o in objects.tolist()],
        camera=cameras.astype(str),
        role=["query"] * queries + ["gallery"] * gallery,
    )
    scores = evaluate(features, images)
    assert scores.protocol.name == "cross-camera"
    assert 0.3 < scores.mAP < 0.8

    wide = features.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    grid = np.rint(wide * 2**26).astype(np.float32) / np.float32(2**26)
    asked = np.flatnonzero(objects[:queries])

    def oracle(rows: np.ndarray) -> list[float]:
        result = []
        for block in np.array_split(asked, 12):
            similarity = rows[block] @ rows[queries:].T
            for q, row in zip(block, similarity, strict=True):
                order = np.argsort(-row, kind="stable") + queries
                same = objects[order] == objects[q]
                hits = same[~(same & (cameras[order] == cameras[q]))]
                places = np.flatnonzero(hits) + 1
                if len(places):
                    result.append(float((np.arange(1, len(places) + 1) / places).mean()))
        return result

    expected = oracle(grid.astype(np.float64))
    np.testing.assert_allclose(scores.per_query["AP"], expected, rtol=1e-13)
    assert scores.mAP == pytest.approx(np.mean(expected), abs=1e-13)
    assert scores.mAP == pytest.approx(np.mean(oracle(wide)), abs=1e-7)


def test_summary_and_files(tmp_path):
    images = image_set(object=["a", "a", "b", "b", "c"], role=["query", "gallery"] * 2 + [None])
    features = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 1]])
    scores = evaluate(features, images)
    summary = scores.summary()
    assert summary["mAP"] == summary["R@1"] == summary["mINP"] == 1
    assert summary["queries"] == 2 and summary["queries_without_match"] == 1
    assert summary["gallery"] == 3 and summary["dropped"] == 0 and "note" not in summary
    assert summary["protocol"] == "query-gallery" and summary["ap"] == "rectangular"
    scores.save(tmp_path / "scores")
    stored = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert stored["summary"] == summary
    assert Protocol.from_dict(stored["protocol"]) == scores.protocol
    per_query = pl.read_parquet(tmp_path / "scores" / "per_query.parquet")
    assert per_query.equals(scores.per_query) and per_query["row"].to_list() == [0, 2]
    assert "not comparable" in evaluate(features, images, level="object").summary()["note"]


def test_bad_rows_are_named_or_dropped():
    images = image_set(object=["a", "a", "b", "b", "b"])
    features = np.random.default_rng(0).normal(size=(5, 3))
    features[3, 1] = np.nan
    with pytest.raises(UserError, match=r"row 3 \(3.jpg\)"):
        evaluate(features, images)
    for level in ("image", "object"):
        scores = evaluate(features, images, level=level, valid=np.arange(5) != 3)
        assert scores.summary()["dropped"] == 1 and scores.summary()["queries"] == 4
    with pytest.raises(UserError, match="one mark an image"):
        evaluate(features, images, valid=np.ones(4, dtype=bool))


def test_the_number_of_features_must_be_that_of_the_images():
    images = image_set(object=["a", "a", "b"])
    with pytest.raises(UserError, match="2 features for 3 images"):
        evaluate(np.ones((2, 4)), images)


def test_features_that_only_slice():
    rng = np.random.default_rng(1)
    images = random_set(rng, 60, True)
    features = rng.normal(size=(60, 4)).astype(np.float16)
    for level in ("image", "object"):
        one = evaluate(features, images, level=level)
        two = evaluate(OnlySlices(features), images, level=level)
        assert one.per_query.equals(two.per_query)


def test_importing_the_evaluation_brings_no_heavy_library():
    code = (
        "import sys, resight.evaluate.scores, resight.evaluate.report;"
        "print([n for n in ('torch', 'matplotlib', 'jinja2', 'PIL') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
