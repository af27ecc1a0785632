"""One stage: the pool of the model as it stands, banks, training, evidence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.data.loading import Pictures, loader
from resight.errors import UserError
from resight.features.collapsed import NOTE, collapsed
from resight.features.compute import EmbedOptions, find_batch_size
from resight.features.store import Features
from resight.features.write import embed_images
from resight.files import atomic_open, write_text
from resight.graph.pool import Pool, add_inliers, build_pool
from resight.losses.pairs import unit
from resight.mining.calibrate import bank_levels
from resight.mining.look import Look
from resight.mining.memory import MemoryBank
from resight.models.embedder import Embedder
from resight.models.tuning import freeze_batchnorm, tune
from resight.sampling.tuples import tuple_batches
from resight.spatial.verify import Verifier
from resight.train.loop import LoopOptions, Position, Watcher, fit
from resight.train.prepare import Tell, seed_everything
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.rundir import Run
from resight.train.story import Story, TuplePlan, optimizers
from resight.train.unlabelled.copies import usable_firsts
from resight.train.unlabelled.fit_to import calibrated, check_different, fitted
from resight.train.unlabelled.objective import InsCLRObjective
from resight.train.unlabelled.quality import codes
from resight.train.unlabelled.together import main, own_folder, wait_for

ROWS, GROUND, MEMORY = "rows.npy", "ground.json", "memory"


@dataclass(frozen=True)
class Stage:
    """A stage of a run: its number from 1, its folder, its settings, the images of the run."""

    number: int
    folder: Path
    settings: InsCLRSettings
    images: ImageSet
    options: LoopOptions
    watcher: Watcher

    def tell(self, line: str) -> None:
        self.watcher.tell(line)

    def bar(self, what: str) -> Callable[[int, int], None]:
        """Progress of what comes before the training itself."""
        return lambda done, total: self.watcher.step(done, total, what)


@dataclass(frozen=True)
class Ground:
    """What a stage stands on: features of all images, their pool, the rows to draw from."""

    features: Features
    pool: Pool
    rows: NDArray[np.int64]
    settings: InsCLRSettings


def prepare(stage: Stage, embedder: Embedder) -> Ground:
    """Embed all images with the embedder as it stands, find neighbours, copies, inliers.

    Everything is kept on disk, so that a stage that was stopped goes on where it was. Of several
    processes the main one does it. Raises UserError when too few images can be used.
    """
    done = stage.folder / GROUND
    if main() and not done.is_file():
        ground = _made(stage, embedder)
        with atomic_open(stage.folder / ROWS) as file:
            np.save(file, ground.rows, allow_pickle=False)
        write_text(done, ground.settings.model_dump_json())  # last: all is there
    wait_for(done)
    settings = InsCLRSettings.model_validate(json.loads(done.read_text(encoding="utf-8")))
    rows = np.load(stage.folder / ROWS, allow_pickle=False)
    try:
        features = Features.load(stage.folder / "features", check=True)
        return Ground(features, Pool.load(stage.folder / "pool"), rows, settings)
    except UserError as fault:
        what = str(fault).partition("; ")[0]
        raise UserError(f"{what}; delete the folder {stage.folder} and resume the run") from None


def _made(stage: Stage, embedder: Embedder) -> Ground:
    own = stage.settings.pool
    embed = EmbedOptions(
        scales=own.scales, workers=stage.options.workers, strict=stage.options.strict
    )
    features = embed_images(
        at_size(embedder, own.size),
        stage.images,
        stage.folder / "features",
        options=embed,
        runtime="torch",
        progress=stage.bar("embedding"),
    )
    if stage.number == 1 and stage.settings.whiten is None:  # else they were told before
        tell_skipped(features, stage.tell)
    if collapsed(features, np.flatnonzero(features.valid)):
        stage.tell(f"stage {stage.number} starts from features that have {NOTE}")
    valid = usable_firsts(features, stage.images, own, stage.folder.parent, stage.tell)
    check_different(stage.images, features.valid, valid)
    rows = np.flatnonzero(valid)
    settings = fitted(stage.settings, len(rows))
    assert settings.pool.neighbours is not None
    pool = build_pool(
        features,
        stage.folder / "pool",
        k=settings.pool.neighbours,
        method=own.method,
        valid=valid,
        key={"features": features.info["key"], "images": len(rows)},
        progress=stage.bar("neighbours"),
        tell=stage.tell,
    )
    pool = _verified(stage, pool, settings)
    return Ground(features, pool, rows, calibrated(settings, pool, rows))


def _verified(stage: Stage, pool: Pool, settings: InsCLRSettings) -> Pool:
    spatial = settings.spatial
    if spatial is None:
        return pool
    # Local features don't change with the embedder: all stages share them.
    verifier = Verifier(
        stage.images, spatial, stage.folder.parent / "spatial", stage.options.workers
    )

    def count(pairs: NDArray[np.int64]) -> NDArray[np.int16]:
        pictures, open_ = verifier.todo(pairs)
        stage.tell(
            f"spatial verification of {len(pairs):,} pairs: {pictures:,} pictures and {open_:,} "
            "pairs to look at"
        )
        found = verifier.inliers(pairs, progress=stage.bar("spatial verification"))
        good = found >= spatial.min_inliers
        stage.tell(f"{int(good.sum()):,} pairs have {spatial.min_inliers} inliers or more")
        return np.where(good, found, 0).astype(np.int16)

    return add_inliers(
        pool,
        stage.folder / "pool",
        count,
        top=spatial.top,
        min_similarity=spatial.from_similarity,
        weight=spatial.weight,
        cap=spatial.cap,
    )


def train(stage: Stage, embedder: Embedder, ground: Ground, run: Run, *, resume: bool) -> Position:
    """Train the embedder on tuples of the pool, from its start or from the last checkpoint."""
    settings = ground.settings
    assert settings.tuples is not None and settings.lr is not None
    seed_everything(settings.seed + stage.number, settings.deterministic)
    bank = _bank(stage, embedder, ground, resume)
    if settings.freeze_bn:
        freeze_batchnorm(embedder)
    tune(embedder, settings.tune, settings.lora_rank)
    objective = InsCLRObjective(settings, look(ground, bank), bank, ground.rows)
    settings = settings.model_copy(update={"lr": settings.lr * settings.lr_factor})
    if not resume and main():
        run.cut_log(0)  # what a process wrote that was killed before its first checkpoint
    neighbours = np.asarray(ground.pool.neighbours)

    def batches(epoch: int) -> Any:
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

    story = Story(
        settings,
        embedder,
        objective,
        optimizers(settings, embedder, objective),
        labels=[],
        plan=TuplePlan(batches, plain=settings.similarity == "plain"),
    )
    return fit(story, stage.images, None, run, stage.options, resume=resume, watcher=stage.watcher)


def look(ground: Ground, bank: MemoryBank) -> Look:
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


def _bank(stage: Stage, embedder: Embedder, ground: Ground, resume: bool) -> MemoryBank:
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


def _fill_with_views(stage: Stage, embedder: Embedder, ground: Ground, bank: MemoryBank) -> None:
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


def at_size(embedder: Embedder, size: tuple[int, int] | None) -> Embedder:
    """The same embedder for pictures of another size."""
    if size is None or size == embedder.preprocess.size:
        return embedder
    preprocess = embedder.preprocess.model_copy(update={"size": size})
    other = Embedder(embedder.config.model_copy(update={"preprocess": preprocess}))
    other.load_state_dict(embedder.state_dict())
    other.info = embedder.info
    return other.to(embedder.device).eval()


def tell_skipped(features: Features, tell: Tell) -> None:
    """Name the images that can't be used: the first ten, and how many in all."""
    skipped = features.info.get("skipped", [])
    for bad in skipped[:10]:
        tell(f"skipped {bad['path']}: {bad['reason']}")
    if skipped:
        more = f" (and {len(skipped) - 10:,} more)" if len(skipped) > 10 else ""
        count = "1 bad image" if len(skipped) == 1 else f"{len(skipped):,} bad images"
        tell(f"{count} skipped{more}; 'resight data check' says what is wrong")


def clean(stage: Stage) -> None:
    """Remove what only the training of this stage needed: features and memory."""
    for path in (stage.folder / "features", *stage.folder.glob(MEMORY + "*")):
        shutil.rmtree(path, ignore_errors=True)
