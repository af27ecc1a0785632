"""Training without labels, end to end on rendered photos: learns, goes on, ends well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from test_resume import Interrupt, losses, same, weights
from unlabelled_sets import OPTIONS, folder, settings

from resight.data.imageset import ImageSet
from resight.data.sources import load_images
from resight.models.embedder import Embedder
from resight.train import start
from resight.train.loop import Stopped, Watcher


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    found = load_images(folder(tmp_path_factory.mktemp("photos") / "all", 12, 5))
    names = pl.col("path").str.head(3)
    return replace(found, table=found.table.with_columns(names.alias("object")))


WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "contrastive": {"loss": {"name": "contrastive", "margin": 0.4}, "calibrate": None},
    "smooth_ap": {"loss": "smooth_ap", "similarity": "pool"},
    "ctl": {"loss": "ctl", "memory": None},
    "views": {"neighbours": 0, "views": 2, "mining": None, "select": None, "memory": None},
    "augmented": {"similarity": "augmented", "memory": {"fill": "views", "negatives": 20}},
    "unfilled": {"memory": {"fill": "none", "own": False}, "projection": 6, "whiten": None},
    "verified": {"spatial": {"top": 3, "side": 64, "points": 50}},
    "oracle": {"oracle": True},
    "chunks": {"chunk": 5, "accumulate": 2},
}


@pytest.mark.usefixtures("quick_plots")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_goes_on_as_if_nothing_had_happened(
    photos: ImageSet, tmp_path: Path, way: str
) -> None:
    """Stopped in the second stage; the banks are as they were."""
    chosen = settings(**WAYS[way])
    whole, out = tmp_path / "whole", tmp_path / "run"
    start.start(chosen, photos, whole, OPTIONS, Watcher())
    with pytest.raises(Stopped):
        start.start(chosen, photos, out, OPTIONS, Watcher(step=InStage(out, 2, 4)))
    np.random.default_rng().random()
    start.resume(out, OPTIONS, Watcher())
    assert same(weights(out / "stage-2"), weights(whole / "stage-2"))
    for name in ("stage-1", "stage-2"):
        assert losses(out / name) == losses(whole / name) and len(losses(out / name)) == 6
    assert not (out / "stage-2" / "memory").exists() and (out / "evidence.html").is_file()


class InStage:
    """Interrupts at the so manyth training step of a stage."""

    def __init__(self, run: Path, stage: int, step: int):
        self.mark, self.inner = run / f"stage-{stage}" / "memory" / "filled", Interrupt(step)

    def __call__(self, done: int, total: int, text: str) -> None:
        if self.mark.exists():
            self.inner(done, total, text)


def scores(run: Path, photos: Path) -> tuple[float, float]:
    """R@1 and mAP of an embedder, each photo against all others; names tell things apart."""
    files = sorted(photos.iterdir())
    things = np.array([file.name.partition("-")[0] for file in files])
    vectors = Embedder.load(run).embed(files, batch_size=128)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -2)
    first, average = [], []
    for row, order in zip(things, np.argsort(-similarity, axis=1), strict=True):
        right = things[order[:-1]] == row
        places = np.flatnonzero(right)
        first.append(right[0])
        average.append(np.mean((1 + np.arange(len(places))) / (1 + places)))
    return float(np.mean(first)), float(np.mean(average))


def test_it_learns(tmp_path: Path) -> None:
    """From random weights, whitened; also for things that it has never seen."""
    known = folder(tmp_path / "known", 40, 6)
    new = folder(tmp_path / "new", 40, 4, first=1000)
    run = tmp_path / "run"
    loss = {"name": "infonce", "temperature": 0.2}
    sizes = {"epochs": 8, "steps": 12, "tuples": 12, "lr": 2e-4, "head_lr": 5}
    chosen = settings(stages=[{}], loss=loss, **sizes)
    start.start(chosen, load_images(known), run, OPTIONS, Watcher())
    for photos in (known, new):
        (first, average), (then_first, then_average) = (
            scores(embedder, photos) for embedder in (run / "start", run)
        )
        assert then_first > first + 0.02 and then_average > average + 0.04
