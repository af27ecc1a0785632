"""Evaluation folders read back, and what is wrong with them in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from evaluations import PROTOCOL, evaluation, photos
from resight.errors import UserError
from resight.evaluate.records.published import FIGURES, ours, published
from resight.evaluate.records.record import (
    by_query,
    labels,
    load_record,
    load_records,
    metrics,
    primary,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = photos(tmp_path, 30, 10)
    made = evaluation(tmp_path / "run" / "evaluation", images, np.arange(1, 31))
    return evaluation(made, images, np.ones(30, int), protocol=PROTOCOL | {"name": "other"})


def test_a_folder_is_read_as_it_was_written(folder):
    record = load_record(folder)
    assert list(record.summaries) == list(record.protocols) == ["market1501", "other"]
    assert record.protocols["market1501"] == PROTOCOL
    assert record.command == ("resight", "evaluate", "evaluation")
    assert record.data["fingerprint"] == "f" * 64 and record.git["commit"].startswith("0123")
    summary = record.summaries["market1501"]
    assert metrics(summary) == ["mAP", "R@1", "R@5", "R@10", "mINP"]
    assert record.interval("market1501", "R@1") == pytest.approx((1 / 30 - 0.02, 1 / 30 + 0.02))
    assert record.interval("market1501", "R@7") is None
    table = record.per_query("market1501")
    assert table.height == 30 and len(record.images()) == 30
    for metric in metrics(summary):
        assert np.mean(by_query(table, metric)) == pytest.approx(summary[metric])
    assert by_query(table, "nDCG") is None
    np.testing.assert_array_equal(by_query(table, "R@5 legacy"), by_query(table, "R@5"))


def test_a_run_stands_for_its_only_evaluation(folder):
    assert load_record(folder.parent).folder == folder
    assert load_record(folder / "scores.json").folder == folder
    shutil.copytree(folder, folder.parent / "second")
    with pytest.raises(UserError, match=r"run: holds 2 evaluations \(evaluation, second\)"):
        load_record(folder.parent)
    both = load_records([folder.parent, folder])
    assert [one.folder.name for one in both] == ["evaluation", "second"]


def test_labels_are_short_and_differ(folder, tmp_path):
    for name in ("a", "b", "a/deep"):
        shutil.copytree(folder, tmp_path / "runs" / name / "evaluation")
    one, two, three = (
        load_record(tmp_path / "runs" / n / "evaluation") for n in ("a", "b", "a/deep")
    )
    assert labels([one]) == ["a"]
    assert labels([one, load_record(folder)]) == ["a", "run"]
    other = shutil.copytree(folder, tmp_path / "runs" / "a" / "sop")
    assert labels([one, load_record(other)]) == ["a", "sop"]
    assert labels([two, load_record(other)]) == ["b", "sop"]
    (other.parent / "run.json").write_text("{}")
    assert labels([two, load_record(other)]) == ["b", "a"]
    assert labels([one, two]) == ["a", "b"]
    assert labels([one, two, three]) == ["a", "b", "deep"]
    with pytest.raises(UserError, match="given twice"):
        labels([one, two, one])


def test_columns_of_a_plain_evaluation_are_filled_in(folder):
    file = folder / "market1501" / "per_query.parquet"
    pl.read_parquet(file).select("row", "path", "AP", "first_rank").write_parquet(file)
    table = load_record(folder).per_query("market1501")
    assert table["repeat"].to_list() == [0] * 30
    assert table["object"].null_count() == table["wrong"].null_count() == 30
    assert np.isnan(by_query(table, "mINP")).all()


def test_queries_that_do_not_count(folder):
    table = pl.DataFrame(
        {"AP": [0.5, None, 0.0], "first_rank": [2, None, None], "MAP@R": [0.1, 0.2, 0.3]}
    )
    np.testing.assert_array_equal(by_query(table, "R@1"), [0, np.nan, 0])
    np.testing.assert_array_equal(by_query(table, "R@2"), [1, np.nan, 0])
    np.testing.assert_array_equal(by_query(table, "mAP@100"), [0.5, np.nan, 0])
    np.testing.assert_array_equal(by_query(table, "MAP@R"), [0.1, 0.2, 0.3])


def spoil(folder: Path, name: str, content: bytes | None) -> None:
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("scores.json", None, "evaluation: not an evaluation folder .*resight evaluate --out"),
        ("scores.json", b"{", "scores.json: not valid JSON"),
        ("scores.json", b"[]", "scores.json: not the scores .* evaluate again"),
        ("scores.json", b'{"scores": [], "protocols": []}', "scores.json: not the scores"),
        ("scores.json", b'{"scores": [{"mAP": 1}], "protocols": [{}]}', "scores.json: not the"),
        ("images.parquet", None, "images.parquet: not found; the images"),
        ("images.parquet", b"no", "images.parquet: can't be read as Parquet"),
        ("market1501/per_query.parquet", None, "per_query.parquet: not found; the results"),
        ("market1501/per_query.parquet", b"PAR1", "per_query.parquet: can't be read"),
    ],
)
def test_damage_is_one_line(folder, name, content, expected):
    spoil(folder, name, content)
    with pytest.raises(UserError, match=expected) as caught:
        record = load_record(folder)
        record.images()
        record.per_query("market1501")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_missing_column_and_a_missing_folder(folder):
    file = folder / "other" / "per_query.parquet"
    pl.read_parquet(file).drop("AP").write_parquet(file)
    with pytest.raises(UserError, match="no column AP"):
        load_record(folder).per_query("other")
    with pytest.raises(UserError, match="/no/such: not found"):
        load_record("/no/such")
    with pytest.raises(UserError, match="not an evaluation folder"):
        load_record(folder / "images.parquet")
    shutil.copy(folder / "scores.json", folder / "other")  # each protocol has one of its own
    with pytest.raises(UserError, match=r"other: one protocol of an evaluation; give .*evaluation"):
        load_record(folder / "other")
    (folder / "scores.json").unlink()
    with pytest.raises(UserError, match="not an evaluation folder"):
        load_record(folder)


def test_scores_of_an_older_version_are_refused(folder):
    content = json.loads((folder / "scores.json").read_text())
    for protocol in content["protocols"]:
        del protocol["name"]
    (folder / "scores.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="evaluate again"):
        load_record(folder)


def test_published_figures_are_fractions_under_their_own_protocol():
    assert all(0 < figure.value < 1 for figure in FIGURES)
    keys = [(f.protocol, f.paper, f.metric, f.remark) for f in FIGURES]
    assert len(set(keys)) == len(keys)
    faulty = [f for f in FIGURES if f.paper.startswith("CTL") and f.value > 0.95]
    assert faulty and all(f.protocol.endswith("-centroid-legacy") for f in faulty)
    assert [f.value for f in published("market1501-centroid")] == [0.948]
    assert not published("query-gallery")


def test_ours_is_the_same_metric():
    mean, first = published("market1501")
    assert ours(mean, {"mAP": 0.8, "R@1": 0.9}) == 0.8
    assert ours(mean, {"R@1": 0.9, "mAP trapezoidal": 0.7}) == 0.7
    assert ours(first, {"mAP": 0.8}) is None
    assert ours(first, {"R@1 legacy": 0.8}) == 0.8
    assert ours(mean, {"mAP legacy": 0.8, "queries": 7}) == 0.8
    assert primary({"R@1": 0.9, "mAP@100": 0.1}) == "mAP@100"
    assert primary({"R@1": 0.9, "mAP": 0.1, "primary": "R@1"}) == "R@1"
