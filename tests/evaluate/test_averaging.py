"""Templates and averaged queries against loops over the photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.oracles import retrieval
from tests.oracles.sliced import OnlySlices

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.evaluate.protocols import Protocol
from resight.evaluate.scores import evaluate

Row = dict[str, Any]
COLUMNS = ("path", "object", "camera", "split", "role", "template", "track")


def image_set(rows: list[Row]) -> ImageSet:
    named = [{"path": f"{i}.jpg"} | row for i, row in enumerate(rows)]
    table = pl.DataFrame(named, schema=dict.fromkeys(COLUMNS, pl.String))
    return ImageSet(normalise(table), Path("."))


def averaged(
    features: np.ndarray, rows: list[Row], members: list[int], columns: list[str]
) -> list[Row]:
    """One entry a row that stays and one an average, each with its vector and first row."""
    groups: dict[tuple, list[int]] = {}
    for i in members:
        key = tuple(rows[i].get(name) for name in ("object", *columns))
        if None not in key:
            groups.setdefault(key, []).append(i)
    gone = {i for group in groups.values() for i in group}
    entries = [
        rows[i] | {"row": i, "vector": features[i].astype(float)}
        for i in range(len(rows))
        if i not in gone
    ]
    for group in sorted(groups.values()):
        total = np.zeros(features.shape[1])
        for i in group:
            total += features[i].astype(float)
        cameras = {rows[i].get("camera") for i in group}
        entries.append(
            rows[group[0]]
            | {"row": group[0], "vector": total / len(group)}
            | {"camera": cameras.pop() if len(cameras) == 1 else None}
        )
    return entries


def results(entries: list[Row], cross_camera: bool, roles: bool) -> list[Row]:
    """Row, AP and positives of every entry that has a match."""
    unit = [entry["vector"] / np.linalg.norm(entry["vector"]) for entry in entries]
    found = []
    for one in retrieval.lists(entries, cross_camera, roles):
        if not one["positives"]:
            continue
        searched = [g for g in one["gallery"] if g not in one["junk"]]
        searched.sort(key=lambda g, q=one["query"]: -(unit[q] @ unit[g]))
        ap = retrieval.average_precision([g in one["positives"] for g in searched])
        row = entries[one["query"]]["row"]
        found.append({"row": row, "AP": ap, "positives": len(one["positives"])})
    return found


def check(scores, expected: list[Row]) -> None:
    found = scores.per_query
    assert found["row"].to_list() == [one["row"] for one in expected]
    assert found["positives"].to_list() == [one["positives"] for one in expected]
    np.testing.assert_allclose(found["AP"], [one["AP"] for one in expected], atol=1e-12)
    assert scores.mAP == pytest.approx(np.mean([one["AP"] for one in expected]), abs=1e-12)


def pick(rng: np.random.Generator, *values: str | None) -> str | None:
    return values[rng.integers(len(values))]


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    min_images=st.integers(1, 5),
    block_bytes=st.sampled_from([300, 2**24]),
    only_slices=st.booleans(),
)
def test_templates_equal_loops(seed, min_images, block_bytes, only_slices):
    """Leave one out of averages and lone rows; objects with too few are gone, distractors stay."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = [
        {
            "object": pick(rng, "a", "b", "c", None),
            "camera": None,
            "split": pick(rng, "test", "test", "test", "train"),
            "role": None,
            "template": pick(rng, "1", "2", "3", "4", None),
        }
        for _ in range(40)
    ]
    features = rng.normal(size=(40, 3)).astype(np.float32)
    inside = [i for i in range(40) if rows[i]["split"] == "test"]
    entries = averaged(features, rows, inside, ["template"])
    entries = [entry for entry in entries if entry["split"] == "test"]
    number = {name: sum(e["object"] == name for e in entries) for name in "abc"}
    kept = [e for e in entries if e["object"] is None or number[e["object"]] >= min_images]
    expected = results(kept, False, False)
    protocol = Protocol(
        "leave-one-out", split="test", templates="template", min_images=min_images
    )  # fmt: skip
    images = image_set(rows)
    given_rows = OnlySlices(features) if only_slices else features
    if not expected:
        with pytest.raises(UserError):
            evaluate(given_rows, images, protocol=protocol)
        return
    scores = evaluate(given_rows, images, protocol=protocol, block_bytes=block_bytes)
    check(scores, expected)
    assert scores.gallery == len(kept)
    for one in scores.per_query.iter_rows(named=True):  # hits are pictured by rows of the set
        assert rows[one["right"]]["object"] == one["object"]
        assert one["wrong"] is None or rows[one["wrong"]]["object"] != one["object"]


def test_min_images_counts_usable_rows_without_templates():
    rows = [{"object": name} for name in "aaabbbcc"]
    features = np.random.default_rng(0).normal(size=(8, 3))
    protocol = Protocol("leave-one-out", min_images=3)
    scores = evaluate(features, image_set(rows), protocol=protocol)
    assert scores.per_query["row"].to_list() == [0, 1, 2, 3, 4, 5] and scores.gallery == 6
    usable = np.arange(8) != 4  # then b has two
    scores = evaluate(features, image_set(rows), protocol=protocol, valid=usable)
    assert scores.per_query["row"].to_list() == [0, 1, 2] and scores.gallery == 3
    assert scores.dropped == 1
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate(features, image_set(rows), protocol=Protocol("leave-one-out", min_images=4))


def test_an_average_is_of_features_as_they_are():
    """A long and a short photo at 0 and 90 degrees: the mean is nearer to the long one."""
    rows = [{"object": "a", "template": "v"}] * 2 + [{"object": "a"}, {"object": "b"}]
    angle = np.degrees(np.arctan2(1, 3))  # of (3, 0) + (0, 1)
    turns = np.radians([angle + 20, angle - 19])
    features = np.array([[3, 0], [0, 1], *zip(np.cos(turns), np.sin(turns), strict=True)])
    protocol = Protocol("leave-one-out", templates="template")
    table = evaluate(features, image_set(rows), protocol=protocol).per_query
    assert dict(zip(table["row"], table["first_rank"], strict=True)) == {2: 1, 0: 2}
    spoiled = features.copy()
    spoiled[1, 0] = np.nan
    with pytest.raises(UserError, match="NaN"):  # of a member
        evaluate(spoiled, image_set(rows), protocol=protocol)
    usable = np.array([True, False, True, True])
    scores = evaluate(spoiled, image_set(rows), protocol=protocol, valid=usable)
    assert scores.dropped == 1 and scores.per_query["first_rank"].to_list() == [1, 2]


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    cross_camera=st.booleans(),
    block_bytes=st.sampled_from([300, 2**24]),
)
def test_averaged_queries_equal_loops(seed, cross_camera, block_bytes):
    """By object and camera; queries of unknown camera or object are not averaged."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = [
        {
            "object": pick(rng, "a", "b", "c", None),
            "camera": pick(rng, "1", "2", "3", None),
            "role": pick(rng, "query", "gallery"),
        }
        for _ in range(40)
    ]
    features = rng.normal(size=(40, 3)).astype(np.float32)
    asking = [i for i in range(40) if rows[i]["role"] == "query"]
    entries = averaged(features, rows, asking, ["camera"])
    expected = results(entries, cross_camera, True)
    assume(expected)
    protocol = Protocol("query-gallery", cross_camera=cross_camera, multi_query=("camera",))
    scores = evaluate(features, image_set(rows), protocol=protocol, block_bytes=block_bytes)
    check(scores, expected)
    assert scores.gallery == 40 - len(asking)  # the gallery is as it was


@pytest.mark.parametrize("seed", range(10))
def test_averaged_over_cameras_and_two_columns(seed):
    rng = np.random.default_rng(seed)
    rows: list[Row] = [
        {
            "object": pick(rng, "a", "b"),
            "camera": pick(rng, "1", "2"),
            "role": pick(rng, "query", "gallery"),
            "track": pick(rng, "x", "y", None),
        }
        for _ in range(40)
    ]
    features = rng.normal(size=(40, 3)).astype(np.float32)
    asking = [i for i in range(40) if rows[i]["role"] == "query"]
    for columns in (["track"], ["camera", "track"]):
        protocol = Protocol("query-gallery", multi_query=tuple(columns))
        entries = averaged(features, rows, asking, columns)
        check(evaluate(features, image_set(rows), protocol=protocol), results(entries, False, True))
    protocol = Protocol("query-gallery", multi_query=("track",), cross_camera=True)
    with pytest.raises(UserError, match=r"query around \d+.jpg is averaged over several cameras"):
        evaluate(features, image_set(rows), protocol=protocol)


def test_nothing_to_average_changes_nothing():
    rows = [{"object": name, "role": role} for name in "aabb" for role in ("query", "gallery")]
    features = np.random.default_rng(1).normal(size=(8, 3))
    plain = evaluate(features, image_set(rows), protocol=Protocol("query-gallery"))
    same = evaluate(
        features, image_set(rows), protocol=Protocol("query-gallery", multi_query=("track",))
    )
    assert plain.per_query.equals(same.per_query)


def test_mistakes():
    rows = [{"object": "a", "camera": "1", "role": role} for role in ("query", "both", "gallery")]
    features = np.eye(3)

    def fails(match: str, rows: list[Row], **values: Any) -> None:
        with pytest.raises(UserError, match=match) as caught:
            evaluate(features, image_set(rows), protocol=Protocol("query-gallery", **values))
        assert "\n" not in str(caught.value)

    fails("no column 'trak' to average by; there are path, .*track", rows, multi_query=("trak",))
    fails("no column 'video' to average by", rows, templates="video")
    fails("queries of role query, not in the gallery", rows, multi_query=("camera",))
    nobody = [row | {"role": None} for row in rows]
    fails("queries of role query", nobody, multi_query=("camera",))
    for values in ({"mode": "leave-one-out"}, {"templates": "t"}, {"positives": "p"}):
        with pytest.raises(UserError, match="multi_query goes with query-gallery"):
            Protocol.from_dict({"mode": "query-gallery", "multi_query": "camera"} | values)
