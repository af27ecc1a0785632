"""Training on the neighbour graph, end to end on rendered photos: goes on, ends well, is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from test_resume import Interrupt, losses, same, weights
from test_unlabelled import scores
from unlabelled_sets import OPTIONS, folder, graph_settings

from resight.data.imageset import ImageSet
from resight.data.sources import load_images
from resight.errors import UserError
from resight.models.embedder import Embedder
from resight.train import start
from resight.train.loop import Stopped, Watcher
from resight.train.unlabelled import pace


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    found = load_images(folder(tmp_path_factory.mktemp("photos") / "all", 12, 5))
    names = pl.col("path").str.head(3)
    side = pl.Series("artist", [f"a{k % 2}" for k in range(len(found))])
    return replace(found, table=found.table.with_columns(names.alias("object"), side))


WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "closed form": {"start": "closed-form"},
    "count": {"count": 3.0, "neighbours": 0, "views": 3},
    "sources": {"sources": "artist"},
    "verified": {"spatial": {"top": 3, "side": 64, "points": 50}},
    "oracle": {"oracle": True},
}


class InStage:
    """Interrupts at the so manyth training step of a stage."""

    def __init__(self, run: Path, stage: int, step: int):
        self.mark, self.inner = run / f"stage-{stage}" / "ground.json", Interrupt(step)

    def __call__(self, done: int, total: int, text: str) -> None:
        if self.mark.exists() and total == 6:  # steps: not the bar of anything else
            self.inner(done, total, text)


@pytest.mark.usefixtures("quick_plots")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_goes_on_as_if_nothing_had_happened(
    photos: ImageSet, tmp_path: Path, way: str
) -> None:
    """Stopped in the second stage; the memory is as it was."""
    chosen = graph_settings(**WAYS[way])
    whole, out, told = tmp_path / "whole", tmp_path / "run", []
    start.start(chosen, photos, whole, OPTIONS, Watcher(tell=told.append))
    with pytest.raises(Stopped):
        start.start(chosen, photos, out, OPTIONS, Watcher(step=InStage(out, 2, 4)))
    np.random.default_rng().random()
    start.resume(out, OPTIONS, Watcher())
    assert same(weights(out / "stage-2"), weights(whole / "stage-2"))
    assert same(Embedder.load(out).state_dict(), Embedder.load(whole).state_dict())
    for name in ("stage-1", "stage-2"):
        assert losses(out / name) == losses(whole / name) and len(losses(out / name)) == 6
    left = {path.name for path in (out / "stage-2").iterdir()}
    assert not left & {"features", "pool", "diffusion"} and "targets" in left
    page = (out / "evidence.html").read_text()
    assert "stage 2" in page and "data:image/jpeg" in page and "<script" not in page
    assert any("checked against the labels" in line for line in told)
    if way == "oracle":
        found = json.loads((out / "stage-1" / "evidence.json").read_text())
        assert found["right"] == found["reached"] == 1


def test_it_learns(tmp_path: Path) -> None:
    """From random weights, whitened; for things that it has never seen."""
    images = load_images(folder(tmp_path / "photos", 40, 6))
    fresh = folder(tmp_path / "fresh", 40, 4, first=1000)
    sizes = {"epochs": 4, "steps": 12, "tuples": 12, "lr": 2e-4, "head_lr": 5, "temperature": 0.2}
    told: list[str] = []
    start.start(
        graph_settings(**sizes), images, tmp_path / "run", OPTIONS, Watcher(tell=told.append)
    )
    before = scores(tmp_path / "run" / "start", fresh)
    after = scores(tmp_path / "run", fresh)
    assert after[0] > before[0] + 0.05 and after[1] > before[1] + 0.05, (before, after)
    assert any("two halves of the features agree best on" in line for line in told)


def test_minutes_become_steps_and_epochs(photos: ImageSet) -> None:
    chosen = graph_settings(steps=None, tuples=2)
    short, rate = pace.fitting(chosen, photos, 1e-4, 0)
    assert rate > 0 and (short.epochs, short.steps) == (1, 8)
    long, _ = pace.fitting(chosen, photos, 5.0, 0)
    assert long.epochs > 1 and long.steps is None
    fixed, _ = pace.fitting(graph_settings(), photos, 1e-4, 0)
    assert (fixed.epochs, fixed.steps) == (1, 3)  # steps that were asked for


def test_unrelated_photos_keep_the_start(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    from PIL import Image

    (tmp_path / "noise").mkdir()
    for k in range(60):
        content = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(content).save(tmp_path / "noise" / f"{k:02d}.png")
    told: list[str] = []
    out = tmp_path / "run"
    watcher = Watcher(tell=told.append)
    start.start(graph_settings(), load_images(tmp_path / "noise"), out, OPTIONS, watcher)
    assert any(line.startswith("nothing to learn from") for line in told)
    one, other = Embedder.load(out), Embedder.load(out / "start")
    assert same(one.state_dict(), other.state_dict())


def test_sources_that_do_not_do(photos: ImageSet, tmp_path: Path) -> None:
    for name, said in (("maker", "no such column"), ("path", "60 different values")):
        with pytest.raises(UserError, match=said):
            start.start(graph_settings(sources=name), photos, tmp_path / "run", OPTIONS, Watcher())
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.mark.usefixtures("quick_plots")
@pytest.mark.parametrize(("sources", "kind"), [(None, "joined"), ("artist", "neighbours")])
def test_the_start_is_safe_where_no_source_is_known(
    photos: ImageSet, tmp_path: Path, sources: str | None, kind: str
) -> None:
    told: list[str] = []
    chosen = graph_settings(start="closed-form", sources=sources, stages=[])
    start.start(chosen, photos, tmp_path / "run", OPTIONS, Watcher(tell=told.append))
    said = [line for line in told if line.startswith("closed form:")]
    assert len(said) == 1 and f"closed form: {kind} to" in said[0]
