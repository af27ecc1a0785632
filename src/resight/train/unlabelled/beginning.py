"""The embedder that the first stage begins with: given, fitted in closed form, or whitened."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.evaluate.ranking.units import unit_rows
from resight.features.compute import EmbedOptions
from resight.features.store import Features
from resight.features.write import embed_images
from resight.models.closed_form import whitening
from resight.models.embedder import CONFIG, Embedder, embedder_folder
from resight.models.fitted import whitened
from resight.models.moments import moments
from resight.train.fitting.candidates import Method as FitMethod
from resight.train.fitting.plan import plan_rows
from resight.train.fitting.start import closed_form_start
from resight.train.loop import LoopOptions, Watcher
from resight.train.prepare import initial_weights, seed_everything
from resight.train.recipes.graph import GraphSettings
from resight.train.recipes.unlabelled import UnlabelledSettings
from resight.train.rundir import Run
from resight.train.unlabelled import stage as steps
from resight.train.unlabelled.copies import usable_firsts
from resight.train.unlabelled.fit_to import check_different, source_column, whitened_dims
from resight.train.unlabelled.together import main, wait_for

START, EMBEDDER = "start", "embedder"
FIRST = "first"  # features of the weights as given, while the start is made
_COPIES_BEFORE = 20_000  # images up to which copies are looked for before the whitening
_ALIKE = 1e-10  # of a variance of 1: below it lies what float32 made of equal images


def begin(
    run: Run, settings: UnlabelledSettings, images: ImageSet, options: LoopOptions, watcher: Watcher
) -> None:
    """Write the embedder that the first stage begins with, unless it is there."""
    folder = run.folder / START
    if not main():
        wait_for(folder / CONFIG)
    if not (folder / CONFIG).is_file():
        _make_start(folder, run, settings, images, options, watcher)
    if main():
        shutil.rmtree(run.folder / FIRST, ignore_errors=True)


def _make_start(
    folder: Path,
    run: Run,
    settings: UnlabelledSettings,
    images: ImageSet,
    options: LoopOptions,
    watcher: Watcher,
) -> None:
    seed_everything(settings.seed, settings.deterministic)
    given = embedder_folder(settings.weights)
    if given is not None:  # with its own network, and its whitening if it has one
        embedder = steps.at_size(Embedder.load(given), settings.size)
        watcher.tell(f"weights {settings.weights}: the embedder with all that it has")
    elif settings.start == "closed-form":
        known = with_sources(images, settings)
        plan = plan_rows(Embedder(settings.embedder()), known, unlabelled=True)
        # Where sources are known the default is best of all; where not, the one that was nowhere
        # worse than a whitening, so that nothing is lost before step 1.
        safe = isinstance(settings, GraphSettings) and not known.has("camera")
        method: FitMethod | None = "joined" if safe else None
        start = closed_form_start(settings, plan, run.folder, options, watcher, method)
        embedder = start.embedder
    else:
        embedder = Embedder(settings.embedder())
        initial_weights(embedder, settings.weights, settings.partial_weights, watcher.tell)
    if (
        settings.start == "weights"
        and settings.whiten is not None
        and embedder.config.whiten is None
    ):
        embedder = _whitened(embedder, run, settings, images, options, watcher)
    embedder.info |= {"recipe": settings.model_dump(mode="json"), "data": run.record["data"]}
    embedder.save(folder)


def with_sources(images: ImageSet, settings: UnlabelledSettings) -> ImageSet:
    """The column whose values make images alike, where one is named, in the cameras' place."""
    if not isinstance(settings, GraphSettings) or settings.sources is None:
        return images
    column = source_column(images, settings.sources).alias("camera")
    return replace(images, table=images.table.with_columns(column))


def _whitened(
    embedder: Embedder,
    run: Run,
    settings: UnlabelledSettings,
    images: ImageSet,
    options: LoopOptions,
    watcher: Watcher,
) -> Embedder:
    found = embed_images(
        embedder,
        images,
        run.folder / FIRST,
        options=EmbedOptions(workers=options.workers, strict=options.strict),
        runtime="torch",
        progress=lambda done, total: watcher.step(done, total, "embedding"),
    )
    steps.tell_skipped(found, watcher.tell)
    valid = np.array(found.valid, bool)
    if len(images) <= _COPIES_BEFORE:
        # What a whitening evens out is what differs, in a folder of copies that of the copies.
        valid = usable_firsts(found, images, settings.pool, run.folder, watcher.tell)
    check_different(images, np.asarray(found.valid, bool), valid)
    if _all_alike(found, valid):
        watcher.tell("all images look the same to this network: nothing to whiten by")
        return embedder
    dims = whitened_dims(settings, int(valid.sum()), embedder.dim)
    assert dims is not None
    pair = whitening(moments(found, valid), dims)
    watcher.tell(f"whitened without labels to {len(pair[0])} dimensions")
    return whitened(embedder, pair)


def _all_alike(features: Features, valid: NDArray[np.bool_]) -> bool:
    """Whether all but rounding is the same in up to a thousand of the valid vectors."""
    rows = np.flatnonzero(valid)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, 1000).astype(np.int64))]
    vectors = unit_rows(np.asarray(features[rows], np.float32)).astype(np.float64)
    return bool(vectors.var(axis=0).sum() < _ALIKE)


def last_embedder(run: Path, stages: Sequence[Path]) -> Path:
    """The folder of the last stage's embedder that is there, else of the start."""
    places = [stage / EMBEDDER for stage in reversed(stages)]
    return [*(place for place in places if (place / CONFIG).is_file()), run / START][0]
