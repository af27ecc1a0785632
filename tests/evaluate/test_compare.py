"""Comparisons: the same queries, the right numbers, words that fit them, pages that stand alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from evaluations import PROTOCOL, evaluation, photos, ranks
from pages import Page
from resight.errors import UserError
from resight.evaluate.per_query import query_groups
from resight.evaluate.records.compare import compare, in_words, points, span
from resight.evaluate.records.record import load_record
from resight.evaluate.report.compare_page import write_compare_page
from resight.evaluate.report.runs_page import write_runs_page
from resight.evaluate.uncertainty import bootstrap, paired

HOSTILE = "<script>alert('1')</script>"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    return photos(tmp_path_factory.mktemp("photos"), 120, 20)


def test_numbers_are_means_differences_and_their_intervals(tmp_path, images):
    before, after = ranks(1, 120, 0.6), ranks(2, 120)
    a = evaluation(tmp_path / "a", images, before)
    order = np.random.default_rng(0).permutation(120)
    b = evaluation(tmp_path / "b", images, after[order], rows=order)  # rows in another order
    (one,), lines = compare([load_record(a), load_record(b)], ["a", "b"])
    assert lines == [] and one.notes == () and one.left_out == (0, 0)
    assert one.metrics == ("mAP", "R@1", "R@5", "R@10", "mINP")
    np.testing.assert_allclose(one.values[0], [*means(before), np.mean(1 / before)])
    np.testing.assert_allclose(one.values[1], [*means(after), np.mean(1 / after)])
    expected = paired(1 / before[None], 1 / after[None], np.arange(120) % 20)
    difference = one.differences[0]
    np.testing.assert_allclose(difference.mean[0], expected.mean[0])
    np.testing.assert_allclose(difference.interval[0], expected.interval[0])
    np.testing.assert_allclose(difference.p[0], expected.p[0])
    own = bootstrap(1 / before[None], np.arange(120) % 20)
    np.testing.assert_allclose(one.intervals[0, 0], own[0])
    np.testing.assert_allclose(one.moved(1), 1 / after - 1 / before)
    assert one.verdict(1).startswith(f"b is better: {points(difference.mean[0])} mAP [")


def means(first: np.ndarray) -> list[float]:
    return [np.mean(1 / first), *(np.mean(first <= k) for k in (1, 5, 10))]


def test_verdicts(tmp_path, images):
    first = ranks(1, 120)
    made = [
        load_record(evaluation(tmp_path / name, images, values))
        for name, values in (
            ("a", first), ("same", first), ("worse", first + 2), ("alike", ranks(5, 120)),
        )
    ]  # fmt: skip
    (one,), _ = compare(made, ["a", "same", "worse", "alike"])
    assert one.verdict(1) == "same and a are equal on every query"
    assert one.verdict(2).startswith("worse is worse: −")
    assert one.verdict(3).startswith("no difference that these queries can show between alike and")
    plain = one.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["metrics"][0]["differences"][0] == {
        "run": "same", "difference": 0.0, "p": 1.0, "interval": [0.0, 0.0],
    }  # fmt: skip


def test_different_queries_are_compared_on_those_in_common(tmp_path, images):
    a = evaluation(tmp_path / "a", images, ranks(1, 100), rows=range(100))
    b = evaluation(tmp_path / "b", images, ranks(2, 90), rows=range(30, 120))
    c = evaluation(tmp_path / "c", images, ranks(3, 120), data={"fingerprint": "0" * 64})
    (one,), _ = compare([load_record(f) for f in (a, b, c)], ["a", "b", "c"])
    assert one.left_out == (30, 20, 50) and one.tables[0].height == 70
    assert all(table["path"].equals(one.tables[0]["path"]) for table in one.tables)
    assert any("left out: 30 of a, 20 of b, 50 of c" in note for note in one.notes)
    assert any("00000000 of c" in note for note in one.notes)
    np.testing.assert_allclose(one.values[0, 0], np.mean(1 / ranks(1, 100)[30:]))


@pytest.mark.parametrize("same", ["written", "name"])
def test_a_set_that_moved_is_still_the_same(tmp_path, images, same):
    """Absolute paths differ; paths as they stand in the set, or else names and objects, agree."""
    a = evaluation(tmp_path / "a", images, ranks(1, 120))
    b = evaluation(tmp_path / "b", images, ranks(2, 120))
    for folder in (a, b):
        table = pl.read_parquet(folder / "images.parquet")
        names = pl.col("path").str.split("/").list.last()
        table.with_columns(f"/{folder.name}/" + names).write_parquet(folder / "images.parquet")
        if same == "name":
            file = folder / "market1501" / "per_query.parquet"
            pl.read_parquet(file).with_columns(path=f"{folder.name}/" + names).write_parquet(file)
    (one,), _ = compare([load_record(a), load_record(b)], ["a", "b"])
    assert one.left_out == (0, 0)


def test_boxes_and_repeats_tell_queries_apart(tmp_path, images):
    boxes = [[0.0, 0.0, 9.0, float(9 + i % 3)] for i in range(120)]
    table = images.with_columns(pl.Series("box", boxes), path=images["path"].gather([0] * 120))
    table = table.with_columns(pl.Series("path", [images["path"][i // 3] for i in range(120)]))
    a = evaluation(tmp_path / "a", table, ranks(1, 60), rows=range(60))
    b = evaluation(tmp_path / "b", table, ranks(2, 60), rows=range(59, -1, -1))
    for folder, turn in ((a, 1), (b, -1)):
        file = folder / "market1501" / "per_query.parquet"
        twice = [0, 1][::turn]
        pl.concat(
            pl.read_parquet(file).with_columns(repeat=pl.lit(r, pl.Int64)) for r in twice
        ).write_parquet(file)
    (one,), _ = compare([load_record(a), load_record(b)], ["a", "b"])
    assert one.left_out == (0, 0) and one.tables[0].height == 120
    assert one.tables[1]["row"].equals(one.tables[0]["row"])
    assert one.tables[1]["repeat"].equals(one.tables[0]["repeat"])


def test_what_cannot_be_compared(tmp_path, images):
    a = evaluation(tmp_path / "a", images, ranks(1, 120))
    other = PROTOCOL | {"ties": "optimistic", "notes": ["why"]}
    b = evaluation(tmp_path / "b", images, ranks(2, 120), protocol=other)
    both = [load_record(a), load_record(b)]
    with pytest.raises(UserError, match=r"market1501: another protocol in b than in a.*optimistic"):
        compare(both, ["a", "b"])
    for folder in (a, b):
        evaluation(folder, images, ranks(3, 120), protocol=PROTOCOL | {"name": "second"})
    both = [load_record(a), load_record(b)]
    (one,), lines = compare(both, ["a", "b"])
    assert one.protocol == "second" and len(lines) == 1
    with pytest.raises(UserError, match="--protocol third: not in all: a has market1501, second"):
        compare(both, ["a", "b"], "third")
    c = evaluation(tmp_path / "c", images, ranks(2, 120), protocol=PROTOCOL | {"name": "x"})
    with pytest.raises(UserError, match="no protocol in common: a has market1501"):
        compare([load_record(a), load_record(c)], ["a", "c"])
    with pytest.raises(UserError, match="two evaluations are needed"):
        compare(both[:1], ["a"])


def test_no_query_in_common_and_rows_that_are_not_there(tmp_path, images):
    a = evaluation(tmp_path / "a", images, ranks(1, 60), rows=range(60))
    b = evaluation(tmp_path / "b", images, ranks(2, 60), rows=range(60, 120))
    with pytest.raises(UserError, match="a and b have no query in common"):
        compare([load_record(a), load_record(b)], ["a", "b"])
    images[:30].write_parquet(a / "images.parquet")
    with pytest.raises(UserError, match=r"rows are not those of its images\.parquet"):
        compare([load_record(a), load_record(b)], ["a", "b"])


def test_scores_that_are_no_plain_mean_are_named(tmp_path, images):
    records = []
    for name in ("a", "b"):
        folder = evaluation(tmp_path / name, images, ranks(1, 120))
        content = json.loads((folder / "scores.json").read_text())
        content["scores"][0]["mAP"] += 0.1
        (folder / "scores.json").write_text(json.dumps(content))
        records.append(load_record(folder))
    (one,), _ = compare(records, ["a", "b"])
    assert len(one.notes) == 2 and "not the plain mean" in one.notes[0]


def test_means_by_a_column(tmp_path, images):
    before, after = ranks(1, 120), ranks(2, 120)
    folders = [evaluation(tmp_path / n, images, r) for n, r in (("a", before), ("b", after))]
    (one,), _ = compare([load_record(f) for f in folders], ["a", "b"])
    assert one.columns() == ["object", "camera", "category"]
    table = one.by("camera", 1)
    assert table["difference"].is_sorted(descending=True) and table["queries"].to_list() == 3 * [40]
    row = table.row(by_predicate=pl.col("name") == "c1", named=True)
    assert row["before"] == pytest.approx(np.mean(1 / before[1::3]))
    assert row["after"] == pytest.approx(np.mean(1 / after[1::3]))
    with pytest.raises(UserError, match=r"--by colour: .* they have: object, camera, category"):
        one.by("colour", 1)


def test_queries_that_do_not_count_change_nothing(tmp_path, images):
    """A query without a match (open set) has AP NaN and no first rank."""
    made = []
    for i in range(2):
        folder = evaluation(tmp_path / str(i), images, ranks(i, 120))
        file = folder / "market1501" / "per_query.parquet"
        lost = pl.col("row") < 30
        pl.read_parquet(file).with_columns(
            pl.when(lost).then(float("nan")).otherwise("AP").alias("AP"),
            pl.when(lost).then(None).otherwise("first_rank").alias("first_rank"),
        ).write_parquet(file)
        made.append(load_record(folder))
    (one,), _ = compare(made, ["a", "b"])
    np.testing.assert_allclose(one.values[0, :4], means(ranks(0, 120)[30:]))
    assert one.by("camera", 1)["queries"].to_list() == [30, 30, 30]
    write_compare_page(tmp_path / "page.html", [one], made)


def test_queries_of_unknown_object_stand_for_themselves():
    table = pl.DataFrame({"object": ["a", None, "b", "a", None]})
    groups = query_groups(table)
    assert len(set(groups.tolist())) == 4 and groups[0] == groups[3]
    bare = pl.DataFrame({"object": [None, None, None], "row": [4, 5, 4]})
    assert query_groups(bare[:2]) is None
    assert query_groups(bare).tolist() == [4, 5, 4]  # an image that queries twice


def test_numbers_in_words():
    assert [points(x) for x in (0.0134, -0.0134, 0.0001, -0.0001)] == ["+1.3", "−1.3", "0.0", "0.0"]
    assert span((-0.001, 0.02)) == "[−0.1, 2.0]" and span((float("nan"), 1)) == "[–]"
    assert points(0.0134, 2) == "+1.34" and span((0, 0.00004), 2) == "[0.00, 0.00]"
    assert [in_words(p) for p in (0.00001, 0.0123, 0.5, 1)] == [
        "p < .001", "p = .012", "p = .50", "p = 1",
    ]  # fmt: skip
    assert in_words(0.00001, "") == "< .001" and in_words(0.25, "") == ".25"


def stands_alone(text: str) -> Page:
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and HOSTILE not in text
    assert all(a.startswith(("data:image/jpeg;base64,", "#")) for a in page.addresses)
    return page


def test_the_page_of_a_comparison(tmp_path, images):
    table = images.with_columns(pl.col("object").str.replace("object 03", HOSTILE, literal=True))
    made = [
        load_record(evaluation(tmp_path / str(i), table, ranks(i, 120, 0.3 * i))) for i in range(3)
    ]
    comparisons, _ = compare(made, ["a", "b", f"c{HOSTILE}"])
    path = write_compare_page(
        tmp_path / "page.html", comparisons, made, by=["object", "category"], lines=["x: differs"]
    )
    text = path.read_text()
    page = stands_alone(text)
    assert page.tags.count("svg") == 3 and "&lt;script&gt;" in text
    assert comparisons[0].verdict(1)[1:] in text and "Not compared: x: differs." in text
    assert text.count("gained most, a →") == 2 and "no picture" not in text
    assert "<th>category</th>" in text and "<th>camera</th>" not in text
    with pytest.raises(UserError, match="--by size"):
        write_compare_page(tmp_path / "no.html", comparisons, made, by=["size"])


def test_the_page_without_pictures_objects_and_best_hits(tmp_path, images):
    bare = images.with_columns(
        pl.lit(None, pl.String).alias("object"), pl.lit(None, pl.String).alias("camera"),
        path="/gone" + pl.col("path"),
    )  # fmt: skip
    made = []
    for i in range(2):
        folder = evaluation(tmp_path / str(i), bare, ranks(i, 40))
        file = folder / "market1501" / "per_query.parquet"
        none = pl.lit(None, pl.Int64)
        pl.read_parquet(file).with_columns(right=none, wrong=none).write_parquet(file)
        made.append(load_record(folder))
    comparisons, _ = compare(made, ["a", "b"])
    text = write_compare_page(tmp_path / "page.html", comparisons, made).read_text()
    stands_alone(text)
    assert "no picture" in text and "AP before" not in text


def test_equal_runs_and_a_single_query_make_a_page(tmp_path, images):
    made = [load_record(evaluation(tmp_path / str(i), images, [3])) for i in range(2)]
    comparisons, _ = compare(made, ["a", "b"])
    assert comparisons[0].verdict(1) == "b and a are equal on every query"
    text = write_compare_page(tmp_path / "page.html", comparisons, made).read_text()
    assert "[–]" in text and "gained most" not in text


def test_the_page_of_runs_has_published_figures_where_there_are_any(tmp_path, images):
    legacy = PROTOCOL | {"name": "market1501-centroid-legacy"}
    made = []
    for name in ("a", "b"):
        folder = evaluation(tmp_path / name, images, ranks(ord(name), 120))
        evaluation(folder, images, ranks(3, 120), protocol=legacy)
        made.append(folder)
    evaluation(made[1], images, ranks(4, 120), protocol=PROTOCOL | {"name": "query-gallery"})
    records = [load_record(folder) for folder in made]
    text = write_runs_page(tmp_path / "page.html", records, ["a", HOSTILE]).read_text()
    stands_alone(text)
    assert text.count("Published, and ours") == 2 and text.count("85.4") == 1
    first, second = text.split("<h2>market1501-centroid-legacy</h2>")
    assert "unverified</span>" not in first and "unverified</span>" in second
    assert "98.7" in second and "98.7" not in first
    for record in records:
        summary = record.summaries["market1501"]
        low, high = record.interval("market1501", "mAP")
        assert f"{100 * summary['mAP']:.1f}" in first and span((low, high)) in first
    assert "resight evaluate b" in text and "python 3.11" in text
    with pytest.raises(ValueError, match="at least one"):
        write_runs_page(tmp_path / "none.html", [], [])


def test_the_page_of_runs_says_what_differs(tmp_path, images):
    a = evaluation(tmp_path / "a", images, ranks(1, 120), data={"fingerprint": "1" * 64})
    b = evaluation(tmp_path / "b", images, ranks(2, 120), protocol=PROTOCOL | {"ap": "trapezoidal"})
    records = [load_record(a), load_record(b)]
    text = write_runs_page(Path(tmp_path / "page.html"), records, ["a", "b"]).read_text()
    assert "Another protocol of the same name in b than in a." in text
    assert "11111111 of a, ffffffff of b" in text
