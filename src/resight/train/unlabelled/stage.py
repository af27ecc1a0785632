"""One stage, whatever is learned in it: features of the model as it stands, copies, the pool."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.features.collapsed import NOTE, collapsed
from resight.features.compute import EmbedOptions
from resight.features.store import Features
from resight.features.write import embed_images
from resight.files import atomic_open, write_text
from resight.graph.pool import Pool, add_inliers, build_pool
from resight.models.embedder import Embedder
from resight.models.tuning import freeze_batchnorm, tune
from resight.sampling.tuples import TupleBatch
from resight.spatial.verify import Verifier
from resight.train.loop import LoopOptions, Position, Watcher, fit
from resight.train.prepare import Tell
from resight.train.recipes.settings import Objective
from resight.train.recipes.unlabelled import UnlabelledSettings
from resight.train.rundir import Run
from resight.train.story import Story, TuplePlan, optimizers
from resight.train.unlabelled.copies import usable_firsts
from resight.train.unlabelled.fit_to import check_different, fitted
from resight.train.unlabelled.together import main, wait_for

ROWS, GROUND, EVIDENCE = "rows.npy", "ground.json", "evidence.html"


Kind = TypeVar("Kind", bound=UnlabelledSettings)


@dataclass(frozen=True)
class Stage(Generic[Kind]):
    """A stage of a run: its number from 1, its folder, its settings, the images of the run."""

    number: int
    folder: Path
    settings: Kind
    images: ImageSet
    options: LoopOptions
    watcher: Watcher

    def tell(self, line: str) -> None:
        self.watcher.tell(line)

    def bar(self, what: str) -> Callable[[int, int], None]:
        """Progress of what comes before the training itself."""
        return lambda done, total: self.watcher.step(done, total, what)


@dataclass(frozen=True)
class Ground(Generic[Kind]):
    """What a stage stands on: features of all images, their pool, the rows to draw from."""

    features: Features
    pool: Pool
    rows: NDArray[np.int64]
    settings: Kind


def prepare(
    stage: Stage[Kind], embedder: Embedder, settle: Callable[[Stage[Kind], Ground[Kind]], Kind]
) -> Ground[Kind]:
    """Embed all images with the embedder as it stands, find neighbours, copies, inliers.

    `settle` then says what the recipe's settings left open. Everything is kept on disk, so that a
    stage that was stopped goes on where it was. Of several processes the main one does it.

    Raises UserError when too few images can be used.
    """
    done = stage.folder / GROUND
    if main() and not done.is_file():
        ground = _made(stage, embedder)
        settled = settle(stage, ground)
        with atomic_open(stage.folder / ROWS) as file:
            np.save(file, ground.rows, allow_pickle=False)
        write_text(done, settled.model_dump_json())  # last: all is there
    wait_for(done)
    settings = stage.settings.model_validate(json.loads(done.read_text(encoding="utf-8")))
    rows = np.load(stage.folder / ROWS, allow_pickle=False)
    try:
        features = Features.load(stage.folder / "features", check=True)
        return Ground(features, Pool.load(stage.folder / "pool"), rows, settings)
    except UserError as fault:
        what = str(fault).partition("; ")[0]
        raise UserError(f"{what}; delete the folder {stage.folder} and resume the run") from None


def _made(stage: Stage[Kind], embedder: Embedder) -> Ground[Kind]:
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
    return Ground(features, pool, rows, settings)


def _verified(stage: Stage[Kind], pool: Pool, settings: Kind) -> Pool:
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
        return np.where(good, found, np.minimum(found, 0)).astype(np.int16)

    return add_inliers(
        pool,
        stage.folder / "pool",
        count,
        top=spatial.top,
        min_similarity=spatial.from_similarity,
        weight=spatial.weight,
        cap=spatial.cap,
    )


def learn(
    stage: Stage[Kind],
    embedder: Embedder,
    settings: Kind,
    run: Run,
    resume: bool,
    *,
    objective: Callable[[], Objective],
    batches: Callable[[int], list[TupleBatch]],
    plain: bool = False,
) -> Position:
    """Train the embedder, from its start or from the last checkpoint.

    objective(): what is minimised, made once it is known what is trained; batches(epoch), and
    `plain`: see `TuplePlan`. The settings are those of the stage's ground.
    """
    assert settings.lr is not None
    if settings.freeze_bn:
        freeze_batchnorm(embedder)
    tune(embedder, settings.tune, settings.lora_rank)
    made = objective()
    settings = settings.model_copy(update={"lr": settings.lr * settings.lr_factor})
    if not resume and main():
        run.cut_log(0)  # what a process wrote that was killed before its first checkpoint
    story = Story(
        settings,
        embedder,
        made,
        optimizers(settings, embedder, made),
        labels=[],
        plan=TuplePlan(batches, plain=plain),
    )
    return fit(story, stage.images, None, run, stage.options, resume=resume, watcher=stage.watcher)


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
