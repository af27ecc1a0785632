"""The legacy centroids against a row-by-row transcription of what the released code does.

And object level without legacy against a loop over images, on the same kind of sets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.oracles import retrieval

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.evaluate.catalogue import ENTRIES
from resight.evaluate.protocols import Protocol
from resight.evaluate.scores import evaluate

Row = dict[str, Any]


def image_set(rows: list[Row]) -> ImageSet:
    named = [{"path": f"{i}.jpg"} | row for i, row in enumerate(rows)]
    schema = dict.fromkeys(("path", "object", "camera", "role"), pl.String)
    return ImageSet(normalise(pl.DataFrame(named, schema=schema)), Path("."))


def legacy_results(features: np.ndarray, rows: list[Row], loo: bool) -> list[Row]:
    """For each query that has a centroid left: its row, AP, first rank and columns searched."""
    everyone = range(len(rows))
    queries = [i for i in everyone if rows[i]["object"] and (loo or rows[i]["role"] == "query")]
    gallery = [i for i in everyone if loo or rows[i]["role"] == "gallery"]
    # First fault: gallery image number i gets the camera of row number i of both together.
    together = [rows[i]["camera"] for i in queries] + [rows[i]["camera"] for i in gallery]
    camera_read = {g: together[number] for number, g in enumerate(gallery)}
    # Second fault: only objects that somebody asks for have centroids.
    centroids: list[tuple[str, set[str], np.ndarray]] = []
    for name in sorted({rows[q]["object"] for q in queries}):
        images = [g for g in gallery if rows[g]["object"] == name]
        for camera in sorted({rows[q]["camera"] for q in queries if rows[q]["object"] == name}):
            left = [g for g in images if camera_read[g] != camera]
            cameras = {camera_read[g] for g in left}
            if left and (name, cameras) not in [(n, c) for n, c, _ in centroids]:
                total = np.zeros(features.shape[1])
                for g in left:
                    total += features[g].astype(float)
                centroids.append((name, cameras, total / len(left)))
    results = []
    for q in queries:
        own = rows[q]["object"], rows[q]["camera"]
        seen = [(n, v) for n, used, v in centroids if n != own[0] or own[1] not in used]
        vector = features[q].astype(float)
        order = sorted(seen, key=lambda one: -(vector @ one[1]) / np.linalg.norm(one[1]))
        hits = [name == own[0] for name, _ in order]
        if any(hits):
            ap = retrieval.average_precision(hits)
            results.append(
                {"row": q, "AP": ap, "first_rank": hits.index(True) + 1, "gallery": len(hits)}
            )
    return results


def random_rows(rng: np.random.Generator, count: int, objects: int, cameras: int) -> list[Row]:
    """Queries and gallery, every query with a match; some objects nobody asks for."""
    rows: list[Row] = [
        {
            "object": None if rng.random() < 0.1 else f"o{rng.integers(objects)}",
            "camera": f"c{rng.integers(cameras)}",
            "role": "query" if rng.random() < 0.35 else "gallery",
        }
        for _ in range(count)
    ]
    for row in rows:
        if row["object"] == "o0":  # nobody asks for it
            row["role"] = "gallery"
    asking = {one["query"] for one in retrieval.lists(rows, True, True) if one["positives"]}
    return [row for i, row in enumerate(rows) if row["role"] == "gallery" or i in asking]


LEGACY = Protocol("query-gallery", level="object", cross_camera=True, legacy=True)


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(8, 50),
    objects=st.integers(2, 7),
    cameras=st.integers(2, 6),
    block_bytes=st.sampled_from([300, 2**24]),
)
def test_legacy_equals_its_transcription(seed, count, objects, cameras, block_bytes):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, count, objects, cameras)
    assume(any(row["role"] == "query" for row in rows))
    features = rng.normal(size=(len(rows), 3)).astype(np.float32)
    expected = legacy_results(features, rows, loo=False)
    if not expected:  # the wrong cameras may leave nothing
        return
    scores = evaluate(features, image_set(rows), protocol=LEGACY, block_bytes=block_bytes)
    found = scores.per_query
    for name in ("row", "first_rank", "gallery"):
        assert found[name].to_list() == [one[name] for one in expected]
    np.testing.assert_allclose(found["AP"], [one["AP"] for one in expected], atol=1e-12)
    assert scores.mAP == pytest.approx(np.mean([one["AP"] for one in expected]), abs=1e-12)
    for k in (1, 2, 5):
        assert scores.recall(k) == np.mean([one["first_rank"] <= k for one in expected])
    asked = sum(row["role"] == "query" for row in rows)
    assert scores.summary()["queries_without_match"] == asked - len(expected)


@pytest.mark.parametrize("seed", range(5))
def test_legacy_leave_one_out(seed):
    """Everyone asks and is searched: "row i of both together" is then the right row."""
    rng = np.random.default_rng(seed)
    rows = [{"object": f"o{i % 5}", "camera": f"c{i // 5 % 4}", "role": None} for i in range(40)]
    rng.shuffle(rows)
    features = rng.normal(size=(40, 3)).astype(np.float32)
    protocol = Protocol("leave-one-out", level="object", cross_camera=True, legacy=True)
    found = evaluate(features, image_set(rows), protocol=protocol).per_query
    expected = legacy_results(features, rows, loo=True)
    assert found["first_rank"].to_list() == [one["first_rank"] for one in expected]
    np.testing.assert_allclose(found["AP"], [one["AP"] for one in expected], atol=1e-12)


def test_both_faults_by_hand():
    """Query: a by camera 1, at 0 degrees. Gallery: a/1 at 0, a/2 at 80, distractor z/2 at 10.

    Rightly a's centroid is a/2 alone, at 80, behind z: rank 2. The released code reads the cameras
    1, 1 and 2 off the rows query, a/1, a/2 and so keeps neither image of a: no match is left. With
    a query of b before it the rows read are 3, 1, 1, and a/1, by the query's own camera, remains;
    nobody asks for z, so it is gone: rank 1.
    """
    rows: list[Row] = [
        {"object": "a", "camera": "1", "role": "query"},
        {"object": "a", "camera": "1", "role": "gallery"},
        {"object": "a", "camera": "2", "role": "gallery"},
        {"object": "z", "camera": "2", "role": "gallery"},
    ]
    b: list[Row] = [
        {"object": "b", "camera": "3", "role": "query"},
        {"object": "b", "camera": "1", "role": "gallery"},
    ]

    def turned(*degrees: float) -> np.ndarray:
        turns = np.radians(degrees)
        return np.stack((np.cos(turns), np.sin(turns)), axis=1)

    right = Protocol("query-gallery", level="object", cross_camera=True)
    scores = evaluate(turned(0, 0, 80, 10), image_set(rows), protocol=right)
    assert scores.per_query["first_rank"].to_list() == [2]
    with pytest.raises(UserError, match="no query has a match among the legacy centroids"):
        evaluate(turned(0, 0, 80, 10), image_set(rows), protocol=LEGACY)
    rows, features = [b[0], *rows, b[1]], turned(170, 0, 0, 80, 10, 170)
    assert legacy_results(features, rows, loo=False)[-1]["first_rank"] == 1
    table = evaluate(features, image_set(rows), protocol=LEGACY).per_query
    mine = table.row(by_predicate=pl.col("object") == "a", named=True)
    assert mine["first_rank"] == 1 and mine["right"] == 2 and mine["gallery"] == 2
    table = evaluate(features, image_set(rows), protocol=right).per_query
    assert table.row(by_predicate=pl.col("object") == "a", named=True)["first_rank"] == 2


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    cross_camera=st.booleans(),
    block_bytes=st.sampled_from([300, 2**24]),
)
def test_object_level_equals_loops(seed, cross_camera, block_bytes):
    """Unknown objects and cameras, rows of both roles, objects that nobody asks for."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = [
        {
            "object": None if rng.random() < 0.1 else f"o{rng.integers(8)}",
            "camera": None if rng.random() < 0.1 else f"c{rng.integers(4)}",
            "role": ["query", "gallery", "both", None][rng.integers(4)],
        }
        for _ in range(40)
    ]
    features = rng.normal(size=(40, 3)).astype(np.float32)
    asked = [one for one in retrieval.lists(rows, cross_camera, True) if one["positives"]]
    assume(asked)
    protocol = Protocol("query-gallery", level="object", cross_camera=cross_camera)
    scores = evaluate(features, image_set(rows), protocol=protocol, block_bytes=block_bytes)
    found = scores.per_query
    expected = [retrieval.object_rank(features, rows, one, cross_camera) for one in asked]
    assert found["row"].to_list() == [one["query"] for one in asked]
    assert found["first_rank"].to_list() == expected
    np.testing.assert_allclose(found["AP"], 1 / np.array(expected), rtol=1e-15)
    assert (found["positives"] == 1).all()
    searched = asked[0]["gallery"]
    columns = {rows[g]["object"] or g for g in searched}
    assert scores.gallery == len(columns) and (found["gallery"] == len(columns)).all()
    for one in found.iter_rows(named=True):  # the pictures that stand for objects are theirs
        assert rows[one["right"]]["object"] == one["object"]
        assert one["wrong"] is None or rows[one["wrong"]]["object"] != one["object"]


def test_every_legacy_number_says_so():
    rng = np.random.default_rng(0)
    rows = random_rows(rng, 60, 5, 4)
    scores = evaluate(rng.normal(size=(len(rows), 3)), image_set(rows), protocol=LEGACY)
    summary = scores.summary()
    numbers = [name for name, value in summary.items() if isinstance(value, float)]
    assert len(numbers) >= 8 and all("legacy" in name for name in numbers + scores.names())
    assert all("legacy" in name for name in summary["intervals"])
    assert "legacy" in summary["primary"] and "LEGACY" in summary["title"]
    assert "released code" in summary["note"]
    for entry in ENTRIES:
        one = entry.protocol
        assert one.legacy == ("legacy" in one.name) == ("legacy" in one.metric)
        assert not (one.legacy and entry.default), "legacy is never chosen by itself"


@pytest.mark.parametrize(
    "values",
    [
        {"level": "image", "cross_camera": True}, {"level": "object"},
        {"level": "object", "cross_camera": True, "open_set": True},
        {"level": "object", "cross_camera": True, "pairs": True},
        {"level": "object", "cross_camera": True, "multi_query": ["camera"]},
    ],
)  # fmt: skip
def test_what_legacy_does_not_go_with(values):
    with pytest.raises(UserError, match="legacy"):
        Protocol.from_dict({"mode": "query-gallery", "legacy": True} | values)


def test_queries_without_a_match_still_shift_the_cameras():
    """Row i of queries and gallery together: cameras 3, 1 (queries), then 1, 2, 2 (gallery).

    The gallery's three images are read as cameras 3, 1, 1: for query a/1 the image a/1 (read as 3)
    is kept, a/2 (read as 1) is not. So its centroid is the very image that its camera took.
    """
    frame = pl.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(5)],
            "object": ["b", "a", "a", "a", "z"],
            "camera": ["3", "1", "1", "2", "2"],
            "role": ["query", "query", "gallery", "gallery", "gallery"],
        }
    )
    features = np.array([[0, 1], [1, 0], [1, 0.1], [0, 1], [0.5, 0.5]])
    legacy = Protocol("query-gallery", level="object", cross_camera=True, legacy=True)
    scores = evaluate(features, ImageSet(normalise(frame), Path(".")), protocol=legacy)
    assert scores.per_query["path"].to_list() == ["1.jpg"]
    assert scores.per_query["first_rank"].to_list() == [1]
    assert scores.summary()["queries_without_match"] == 1
    assert scores.per_query["right"].to_list() == [2]
