"""A whole run without labels: a start, stages one after the other, an embedder at the end.

RUN/start/      the embedder before the first stage: the given weights, whitened
RUN/stage-1/    a run of its own, with the pool and the page of what was learned from
RUN/spatial/    local features, where verification is on
RUN/embedder/   the last stage's embedder
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np

from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.evaluate.ranking.units import unit_rows
from resight.features.compute import EmbedOptions
from resight.features.write import embed_images
from resight.models.embedder import CONFIG, Embedder
from resight.models.open import embedder_folder
from resight.models.whitening import pca_whitening, whitened
from resight.train.loop import LoopOptions, Position, Watcher
from resight.train.prepare import initial_weights, seed_everything
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.rundir import RECORD, Run
from resight.train.unlabelled import stage as steps
from resight.train.unlabelled.evidence import Evidence, gather, write_index, write_stage
from resight.train.unlabelled.fit_to import whitened_dims

START, EMBEDDER, EVIDENCE = "start", "embedder", "evidence.html"


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
    _copy([*made, run.folder / START][0], run.folder / EMBEDDER)
    return total


def _stage(stage: steps.Stage, before: Path, total: int) -> tuple[Position, Evidence]:
    """One stage, or what is left of it; nothing but reading when it is done."""
    if (stage.folder / RECORD).is_file():
        run = Run.open(stage.folder)
        record = run.record
        if record["finished"]:
            return Position(**record["position"]), Evidence.load(stage.folder)
    else:
        run = Run.create(stage.folder, stage.settings, stage.images)
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
    evidence = gather(stage, ground, reason)
    write_stage(stage.folder, evidence, stage.images)
    run.finish(position=vars(position))
    steps.clean(stage)
    return position, evidence


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
    if (folder / CONFIG).is_file():
        return
    seed_everything(settings.seed, settings.deterministic)
    given = embedder_folder(settings.weights)
    if given is not None:  # with its own network, and its whitening if it has one
        embedder = steps.at_size(Embedder.load(given), settings.size)
        watcher.tell(f"weights {settings.weights}: the embedder with all that it has")
    else:
        embedder = Embedder(settings.embedder())
        initial_weights(embedder, settings.weights, settings.partial_weights, watcher.tell)
    if settings.whiten is not None and embedder.config.whiten is None:
        embedder = _whitened(embedder, run, settings, images, options, watcher)
    embedder.info = {"recipe": settings.model_dump(mode="json"), "data": run.record["data"]}
    embedder.save(folder)
    shutil.rmtree(run.folder / "first", ignore_errors=True)


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
        run.folder / "first",
        options=EmbedOptions(workers=options.workers, strict=options.strict),
        progress=lambda done, total: watcher.step(done, total, "embedding"),
    )
    valid = np.asarray(found.valid, bool)
    if valid.sum() < 4:
        raise UserError(f"{images.source}: only {int(valid.sum())} of its images can be used")
    dims = whitened_dims(settings, int(valid.sum()), embedder.dim)
    assert dims is not None
    weight, bias = pca_whitening(found, dims, valid=valid)
    # At unit variance in all: the learning rate then means the same for any number of dimensions.
    scale = np.float32(dims**-0.5)
    watcher.tell(f"whitened without labels to {dims} dimensions")
    return whitened(embedder, weight * scale, bias * scale)


def _copy(source: Path, target: Path) -> None:
    """An embedder's folder, its card and weights first, what makes it one last."""
    embedder = Embedder.load(source, "cpu")
    embedder.save(target)
