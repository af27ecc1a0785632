"""A whole run without labels: a start, stages one after the other, an embedder at the end.

RUN/start/      the embedder before the first stage: the given weights, whitened
RUN/stage-1/    a run of its own, with the pool and the page of what was learned from
RUN/spatial/    local features, where verification is on
RUN/embedder/   the last stage's embedder
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

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
from resight.train.fitting.plan import plan_rows
from resight.train.fitting.start import closed_form_start
from resight.train.loop import LoopOptions, Position, Watcher
from resight.train.prepare import initial_weights, seed_everything
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.rundir import RECORD, Run
from resight.train.unlabelled import stage as steps
from resight.train.unlabelled.copies import usable_firsts
from resight.train.unlabelled.evidence import Evidence, gather, write_index, write_stage
from resight.train.unlabelled.fit_to import check_different, whitened_dims
from resight.train.unlabelled.together import main, wait_for

START, EMBEDDER, EVIDENCE = "start", "embedder", "evidence.html"
FIRST = "first"  # features of the weights as given, while the start is made
_COPIES_BEFORE = 20_000  # images up to which copies are looked for before the whitening
_ALIKE = 1e-10  # of a variance of 1: below it lies what float32 made of equal images


def carry_out(
    run: Run, settings: InsCLRSettings, images: ImageSet, options: LoopOptions, watcher: Watcher
) -> Position:
    """All stages that are not done yet; the position where the last one ended.

    Raises UserError when nothing can be learned, with what is kept.
    """
    _start(run, settings, images, options, watcher)
    total = Position()
    found: list[Evidence] = []
    for k in range(len(settings.stages)):
        stage = steps.Stage(
            k + 1, run.folder / f"stage-{k + 1}", settings.stage(k), images, options, watcher
        )
        before = run.folder / (f"stage-{k}/{EMBEDDER}" if k else START)
        position, evidence = _stage(stage, before, len(settings.stages))
        found.append(evidence)
        if main():
            write_index(run.folder / EVIDENCE, found, images)
        total = replace(
            position,
            seconds=total.seconds + position.seconds,
            skipped=sorted({*total.skipped, *position.skipped}),
        )
        if evidence.nothing is not None:
            watcher.tell(evidence.nothing)
            break
    places = [run.folder / f"stage-{k}" / EMBEDDER for k in range(len(found), 0, -1)]
    made = [place for place in places if (place / CONFIG).is_file()]
    if main():
        _copy([*made, run.folder / START][0], run.folder / EMBEDDER)
    return total


def _stage(stage: steps.Stage, before: Path, total: int) -> tuple[Position, Evidence]:
    """One stage, or what is left of it; nothing but reading when it is done."""
    if main() and not (stage.folder / RECORD).is_file():
        shutil.rmtree(stage.folder, ignore_errors=True)  # of a process killed before it was one
        Run.create(stage.folder, stage.settings, stage.images)
    wait_for(stage.folder / RECORD)
    run = Run.open(stage.folder)
    if run.record["finished"]:
        return _finished(stage, run)
    stage.tell(f"stage {stage.number} of {total}")
    embedder = steps.at_size(Embedder.load(before), stage.settings.size)
    ground = steps.prepare(stage, embedder)
    look = ground.settings
    stage.tell(
        f"pool: the {look.pool.neighbours} nearest of {len(ground.rows):,} images each; "
        f"each epoch: {look.steps:,} batches of {look.tuples} tuples of "
        f"{look.neighbours + look.views}"
    )
    position = Position()
    # Later stages stand on what the first has learned.
    reason = nothing_to_learn(ground) if stage.number == 1 else None
    if reason is None:
        resume = (stage.folder / "checkpoints" / "last.pt").is_file()
        position = steps.train(stage, embedder, ground, run, resume=resume)
    if main():
        bad = [entry["path"] for entry in ground.features.info.get("skipped", [])]
        position = replace(position, skipped=sorted({*position.skipped, *bad}))
        evidence = gather(stage, ground, reason)
        write_stage(stage.folder, evidence, stage.images)
        run.finish(position=vars(position))
    while not run.record["finished"]:  # by the main process
        time.sleep(0.2)
    return _finished(stage, run)


def _finished(stage: steps.Stage, run: Run) -> tuple[Position, Evidence]:
    """What a stage that is done has left; what only its training needed goes."""
    if main():
        steps.clean(stage)
    return Position(**run.record["position"]), Evidence.load(stage.folder)


def nothing_to_learn(ground: steps.Ground) -> str | None:
    """One sentence when no two images are alike enough to be taken for one object, else None.

    With fixed thresholds: when hardly an image has a neighbour above that of selection. With
    calibrated ones: when the nearest neighbours are no nearer than the nearest of unrelated
    images would be, whose similarities are about normally distributed after a whitening.
    """
    settings = ground.settings
    if settings.select is None or not settings.neighbours:
        return None
    least, count = settings.select.threshold, len(ground.rows)
    if settings.calibrate is not None:
        if settings.whiten is None:
            return None
        chance = _by_chance(ground, settings.calibrate)
        if chance > 1 - 1e-6:
            return (
                f"nothing to learn from: all {count:,} images look the same to this network; the "
                "embedder so far is kept"
            )
        if least >= 1.1 * chance:
            return None
        return (
            f"nothing to learn from: the nearest neighbours among {count:,} images (similarity "
            f"{least:.2f}) are hardly nearer than unrelated images would be ({chance:.2f}), so "
            "there seem to be no two photos of one thing; the embedder so far is kept"
        )
    near = np.asarray(ground.pool.similarities[ground.rows, 0], np.float32)
    close = int((near >= least).sum())
    if close >= max(2, count // 200):
        return None
    return (
        f"nothing to learn from: of {count:,} images {close} have a neighbour with a similarity of "
        f"{least:g} or more (select.threshold), so there are hardly two photos of one thing; the "
        "embedder so far is kept"
    )


def _by_chance(ground: steps.Ground, neighbours: float) -> float:
    """The similarity above which an image would have so many neighbours if none were related."""
    rows = ground.rows[np.unique(np.linspace(0, len(ground.rows) - 1, 1000).astype(np.int64))]
    vectors = unit_rows(np.asarray(ground.features[rows], np.float32))
    found = (vectors @ vectors.T)[np.triu_indices(len(rows), 1)]
    # The middle half says how wide the bulk is, whatever the related pairs do.
    low, middle, high = np.quantile(found, (0.25, 0.5, 0.75))
    share = min(0.5, neighbours / max(1, len(ground.rows) - 1))
    return float(middle + (high - low) / 1.349 * NormalDist().inv_cdf(1 - share))


def _start(
    run: Run, settings: InsCLRSettings, images: ImageSet, options: LoopOptions, watcher: Watcher
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
    settings: InsCLRSettings,
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
        plan = plan_rows(Embedder(settings.embedder()), images, unlabelled=True)
        embedder = closed_form_start(settings, plan, run.folder, options, watcher).embedder
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


def _whitened(
    embedder: Embedder,
    run: Run,
    settings: InsCLRSettings,
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


def _copy(source: Path, target: Path) -> None:
    """An embedder's folder, its card and weights first, what makes it one last."""
    embedder = Embedder.load(source, "cpu")
    embedder.save(target)
