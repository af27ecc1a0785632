"""Searches within a value, random galleries, subsets, listed positives, open sets: by loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.oracles import retrieval

from pictures import save
from resight.data.imageset import ImageSet, normalise
from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.protocols import Protocol
from resight.evaluate.scores import Scores, evaluate

Row = dict[str, Any]
LEVELS = st.sampled_from(["image", "object"])


def image_set(rows: list[Row]) -> ImageSet:
    named = [{"path": f"{i}.jpg"} | row for i, row in enumerate(rows)]
    return ImageSet(normalise(pl.DataFrame(named, infer_schema_length=None)), Path("."))


def pick(rng: np.random.Generator, *values: Any) -> Any:
    return values[rng.integers(len(values))]


def ap_of(features: np.ndarray, query: int, gallery: list[int], right: set[int]) -> float:
    """Of one query in a gallery without its junk."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    order = sorted(gallery, key=lambda g: -(unit[query] @ unit[g]))
    return retrieval.average_precision([g in right for g in order])


def ranked(features: np.ndarray, rows: list[Row], roles: bool, rule: bool = False) -> dict:
    """AP of each query row that has a match, among these rows alone."""
    return {
        one["query"]: ap_of(
            features,
            one["query"],
            [g for g in one["gallery"] if g not in one["junk"]],
            set(one["positives"]),
        )
        for one in retrieval.lists(rows, rule, roles)
        if one["positives"]
    }


def ap_by_row(scores: Scores) -> dict[int, float]:
    return dict(scores.per_query.select("row", "AP").iter_rows())


def close(found: dict[int, float], expected: dict[int, float]) -> None:
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-12)


# Within a column's value


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), roles=st.booleans(), level=LEVELS)
def test_within_is_one_search_a_value(seed, roles, level):
    """Objects may be of several categories; rows of none take no part."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = [
        {
            "object": pick(rng, "a", "b", "c", None),
            "camera": None,
            "role": pick(rng, "query", "gallery", "both") if roles else None,
            "category": pick(rng, "bag", "shoe", "Hat", None),
        }
        for _ in range(45)
    ]
    features = rng.normal(size=(45, 3)).astype(np.float32)
    by_value: dict[str, dict[int, float]] = {}
    for value in ("Hat", "bag", "shoe"):
        own = [i for i, row in enumerate(rows) if row["category"] == value]
        inside = [rows[i] for i in own]
        if level == "image":
            found = ranked(features[own], inside, roles)
        else:
            found = {
                one["query"]: 1 / retrieval.object_rank(features[own], inside, one, False)
                for one in retrieval.lists(inside, False, roles)
                if one["positives"]
            }
        if found:
            by_value[value] = {own[i]: ap for i, ap in found.items()}
    assume(by_value)
    protocol = Protocol(
        "query-gallery" if roles else "leave-one-out",
        level=level,
        within="category",
    )
    scores = evaluate(features, image_set(rows), protocol=protocol)
    expected = {row: ap for part in by_value.values() for row, ap in part.items()}
    close(ap_by_row(scores), expected)
    table = scores.per_query
    assert [rows[i]["category"] for i in table["row"]] == table["within"].to_list()
    groups = scores.summary()["groups"]
    assert list(groups) == [*by_value, "mean"]
    means = []
    for value, part in by_value.items():
        assert groups[value]["queries"] == len(part)
        means.append(np.mean(list(part.values())))
        assert groups[value]["mAP"] == pytest.approx(means[-1], abs=1e-12)
    assert groups["mean"]["mAP"] == pytest.approx(np.mean(means), abs=1e-12)  # each value once
    assert scores.mAP == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    first = dict(zip(table["row"], table["first_rank"], strict=True))
    hits = [np.mean([first[i] == 1 for i in part]) for part in by_value.values()]
    assert groups["mean"]["R@1"] == pytest.approx(np.mean(hits), abs=1e-12)


def test_within_needs_its_column():
    with pytest.raises(UserError, match=r"no column 'colour' to stay within; path, .*kind"):
        evaluate(
            np.eye(2),
            image_set([{"object": "a", "kind": "x"}] * 2),
            protocol=Protocol("leave-one-out", within="colour"),
        )


# Random galleries


def random_rows(rng: np.random.Generator, roles: bool) -> list[Row]:
    return [
        {
            "object": pick(rng, "a", "b", "c", "d", None),
            "camera": None,
            "role": pick(rng, "query", "gallery", "both", None) if roles else None,
        }
        for _ in range(30)
    ]


def draws(scores: Scores) -> list[tuple[list[int], list[int]]]:
    """Queries and gallery rows of each draw."""
    return [(p.matches.queries.tolist(), p.matches.gallery.tolist()) for p in scores.parts]


@pytest.mark.parametrize("roles", [False, True])
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_random_galleries(roles, images, seed):
    """VehicleID's ten repeats; and single-shot, where only rows of role gallery are drawn."""
    rng = np.random.default_rng([seed, images])
    rows = random_rows(rng, roles)
    rows += [{"object": "alone", "camera": None, "role": None}]
    features = rng.normal(size=(len(rows), 3)).astype(np.float32)
    everyone = range(len(rows))
    searched = [i for i in everyone if not roles or rows[i]["role"] != "query"]
    asking = [i for i in everyone if not roles or rows[i]["role"] != "gallery"]
    distractors = [i for i in searched if rows[i]["object"] is None]
    mode = "query-gallery" if roles else "leave-one-out"
    protocol = Protocol(mode, gallery_images=images, repeats=10, seed=seed)
    scores = evaluate(features, image_set(rows), protocol=protocol)
    assert scores.per_query["repeat"].unique(maintain_order=True).to_list() == list(range(10))
    for repeat, (queries, gallery) in enumerate(draws(scores)):
        chosen = [g for g in gallery if rows[g]["object"] is not None]
        assert sorted(chosen + distractors) == gallery and set(chosen) <= set(searched)
        for name in ("a", "b", "c", "d", "alone"):
            number = sum(rows[i]["object"] == name for i in searched)
            assert sum(rows[g]["object"] == name for g in chosen) == min(images, number)
        expected = {}
        for q in asking:
            if rows[q]["object"] is None or (not roles and q in chosen):
                continue
            right = {g for g in chosen if rows[g]["object"] == rows[q]["object"] and g != q}
            if right:
                expected[q] = ap_of(features, q, [g for g in gallery if g != q], right)
        assert queries == list(expected)
        own = scores.per_query.filter(repeat=repeat)
        close(dict(own.select("row", "AP").iter_rows()), expected)
    assert len({tuple(gallery) for _, gallery in draws(scores)}) > 1
    assert scores.mAP == pytest.approx(scores.per_query["AP"].mean(), abs=1e-12)


def test_the_seed_decides_the_draw():
    rng = np.random.default_rng(0)
    images = image_set(random_rows(rng, False))
    features = rng.normal(size=(30, 3))

    def drawn(seed: int, repeats: int = 10) -> list:
        protocol = Protocol("leave-one-out", gallery_images=1, repeats=repeats, seed=seed)
        return draws(evaluate(features, images, protocol=protocol))

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)
    assert drawn(3, 4) == drawn(3)[:4]  # more repeats leave the first ones as they are


def test_every_image_is_as_likely_to_be_drawn():
    images = image_set([{"object": name} for name in "abab" * 2])
    protocol = Protocol("leave-one-out", gallery_images=1, repeats=200)
    scores = evaluate(np.random.default_rng(0).normal(size=(8, 3)), images, protocol=protocol)
    times = np.bincount([g for _, gallery in draws(scores) for g in gallery], minlength=8)
    assert times.sum() == 400 and (abs(times - 50) < 25).all()  # 4 standard deviations


def test_a_draw_within_each_value_and_of_test_rows_only():
    rng = np.random.default_rng(5)
    rows = [
        {"object": f"o{i % 3}", "split": ["test", "train"][i // 24], "kind": "xy"[i // 3 % 2]}
        for i in range(36)
    ]
    protocol = Protocol(
        "leave-one-out", gallery_images=1, repeats=3, within="kind", split="test"
    )  # fmt: skip
    scores = evaluate(rng.normal(size=(36, 3)), image_set(rows), protocol=protocol)
    assert [(part.repeat, part.value) for part in scores.parts] == [
        (repeat, value) for repeat in range(3) for value in "xy"
    ]
    for part in scores.parts:
        gallery = [rows[g] for g in part.matches.gallery]
        assert sorted(row["object"] for row in gallery) == ["o0", "o1", "o2"]
        queries = [rows[q] for q in part.matches.queries]
        assert len(queries) == 12 - 3
        assert {(row["kind"], row["split"]) for row in gallery + queries} == {(part.value, "test")}
    assert scores.summary()["groups"]["x"]["queries"] == 27


# Subsets


@pytest.mark.parametrize(
    ("values", "condition"),
    [
        ([True, False, None], "small"), (["true", "no", None], "small"),
        (["Yes", "", "n"], "small"),
        (["1", "0", None], "small"), ([1, 0, None], "small"), (["a", "b", None], "small=a"),
        ([3, 4, None], " small = 3 "), ([True, False, None], "small=true"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("which", ["rows", "queries"])
def test_subsets(values, condition, which):
    """The first of the values is in, the others are out."""
    rng = np.random.default_rng(len(condition))
    plain = {"camera": None, "role": None}
    rows = [
        plain | {"object": pick(rng, "a", "b", None), "small": pick(rng, *values)}
        for _ in range(40)
    ]
    features = rng.normal(size=(40, 3)).astype(np.float32)
    inside = [i for i, row in enumerate(rows) if row["small"] == values[0]]
    protocol = Protocol("leave-one-out", **{which: condition})
    scores = evaluate(features, image_set(rows), protocol=protocol)
    if which == "rows":
        expected = ranked(features[inside], [rows[i] for i in inside], False)
        expected = {inside[i]: ap for i, ap in expected.items()}
        assert scores.gallery == len(inside)
    else:
        expected = {q: ap for q, ap in ranked(features, rows, False).items() if q in inside}
        assert scores.gallery == 40
    close(ap_by_row(scores), expected)


def test_a_subset_needs_its_column():
    images = image_set([{"object": "a", "size": "s"}] * 2)
    for which in ("rows", "queries"):
        with pytest.raises(UserError, match=r"no column 'small' for 'small=1'; .* path, .*size"):
            evaluate(np.eye(2), images, protocol=Protocol("leave-one-out", **{which: "small=1"}))


# Listed positives and junk


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), form=st.sampled_from(["list", "text"]), both=st.booleans())
def test_listed_positives_and_junk(seed, form, both):
    """Names may stand twice, be positive and junk (then positive), or be of no gallery row."""
    rng = np.random.default_rng(seed)
    count = 24
    rows: list[Row] = []
    for i in range(count):
        lists = {
            name: [f"n{g}" for g in rng.integers(0, count + 4, rng.integers(0, 6))]
            for name in ("easy", "hard", "junk")
        }
        role = pick(rng, "query", "gallery", "both") if both else pick(rng, "query", "gallery")
        rows.append({"object": None, "role": role, "name": f"n{i}"} | lists)
    features = rng.normal(size=(count, 3)).astype(np.float32)
    gallery = [i for i in range(count) if rows[i]["role"] != "query"]
    expected: dict[int, float] = {}
    found_positives = []
    for q in range(count):
        if rows[q]["role"] == "gallery":
            continue
        named = {name: [int(n[1:]) for n in rows[q][name]] for name in ("easy", "hard", "junk")}
        right = {g for g in named["easy"] + named["hard"] if g in gallery and g != q}
        junk = {g for g in named["junk"] if g not in right} | {q}
        if right:
            searched = [g for g in gallery if g not in junk]
            expected[q] = ap_of(features, q, searched, right)
            found_positives.append((len(right), len(searched)))
    assume(expected)
    if form == "text":
        for row in rows:
            for name, mark in (("easy", ";"), ("hard", "; "), ("junk", " ;")):
                row[name] = mark.join(row[name]) or None
    else:
        for row in rows[::5]:
            row["junk"] = row["junk"] or None
    table = pl.DataFrame(rows, infer_schema_length=None)
    if form == "list":
        lists_of_text = [pl.col(name).cast(pl.List(pl.String)) for name in ("easy", "hard", "junk")]
        table = table.with_columns(lists_of_text)
    else:
        table = table.with_columns(pl.col("easy", "hard", "junk").cast(pl.String))
    images = ImageSet(normalise(table.with_columns(path=pl.col("name") + ".jpg")), Path("."))
    protocol = Protocol("query-gallery", positives=("easy", "hard"), junk=("junk",))
    scores = evaluate(features, images, protocol=protocol)
    close(ap_by_row(scores), expected)
    assert list(scores.per_query.select("positives", "gallery").iter_rows()) == found_positives


def test_lists_of_a_csv_file(tmp_path):
    """The whole way from text; a gallery photo may match many queries."""
    lines = ["path,role,name,positives,junk,usage"]
    lines += ["a.jpg,query,,7;8,9,public", "b.jpg,query,,8,,private", "c.jpg,query,,77,,public"]
    lines += [f"{n}.jpg,gallery,{n},,," for n in (7, 8, 9, 10)]
    (tmp_path / "set.csv").write_text("\n".join(lines) + "\n")
    save(tmp_path / "a.jpg")
    images = load_images(tmp_path / "set.csv")
    turns = np.radians([0, 0, 0, 40, 20, 10, 30])
    features = np.stack((np.cos(turns), np.sin(turns)), axis=1)
    protocol = Protocol("query-gallery", positives=("positives",), junk=("junk",))
    scores = evaluate(features, images, protocol=protocol)
    # a: 8, 10, 7 without 9. b: 9, 8.
    assert ap_by_row(scores) == pytest.approx({0: (1 + 2 / 3) / 2, 1: 1 / 2})
    assert scores.per_query["gallery"].to_list() == [3, 4]
    assert scores.summary()["queries_without_match"] == 1
    one = Protocol("query-gallery", positives=("positives",), queries="usage=private")
    assert ap_by_row(evaluate(features, images, protocol=one)) == {1: 1 / 2}


def test_mistakes_in_lists():
    rows: list[Row] = [
        {"role": "query", "name": "q", "positives": ["x"], "number": 1},
        {"role": "gallery", "name": "x", "positives": None, "number": 2},
        {"role": "gallery", "name": "y", "positives": None, "number": 3},
    ]

    def fails(match: str, rows: list[Row], **values: Any) -> None:
        protocol = Protocol.from_dict({"mode": "query-gallery", "positives": "positives"} | values)
        with pytest.raises(UserError, match=match) as caught:
            evaluate(np.eye(3), image_set(rows), protocol=protocol)
        assert "\n" not in str(caught.value)

    fails("no column 'easy'", rows, positives="easy")
    fails("no column 'hard'", rows, junk="hard")
    fails("column 'number' is no list of names but Int64", rows, positives="number")
    unnamed = [{k: v for k, v in row.items() if k != "name"} for row in rows]
    fails("there is no column 'name'", unnamed)
    fails("two gallery rows are named 'x'", [rows[0], rows[1], rows[1]])
    fails("the names in positives are not those of gallery rows", [rows[0], rows[2], rows[2] | {
        "name": "z"}])  # fmt: skip
    for values in ({"level": "object"}, {"cross_camera": True}, {"templates": "t"}):
        with pytest.raises(UserError, match="listed positives go with image level"):
            Protocol.from_dict({"mode": "query-gallery", "positives": "p"} | values)


# Open sets


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), level=LEVELS, rule=st.booleans())
def test_queries_without_a_match_stay_in_an_open_set(seed, level, rule):
    """With the camera rule, also those whose object is there, but by their own camera alone."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = [
        {"object": pick(rng, *"abcdefg"), "camera": pick(rng, *"12", None), "role": "query"}
        for _ in range(25)
    ]
    rows += [
        {"object": pick(rng, *"abcd", None), "camera": pick(rng, *"12"), "role": "gallery"}
        for _ in range(15)
    ]
    features = rng.normal(size=(40, 3)).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    lists = retrieval.lists(rows, rule, True)
    assume(any(one["positives"] for one in lists))
    answers = []  # similarity of the first hit, whether it is right, whether there is a match
    for one in lists:
        q, gallery = one["query"], [g for g in one["gallery"] if g not in one["junk"]]
        if level == "image":
            columns = {g: unit[g] for g in gallery}
            right = set(one["positives"])
        else:
            names = {rows[g]["object"] or g for g in gallery}
            groups = {n: [g for g in gallery if n in (rows[g]["object"], g)] for n in names}
            columns = {n: features[g].astype(float).mean(axis=0) for n, g in groups.items()}
            columns = {n: vector / np.linalg.norm(vector) for n, vector in columns.items()}
            right = {rows[q]["object"]} if one["positives"] else set()
        best = max(columns, key=lambda c, q=q, columns=columns: unit[q] @ columns[c])
        answers.append((unit[q] @ columns[best], best in right, bool(right)))
    protocol = Protocol("query-gallery", level=level, cross_camera=rule, open_set=True)
    scores = evaluate(features, image_set(rows), protocol=protocol)
    table, summary = scores.per_query, scores.summary()
    assert table["row"].to_list() == list(range(25)) and summary["queries"] == 25
    mated = np.array([answer[2] for answer in answers])
    assert (table["positives"] > 0).to_list() == mated.tolist()
    assert summary["queries_without_match"] == (~mated).sum()
    assert np.isnan(table["AP"].to_numpy()[~mated]).all()
    assert table["first_rank"].null_count() == (~mated).sum()
    assert ((table["first_rank"] == 1).fill_null(False)).to_list() == [a[1] for a in answers]
    # The means are over the mated alone, as without the open set.
    closed = evaluate(features, image_set(rows), protocol=replace(protocol, open_set=False))
    assert closed.per_query.height == mated.sum()
    for name in closed.names():
        assert summary[name] == pytest.approx(closed.summary()[name], abs=1e-12)
    for rate in (0.001, 0.01, 0.1):
        found = summary[f"DIR@FAR={rate:g}"]
        best_share = 0.0
        for threshold in [a[0] for a in answers] + [-np.inf]:
            alarms = sum(a[0] >= threshold and not a[2] for a in answers)
            if alarms <= rate * (~mated).sum():
                taken = sum(a[0] >= threshold and a[1] for a in answers)
                best_share = max(best_share, taken / mated.sum())
        if (~mated).any():
            assert found == pytest.approx(best_share, abs=1e-12)
        else:
            assert np.isnan(found)
    order = sorted(answers, key=lambda a: -a[0])
    right_so_far, total = 0, 0.0
    for place, answer in enumerate(order, start=1):
        right_so_far += answer[1]
        total += answer[1] * right_so_far / place
    assert summary["GAP"] == pytest.approx(total / mated.sum(), abs=1e-12)


def test_rows_that_are_searched_besides():
    """Train row 3 joins the gallery by its mark, and stands before the test's own match.

    A row that isn't usable doesn't, and marked rows never query.
    """
    frame = pl.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(5)],
            "object": ["a", "a", "b", "c", "d"],
            "split": ["test", "test", "test", "train", "val"],
            "role": ["query", "gallery", "gallery", None, None],
            "more": ["no", "no", "no", "yes", "yes"],
        }
    )
    turns = np.radians([0, 30, 60, 10, 20])
    features = np.stack((np.cos(turns), np.sin(turns)), axis=1)
    images = ImageSet(normalise(frame), Path("."))
    protocol = Protocol("query-gallery", split="test", gallery="more=yes")
    for valid, rank in ((np.ones(5, bool), 3), (np.arange(5) != 3, 2)):
        scores = evaluate(features, images, protocol=protocol, valid=valid)
        assert scores.per_query["first_rank"].to_list() == [rank]
        assert scores.gallery == rank + 1
    plain = evaluate(features, images, protocol=Protocol("query-gallery", split="test"))
    assert plain.per_query["first_rank"].to_list() == [1] and plain.gallery == 2
