"""Tables over seeds: numbers known by hand, the same queries, a page that tells all."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluations import PROTOCOL, evaluation, photos, ranks
from pages import Page
from resight.errors import UserError
from resight.evaluate.records.groups import compare_groups, group_table, holm
from resight.evaluate.records.record import Record, load_record
from resight.evaluate.report.groups_page import Part, write_groups_page, write_parts_page
from resight.evaluate.uncertainty import bootstrap, paired

HOSTILE = "<script>alert('$1')</script>"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    return photos(tmp_path_factory.mktemp("photos"), 120, 20)


def runs(folder: Path, images: pl.DataFrame, *firsts: Sequence[int] | np.ndarray) -> list[Record]:
    """Evaluations of one method, one for each list of first ranks."""
    return [
        load_record(evaluation(folder / str(seed), images, first))
        for seed, first in enumerate(firsts)
    ]


def change(record: Record, **columns: pl.Expr) -> Record:
    """The record with other columns in the results of its queries."""
    file = record.folder / "market1501" / "per_query.parquet"
    pl.read_parquet(file).with_columns(**columns).write_parquet(file)
    return load_record(record.folder)


def test_means_spread_and_exact_p_by_hand(tmp_path, images):
    """Six queries of three objects (rows 0-2 twice): AP is 1 / rank, all counted by hand."""
    six = images[[0, 1, 2, 20, 21, 22]].with_columns(object=pl.Series(list("abcabc")))
    a = runs(tmp_path / "a", six, [1, 2, 4, 1, 2, 4], [2, 2, 4, 2, 2, 4])
    b = runs(tmp_path / "b", six, [1, 1, 2, 1, 1, 2], [1, 1, 1, 1, 1, 1], [1, 2, 2, 1, 2, 2])
    (one,) = compare_groups({"a": a, "b": b})
    assert one.metrics == ("mAP", "R@1", "R@5", "R@10", "mINP") and one.baseline == "a"
    assert (one.queries, one.drawn, one.over) == (6, 3, "objects")
    of_a = [(1 + 0.5 + 0.25) / 3, (0.5 + 0.5 + 0.25) / 3]
    of_b = [(1 + 1 + 0.5) / 3, 1, (1 + 0.5 + 0.5) / 3]
    np.testing.assert_allclose(one.runs[0][:, 0], of_a)
    np.testing.assert_allclose(one.runs[1][:, 0], of_b)
    np.testing.assert_allclose(one.mean[:, 0], [statistics.mean(of_a), statistics.mean(of_b)])
    np.testing.assert_allclose(one.sd[:, 0], [statistics.stdev(of_a), statistics.stdev(of_b)])
    # Per object, averaged over runs: a .75 .5 .25, b 1 .8333 .6667: b is above in all three, so
    # only 2 of the 8 patterns of signs give as much.
    assert one.differences[1].p[0] == pytest.approx(2 / 8)
    assert one.differences[1].mean[0] == pytest.approx((0.25 + 1 / 3 + 5 / 12) / 3)
    assert np.isnan(one.differences[0].p).all() and np.isnan(one.holm[0]).all()
    # R@5 is 1 everywhere: no spread, no difference.
    assert one.sd[:, 2].tolist() == [0, 0] and one.differences[1].p[2] == 1
    assert one.intervals[:, 2].tolist() == [[1, 1], [1, 1]]


def test_intervals_and_tests_are_those_of_the_seed_averages(tmp_path, images):
    firsts = {"a": [ranks(s, 120, 0.4) for s in (1, 2)], "b": [ranks(s, 120) for s in (3, 4, 5)]}
    groups = {name: runs(tmp_path / name, images, *some) for name, some in firsts.items()}
    (one,) = compare_groups(groups, baseline="b")
    mean = {name: np.mean([1 / f for f in some], axis=0)[None] for name, some in firsts.items()}
    objects = np.arange(120) % 20
    for k, name in enumerate("ab"):
        np.testing.assert_allclose(one.intervals[k, 0], bootstrap(mean[name], objects)[0])
    expected = paired(mean["b"], mean["a"], objects)
    np.testing.assert_allclose(one.differences[0].interval[0], expected.interval[0])
    np.testing.assert_allclose(one.differences[0].p[0], expected.p[0])
    np.testing.assert_allclose(one.differences[0].mean, one.mean[0] - one.mean[1])
    # One comparison: nothing to correct.
    np.testing.assert_array_equal(one.holm[0], one.differences[0].p)


def test_the_order_of_rows_runs_and_methods_changes_nothing(tmp_path, images):
    firsts = [ranks(s, 120, 0.1 * s) for s in range(5)]
    plain = {"a": runs(tmp_path / "a", images, *firsts[:3])}
    plain["b"] = runs(tmp_path / "b", images, *firsts[3:])
    order = np.random.default_rng(0).permutation(120)
    mixed = [
        load_record(evaluation(tmp_path / "c" / str(i), images, first[order], rows=order))
        for i, first in enumerate(firsts)
    ]
    (one,) = compare_groups(plain)
    (two,) = compare_groups({"b": mixed[:2:-1], "a": mixed[2::-1]}, baseline="a")
    np.testing.assert_allclose(one.mean, two.mean[::-1])
    np.testing.assert_allclose(one.sd, two.sd[::-1])
    np.testing.assert_allclose(one.intervals, two.intervals[::-1])
    np.testing.assert_allclose(one.differences[1].p, two.differences[0].p)


def test_one_run_a_method_has_no_spread(tmp_path, images):
    groups = {name: runs(tmp_path / name, images, ranks(i, 120)) for i, name in enumerate("ab")}
    (one,) = compare_groups(groups)
    assert np.isnan(one.sd).all() and not np.isnan(one.intervals).any()
    rows = group_table(groups)
    assert rows[0]["sd"] is None and rows[0]["runs"] == 1 and rows[0]["p"] is None
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    text = write_groups_page(tmp_path / "page.html", groups).read_text()
    assert "how much depends on the seed is not known" in text and " ± " not in text


def test_a_single_method_is_a_table_too(tmp_path, images):
    groups = {"a": runs(tmp_path, images, ranks(1, 120), ranks(2, 120))}
    (one,) = compare_groups(groups)
    assert one.holm.shape == (1, 5)
    text = write_groups_page(tmp_path / "page.html", groups).read_text()
    assert "More than" not in text and "<b>" not in text.split("</header>")[1]


def test_flat_rows(tmp_path, images):
    groups = {name: runs(tmp_path / name, images, ranks(i, 120)) for i, name in enumerate("ab")}
    rows = group_table(groups)
    (one,) = compare_groups(groups)
    assert [(r["metric"], r["method"]) for r in rows[:4]] == [
        ("mAP", "a"), ("mAP", "b"), ("R@1", "a"), ("R@1", "b"),
    ]  # fmt: skip
    second = rows[3]
    assert second["mean"] == one.mean[1, 1] and second["p"] == one.differences[1].p[1]
    assert [second["low"], second["high"]] == one.intervals[1, 1].tolist()
    assert second["values"] == one.runs[1][:, 1].tolist() and second["baseline"] == "a"


def test_the_primary_metric_comes_first_and_numbers_over_all_have_no_interval(tmp_path, images):
    made = []
    for seed in range(4):
        folder = evaluation(tmp_path / str(seed), images, ranks(seed, 120))
        content = json.loads((folder / "scores.json").read_text())
        content["scores"][0] |= {"primary": "R@10", "µAP": 0.2 + 0.1 * seed}
        (folder / "scores.json").write_text(json.dumps(content))
        made.append(load_record(folder))
    (one,) = compare_groups({"a": made[:2], "b": made[2:]})
    assert one.metrics == ("R@10", "mAP", "R@1", "R@5", "mINP", "µAP")
    np.testing.assert_allclose(one.mean[:, 5], [0.25, 0.45])
    np.testing.assert_allclose(one.sd[:, 5], [np.sqrt(0.005), np.sqrt(0.005)])
    assert np.isnan(one.intervals[:, 5]).all() and np.isnan(one.differences[1].p[5])
    text = write_groups_page(tmp_path / "page.html", {"a": made[:2], "b": made[2:]}).read_text()
    assert Page(text).tags.count("svg") == 3  # R@10, mAP and R@1
    assert "25.0 ± 7.1" in text and "nan" not in text.lower().replace("nance", "")


def test_a_query_counts_where_it_counts_in_every_run(tmp_path, images):
    firsts = [ranks(s, 120) for s in range(3)]
    made = runs(tmp_path, images, *firsts)
    lost = pl.col("row") < 30
    made[1] = change(made[1], AP=pl.when(lost).then(float("nan")).otherwise("AP"))
    (one,) = compare_groups({"a": made[:2], "b": made[2:]})
    np.testing.assert_allclose(
        np.concatenate(one.runs)[:, 0], [np.mean(1 / first[30:]) for first in firsts]
    )
    np.testing.assert_allclose(one.differences[1].mean[0], one.mean[1, 0] - one.mean[0, 0])
    assert any("mAP is the plain mean over queries here" in note for note in one.notes)


def test_no_query_counts(tmp_path, images):
    nan = pl.lit(float("nan"))
    made = [change(one, AP=nan, INP=nan) for one in runs(tmp_path, images, [1, 2], [2, 2])]
    groups = {"a": made[:1], "b": made[1:]}
    (one,) = compare_groups(groups)
    assert np.isnan(one.intervals).all() and np.isnan(one.differences[1].p).all()
    write_groups_page(tmp_path / "page.html", groups)


def test_queries_that_differ_are_refused(tmp_path, images):
    a = runs(tmp_path / "a", images, ranks(1, 120), ranks(2, 120))
    short = load_record(evaluation(tmp_path / "b", images, ranks(3, 100), rows=range(100)))
    with pytest.raises(UserError, match=r"queries differ, 20 of a, run 1 are not in all runs"):
        compare_groups({"a": a, "b": [short]})
    other = load_record(
        evaluation(tmp_path / "c", images, ranks(1, 60), protocol=PROTOCOL | {"ap_at": 5})
    )
    with pytest.raises(UserError, match=r"another protocol in c than in a, run 1 \(ap_at: null"):
        compare_groups({"a": a, "c": [other]})
    elsewhere = PROTOCOL | {"name": "elsewhere"}
    other = load_record(evaluation(tmp_path / "d", images, ranks(1, 120), protocol=elsewhere))
    with pytest.raises(UserError, match="no protocol in common: market1501 is not in d; elsewhere"):
        compare_groups({"a": a, "d": [other]})


def test_mistakes(tmp_path, images):
    a, b = runs(tmp_path, images, ranks(1, 120), ranks(2, 120))
    with pytest.raises(UserError, match="no method to compare"):
        compare_groups({})
    with pytest.raises(UserError, match="b: no evaluation"):
        compare_groups({"a": [a], "b": []})
    with pytest.raises(UserError, match="baseline c: no such method; there are a, b"):
        compare_groups({"a": [a], "b": [b]}, "c")
    for groups in ({"a": [a], "b": [b, a]}, {"a": [a, a]}):
        with pytest.raises(UserError, match="given twice"):
            compare_groups(groups)
    with pytest.raises(ValueError, match="at least one"):
        write_parts_page(tmp_path / "page.html", [])


def test_what_only_some_runs_have_is_said(tmp_path, images):
    a = evaluation(tmp_path / "a", images, ranks(1, 120), data={"fingerprint": "1" * 64})
    evaluation(a, images, ranks(1, 120), protocol=PROTOCOL | {"name": "second"})
    b = evaluation(tmp_path / "b", images, ranks(2, 120))
    (one,) = compare_groups({"a": [load_record(a)], "b": [load_record(b)]})
    assert one.notes[0] == "not compared: second is not in b"
    assert "image sets differ: ffffffff in b, 11111111 in a" in one.notes[1]


def test_images_without_objects_are_drawn_by_query(tmp_path, images):
    bare = images.with_columns(object=pl.lit(None, pl.String))
    made = runs(tmp_path, bare, ranks(1, 50), ranks(2, 50))
    (one,) = compare_groups({"a": made[:1], "b": made[1:]})
    assert (one.over, one.drawn) == ("queries", 50)
    text = write_groups_page(tmp_path / "page.html", {"a": made[:1], "b": made[1:]}).read_text()
    assert "resamples of queries" in text and "query by query, gives" in text


@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.3, 1.0, float("nan")]), max_size=6))
def test_holm_is_its_definition(p):
    """Corrected p below a level exactly where Holm's steps reject at that level."""
    corrected = holm(np.array(p))
    tests = [i for i, one in enumerate(p) if not np.isnan(one)]
    assert [i for i in range(len(p)) if not np.isnan(corrected[i])] == tests
    for level in (0.0005, 0.005, 0.015, 0.05, 0.5, 0.99):
        rejected: set[int] = set()
        for step, i in enumerate(sorted(tests, key=lambda i: p[i])):
            if p[i] > level / (len(tests) - step):
                break
            rejected.add(i)
        assert {i for i in tests if corrected[i] <= level} == rejected


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])


def test_the_page(tmp_path, images):
    names = ["triplet", HOSTILE, "smooth ap"]
    groups = {
        name: runs(
            tmp_path / str(i), images, *(ranks(3 * i + s, 120, 0.8 - 0.4 * i) for s in range(2))
        )
        for i, name in enumerate(names)
    }
    text = write_groups_page(tmp_path / "page.html", groups).read_text()
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and HOSTILE not in text
    assert not [a for a in page.addresses if not a.startswith("#")]
    assert page.tags.count("svg") == 2  # mAP and R@1
    (one,) = compare_groups(groups)
    for k, m in itertools.product(range(3), (0, 1)):
        assert f"{100 * one.mean[k, m]:.1f} ± {100 * one.sd[k, m]:.1f}" in text
    assert "Published, and ours" in text and "85.4" in text  # Market-1501 has figures
    assert "corrected for the 2 methods" in text and "More than triplet" in text
    assert "two different questions" in text
    best = int(one.mean[:, 0].argmax())
    assert f"<b>{100 * one.mean[best, 0]:.1f} ±" in text
    assert text.count("resight evaluate") == 6 and "All image sets" not in text
    changed = write_groups_page(tmp_path / "other.html", groups, baseline="smooth ap").read_text()
    assert "More than smooth ap" in changed


def test_several_image_sets_have_an_overview(tmp_path, images):
    parts = []
    for place, name in enumerate(("signs", HOSTILE)):
        groups = {
            method: runs(
                tmp_path / str(place) / method, images, *(ranks(s, 120, shift) for s in (1, 2))
            )
            for method, shift in (("a", 1.0), ("b", -0.5), ("c", 0.9))[: 3 - place]
        }
        parts.append(Part(name, groups, compare_groups(groups), ["a run is missing"]))
    text = write_parts_page(tmp_path / "page.html", parts).read_text()
    assert HOSTILE not in text and "A run is missing." in text
    overview = text.split("All image sets</h2>")[1].split("</table>")[0]
    one = parts[0].tables[0]
    best = f"{100 * one.mean[1, 0]:.1f} ± {100 * one.sd[1, 0]:.1f}"
    assert f'<b>{best}</b><span class="sign">▲</span>' in overview
    assert overview.count("▼") == 0 and overview.count("R@1") == 2
    last = overview.split("<th>c</th>")[1]
    empty = '<td><span class="sign"></span></td>'
    assert last.count(" ± ") == 2 and last.count(empty) == 2  # not on the second set
