"""Which runs a sweep has, whose folder it is, and what is made of its evaluations."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.records.record import Record
from resight.train.catalogue import Sweep
from resight.train.sweeps import outcome, plan
from resight.train.sweeps.outcome import Finished


def test_every_variant_value_and_seed_once_and_a_seed_of_all_first() -> None:
    sweep = Sweep(
        variants={"A": {}, "B": {"margin": 0.3}}, over={"lr": [0.1, 0.2], "ids": [4]}, seeds=[5, 7]
    )
    found = plan.trials({"recipe": "ctl", "margin": 0.5}, sweep, "x")
    assert [(t.variant, t.point["lr"], t.seed) for t in found] == [
        (variant, lr, seed) for seed in (5, 7) for variant in "AB" for lr in (0.1, 0.2)
    ]
    assert found[3].values == {"recipe": "ctl", "margin": 0.3, "lr": 0.2, "ids": 4, "seed": 5}
    assert found[3].group == "B, lr 0.2, ids 4" and found[3].slug == "B_lr=0.2_ids=4_seed5"


def test_dotted_names_change_one_setting_and_nothing_is_shared() -> None:
    base: dict[str, Any] = {"loss": {"name": "smooth_ap", "temperature": 0.01}}
    found = plan.trials(base, Sweep(over={"loss.temperature": [0.1, 0.2]}), "x")
    assert [t.values["loss"] for t in found] == [
        {"name": "smooth_ap", "temperature": 0.1}, {"name": "smooth_ap", "temperature": 0.2}
    ]  # fmt: skip
    assert base == {"loss": {"name": "smooth_ap", "temperature": 0.01}}
    named = plan.trials({"loss": "smooth_ap"}, Sweep(over={"loss.temperature": [0.1]}), "x")
    assert named[0].values["loss"] == {"name": "smooth_ap", "temperature": 0.1}
    with pytest.raises(UserError, match="lr has no settings of its own"):
        plan.trials({"lr": 0.1}, Sweep(over={"lr.x": [1]}), "x")


def test_without_a_sweep_there_is_one_run_under_the_recipes_name() -> None:
    (only,) = plan.trials({"lr": 0.1}, Sweep(), "small")
    assert (only.group, only.slug, only.seed) == ("small", "small_seed0", 0)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True))
def test_folders_are_distinct_and_stay_inside(names: list[str]) -> None:
    found = plan.trials({}, Sweep(variants={name: {} for name in names}, seeds=[0, 1]), "x")
    slugs = [trial.slug.lower() for trial in found]  # a disk may not tell a from A
    assert len(set(slugs)) == len(slugs) == 2 * len(names)
    for slug in slugs:
        assert "/" not in slug and not slug.startswith(".") and Path(slug).name == slug


def test_over_is_read_as_yaml() -> None:
    assert plan.parse_over("lr=1e-4,0.01") == ("lr", ["1e-4", 0.01])
    assert Sweep(over={"lr": ["1e-4", 0.01, "x"]}).over == {"lr": [1e-4, 0.01, "x"]}
    assert plan.parse_over("size=[64,64],[96,96]") == ("size", [[64, 64], [96, 96]])
    assert plan.parse_over("loss.name=fastap,null") == ("loss.name", ["fastap", None])
    for bad in ("lr", "lr=", "=1", "lr=[1"):
        with pytest.raises(UserError, match="not of the form name=value,value"):
            plan.parse_over(bad)


def test_settings_are_checked_before_anything_runs() -> None:
    sweep = Sweep(variants={"A": {"lrr": 1}, "B": {"epochs": 0}}, seeds=[0, 1])
    with pytest.raises(UserError) as error:
        plan.check(plan.trials({"recipe": "ctl"}, sweep, "x"), "mine")
    lines = str(error.value).splitlines()
    assert len(lines) == 2 and "mine: A: no setting 'lrr'" in lines[0] and "epochs = 0" in lines[1]


def test_the_folder_of_another_sweep_is_refused(shapes: Path, tmp_path: Path) -> None:
    images = plan.with_test(load_images(shapes))
    base = {"recipe": "ctl", "lr": 0.1}

    def opened(base: Mapping[str, Any], sweep: Sweep, images: Any = images) -> None:
        found = plan.trials(base, sweep, "x")
        plan.open_folder(tmp_path / "s", {"settings": base}, images, found)

    opened(base, Sweep(seeds=[0]))
    opened(base, Sweep(seeds=[0, 1]))  # more seeds: the same sweep
    opened(base, Sweep(seeds=[2]))
    content = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert content["groups"] == {"x": [f"evaluations/x_seed{seed}" for seed in (0, 1, 2)]}
    with pytest.raises(UserError, match=r"settings.lr 0.1 where this one has 0.2") as error:
        opened(base | {"lr": 0.2}, Sweep())
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(UserError, match="epochs not set where this one has 3"):
        opened(base | {"epochs": 3}, Sweep())
    with pytest.raises(UserError, match="on other images"):
        opened(base, Sweep(), replace(images, table=images.table[1:]))


def test_a_variant_that_changed_is_another_sweep(shapes: Path, tmp_path: Path) -> None:
    images = plan.with_test(load_images(shapes))
    for margin, fits in ((0.3, True), (0.3, True), (0.4, False)):
        found = plan.trials({}, Sweep(variants={"A": {"margin": margin}, "B": {}}), "x")
        if fits:
            plan.open_folder(tmp_path, {}, images, found)
        else:
            with pytest.raises(UserError, match=r"margin 0.3 where this one has 0.4"):
                plan.open_folder(tmp_path, {}, images, found)


def test_all_runs_are_judged_on_the_same_test_rows(shapes: Path) -> None:
    images = load_images(shapes)
    held = plan.with_test(images)
    assert set(held.table["split"]) == {"train", "test"}
    assert plan.with_test(held) is held
    with pytest.raises(UserError, match="no test rows"):
        plan.with_test(replace(held, table=held.table.filter(held.table["split"] == "train")))
    with pytest.raises(UserError, match="no labels"):
        plan.with_test(load_images(shapes / "object 00"))


def record(value: float, half: float = 0.01) -> Record:
    summary = {
        "protocol": "p", "mAP": value, "R@1": value / 2, "primary": "mAP", "queries": 10,
        "intervals": {"mAP": [value - half, value + half]},
    }  # fmt: skip
    return Record(Path(), "", (), {}, {}, {}, {}, {}, {"p": summary}, {"p": {"name": "p"}})


def finished(over: dict[str, list[Any]], seeds: int = 3) -> list[Finished]:
    found = plan.trials({}, Sweep(over=over, seeds=list(range(seeds))), "x")
    return [Finished(t.group, record(0.1 + 0.01 * k * k), t) for k, t in enumerate(found)]


def test_means_and_deviations_over_seeds() -> None:
    found = finished({"lr": [0.1, 0.2]})
    rows = outcome.rows(found)
    assert [row.group for row in rows] == ["lr 0.1", "lr 0.2"]
    for row in rows:
        values = [one.record.summaries["p"]["mAP"] for one in found if one.group == row.group]
        assert row.runs == 3
        assert row.values["mAP"] == pytest.approx(
            (statistics.mean(values), statistics.stdev(values))
        )
    (single,) = outcome.rows(finished({"lr": [0.1]}, seeds=1))
    assert single.values["mAP"] == (pytest.approx(0.1), None)


def test_the_axis_of_the_plot() -> None:
    assert outcome.numeric_axis(finished({"a": ["x", "y"], "lr": [0.1, 1]})) == "lr"
    assert outcome.numeric_axis(finished({"a": [True, False]})) is None
    assert outcome.numeric_axis(finished({"a": [1]})) is None
    assert outcome.numeric_axis([Finished("start", record(0.2))]) is None


@pytest.mark.parametrize(
    "over", [{"a": ["x", "y"]}, {"lr": [0.001, 0.1]}, {"lr": [1, 2], "b": [3, 4]}]
)
@pytest.mark.parametrize("seeds", [1, 2])
def test_there_is_a_plot_of_every_kind(
    tmp_path: Path, over: dict[str, list[Any]], seeds: int
) -> None:
    from PIL import Image

    found = [Finished("start", record(0.05)), *finished(over, seeds)]
    with Image.open(outcome.write_plot(tmp_path / "plot.png", found)) as picture:
        assert picture.width > 600 and len(picture.convert("L").getcolors() or []) > 5


def test_the_table_has_a_row_a_run(tmp_path: Path) -> None:
    found = [Finished("start", record(0.05)), *finished({"lr": [0.1, 0.2]}, 2)]
    for one in found[1:]:
        assert one.trial is not None
        run = tmp_path / "runs" / one.trial.slug
        run.mkdir(parents=True)
        (run / "run.json").write_text('{"seconds": 90, "best": {"epoch": 4}}')
    path = outcome.write_csv(tmp_path / "table.csv", found, tmp_path)
    rows = list(csv.DictReader(path.open()))
    assert [row["lr"] for row in rows] == ["", "0.1", "0.2", "0.1", "0.2"]
    assert rows[1]["minutes"] == "1.5" and rows[1]["best_epoch"] == "4"
    assert float(rows[1]["mAP"]) == 0.1 and (tmp_path / rows[1]["run"]).is_dir()
