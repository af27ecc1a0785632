"""What a stage of InsCLR learns by: thresholds from its pool, the memory, the steps."""

from __future__ import annotations

import shutil

import numpy as np

from resight.data.loading import Pictures, loader
from resight.features.compute import find_batch_size
from resight.losses.pairs import unit
from resight.mining.calibrate import bank_levels
from resight.mining.look import Look
from resight.mining.memory import MemoryBank
from resight.models.embedder import Embedder
from resight.sampling.tuples import TupleBatch, tuple_batches
from resight.train.loop import Position
from resight.train.prepare import seed_everything
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.rundir import Run
from resight.train.unlabelled.chance import by_chance
from resight.train.unlabelled.fit_to import calibrated
from resight.train.unlabelled.insclr.objective import InsCLRObjective
from resight.train.unlabelled.quality import codes
from resight.train.unlabelled.stage import Ground, Stage, learn
from resight.train.unlabelled.together import own_folder

MEMORY = "memory"


def settle(stage: Stage[InsCLRSettings], ground: Ground[InsCLRSettings]) -> InsCLRSettings:
    """The settings with thresholds that fit the pool."""
    return calibrated(ground.settings, ground.pool, ground.rows)


def words(ground: Ground[InsCLRSettings]) -> str:
    """What the stage is about to do."""
    settings = ground.settings
    return (
        f"pool: the {settings.pool.neighbours} nearest of {len(ground.rows):,} images each; "
        f"each epoch: {settings.steps:,} batches of {settings.tuples} tuples of "
        f"{settings.neighbours + settings.views}"
    )


def nothing_to_learn(stage: Stage[InsCLRSettings], ground: Ground[InsCLRSettings]) -> str | None:
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
        chance = by_chance(ground.features, ground.rows, settings.calibrate)
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


def train(
    stage: Stage[InsCLRSettings],
    embedder: Embedder,
    ground: Ground[InsCLRSettings],
    run: Run,
    resume: bool,
) -> Position:
    """Train the embedder on tuples of the pool, from its start or from the last checkpoint."""
    settings = ground.settings
    assert settings.tuples is not None
    seed_everything(settings.seed + stage.number, settings.deterministic)
    bank = _bank(stage, embedder, ground, resume)
    neighbours = np.asarray(ground.pool.neighbours)

    def objective() -> InsCLRObjective:
        return InsCLRObjective(settings, look(ground, bank), bank, ground.rows)

    def batches(epoch: int) -> list[TupleBatch]:
        return tuple_batches(
            neighbours,
            rows=ground.rows,
            tuples=settings.tuples or 1,
            size=settings.neighbours + settings.views,
            views=settings.views,
            steps=settings.steps,
            seed=settings.seed + 1000 * stage.number,
            epoch=epoch,
        )

    plain = settings.similarity == "plain"
    return learn(
        stage, embedder, settings, run, resume, objective=objective, batches=batches, plain=plain
    )


def look(ground: Ground[InsCLRSettings], bank: MemoryBank) -> Look:
    """How the stage looks at a tuple, at the levels of the pool or of the memory as it stands."""
    settings, spatial = ground.settings, ground.settings.spatial
    found = Look(
        ground.pool,
        lambda rows: bank.read(rows, "plain"),
        settings.select,
        settings.mining,
        weight=spatial.weight if spatial else 0.0,
        cap=spatial.cap if spatial else 1,
        objects=codes(ground.features.images.table["object"]) if settings.oracle else None,
    )
    if settings.calibrate is None or settings.similarity == "pool":
        return found
    return found.at(*bank_levels(bank, ground.rows, (settings.calibrate, 2 * settings.calibrate)))


def _bank(
    stage: Stage[InsCLRSettings], embedder: Embedder, ground: Ground[InsCLRSettings], resume: bool
) -> MemoryBank:
    """The memory, filled as the settings say; that of the checkpoint when resuming."""
    folder = stage.folder / own_folder(MEMORY)
    done = folder / "filled"  # a bank whose filling was cut short is filled again
    if resume and done.exists():
        return MemoryBank.open(folder)
    shutil.rmtree(folder, ignore_errors=True)
    bank = MemoryBank.create(folder, len(stage.images), embedder.dim, stage.settings.seed)
    memory = ground.settings.memory
    how = memory.fill if memory is not None else "plain"
    if how == "plain" or ground.settings.similarity == "pool":
        for start in range(0, len(ground.rows), 4096):
            rows = ground.rows[start : start + 4096]
            vectors = np.asarray(ground.features[rows], np.float32)
            bank.write(rows, augmented=vectors if how == "plain" else None, plain=vectors)
    if how == "views":
        _fill_with_views(stage, embedder, ground, bank)
    done.touch()
    return bank


def _fill_with_views(
    stage: Stage[InsCLRSettings],
    embedder: Embedder,
    ground: Ground[InsCLRSettings],
    bank: MemoryBank,
) -> None:
    """A pass over all images, augmented and not, in inference mode."""
    embedder.eval()
    pictures = Pictures(stage.images, embedder.preprocess, stage.settings.augment, both=True)
    seeds = np.random.default_rng([stage.settings.seed, stage.number]).integers(
        0, 2**63, len(stage.images)
    )
    rows = ground.rows
    size = find_batch_size(embedder)
    draws = [
        [(int(row), int(seeds[row])) for row in rows[at : at + size]]
        for at in range(0, len(rows), size)
    ]
    bar = stage.bar("filling the memory")
    for k, batch in enumerate(loader(pictures, draws, stage.options.workers)):
        if batch.plain is not None:
            views = [
                unit(embedder.embed_tensor(x)).cpu().numpy() for x in (batch.images, batch.plain)
            ]
            offline = ground.settings.similarity == "pool"  # then `plain` is the pool's own
            bank.write(batch.rows.numpy(), augmented=views[0], plain=None if offline else views[1])
        bar(k + 1, len(draws))
