"""From settings and an image set to a finished run folder."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from resight.data.decode import BadImage, shape_of
from resight.data.imageset import ImageSet
from resight.data.loading import Pictures, loader
from resight.data.sources import load_images
from resight.data.splits import Parts, training_parts
from resight.errors import UserError
from resight.files import check_folder
from resight.models.embedder import Embedder, pick_device
from resight.models.open import embedder_folder
from resight.models.weights import load_backbone_weights
from resight.settings import build, read_yaml
from resight.train.loop import LoopOptions, Position, Watcher, fit
from resight.train.recipes import RECIPES
from resight.train.recipes.ctl import CTLSettings, CTLStory
from resight.train.rundir import IMAGES, RECORD, SETTINGS, Run
from resight.train.validate import Validation


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, the position it ended at, and the parts of the data."""

    run: Run
    position: Position
    parts: Parts


def start(
    settings: CTLSettings,
    images: ImageSet,
    out: Path,
    options: LoopOptions,
    watcher: Watcher,
    *,
    force: bool = False,
) -> Outcome:
    """Train a recipe on the training objects of an image set, into a new run folder.

    Raises UserError: data or settings that don't do, weights that can't be had, `out` in use.
    """
    check_out(out, force)
    watcher = _of_main(watcher)
    parts = training_parts(images, val_share=settings.val_share, seed=settings.seed)
    settings = with_size(settings, parts.train, watcher.tell)
    if settings.backbone == "resnet50" and pick_device().type == "cpu":
        watcher.tell("no GPU: resnet50 will be slow; --backbone resnet18 takes half the time")
    story = build_story(settings, parts, watcher.tell)
    if is_main():
        Run.create(out, settings, parts.images, force=force)
    PartialState().wait_for_everyone()
    run = Run.open(out)
    return _fit(run, settings, story, parts, options, watcher, resume=False)


def resume(folder: Path, options: LoopOptions, watcher: Watcher) -> Outcome:
    """Go on with a run where its last checkpoint left it.

    Raises UserError when it is no run, is finished, or its images are not what they were.
    """
    run = Run.open(folder)
    watcher = _of_main(watcher)
    record = run.record
    if record["finished"]:
        raise UserError(f"{folder}: this run is finished; its embedder is {folder / 'embedder'}")
    images = load_images(folder / IMAGES)
    kind = RECIPES[record["settings"]["recipe"]][0]
    settings = build(kind, read_yaml(folder / SETTINGS), str(folder / SETTINGS))
    if changed(record["data"], images):
        raise UserError(
            f"{folder}: the images are not those that this run began with (fingerprints differ); "
            "put them back, or start a new run"
        )
    parts = training_parts(images, val_share=settings.val_share, seed=settings.seed)
    # The checkpoint brings the weights: nothing is to be loaded, or told of, here.
    story = build_story(settings.model_copy(update={"weights": "none"}), parts, lambda line: None)
    return _fit(run, settings, story, parts, options, watcher, resume=True)


def with_size(settings: CTLSettings, images: ImageSet, tell: Callable[[str], None]) -> CTLSettings:
    """Choose the input size, where none is set, from the shapes of (a sample of) the images.

    Square, up to 224; 2 : 1 for upright images (people) and 1 : 2 for lying ones, up to 256; not
    much larger than the images themselves, and at least 96 (128).
    """
    if settings.size is not None:
        return settings
    shapes = []
    for row in np.unique(np.linspace(0, len(images) - 1, 64).astype(int)):
        box = images.table["box"][int(row)]
        with contextlib.suppress(BadImage):
            shapes.append(shape_of(images.full_paths()[row], box))
    if not shapes:
        raise UserError(f"{images.source}: not one of its training images can be read")
    sizes = np.array(shapes)
    height, width = np.median(sizes, axis=0)
    shape = float(np.median(sizes[:, 0] / sizes[:, 1]))
    if 1 / 1.5 < shape < 1.5:
        side = min(224, max(96, 32 * math.ceil(max(height, width) / 32)))
        size = (side, side)
    else:
        long = min(256, max(128, 64 * math.ceil(max(height, width) / 64)))
        size = (long, long // 2) if shape > 1 else (long // 2, long)
    tell(f"input size {size[0]} x {size[1]}, from the images' shapes (--size decides)")
    return settings.model_copy(update={"size": size})


def build_story(settings: CTLSettings, parts: Parts, tell: Callable[[str], None]) -> CTLStory:
    """The recipe for these training objects, with its initial weights."""
    seed_everything(settings.seed, settings.deterministic)
    embedder = Embedder(settings.embedder())
    if embedder.config.last_stride != settings.last_stride:
        tell(f"{settings.backbone} has no last stride to remove; it is kept")
    initial_weights(embedder, settings.weights, settings.partial_weights, tell)
    classes = {name: k for k, name in enumerate(parts.train.objects())}
    labels = [classes[name] for name in parts.train.table["object"]]
    return RECIPES[settings.recipe][1](settings, embedder, labels)


def initial_weights(
    embedder: Embedder, source: str, partial: bool, tell: Callable[[str], None]
) -> None:
    """Load "none", "auto" (imagenet, or none when the hub is out of reach), a file, an embedder."""
    if source == "none":
        tell("no pretrained weights: training starts from random ones")
        return
    folder = embedder_folder(source)
    if folder is not None:
        _from_embedder(embedder, Embedder.load(folder, "cpu"), source)
        tell(f"weights {source}: all tensors of the embedder loaded")
        return
    name = embedder.config.backbone
    try:
        match = load_backbone_weights(
            embedder.backbone, name, "imagenet" if source == "auto" else source, partial
        )
    except UserError as error:
        if source != "auto":
            raise
        tell(f"{error}")
        tell("training starts from random weights, which needs more data and time")
        return
    for line in match.lines():
        tell(line)


def _from_embedder(embedder: Embedder, other: Embedder, source: str) -> None:
    try:
        embedder.load_state_dict(other.state_dict())
    except RuntimeError:
        raise UserError(
            f"--weights {source}: an embedder of another make ({other.config.backbone}, "
            f"{other.dim} dimensions); set the same backbone, pooling and projection"
        ) from None


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed all generators; `deterministic` also asks for kernels that repeat to the last bit."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def changed(data: dict[str, object], images: ImageSet) -> bool:
    """Whether the images differ in number or size from those a record was made with."""
    return data["fingerprint"] != images.fingerprint()


def epochs_for(
    settings: CTLSettings, images: ImageSet, minutes: float, workers: int | None
) -> tuple[int, float]:
    """How many epochs fit into `minutes`, from a few steps that are thrown away.

    Returns the number (at least 1) and the measured images a second, reading included.
    """
    parts = training_parts(images, val_share=settings.val_share, seed=settings.seed)
    settings = with_size(settings, parts.train, lambda line: None)
    story = build_story(settings.model_copy(update={"weights": "none"}), parts, lambda line: None)
    device = pick_device()
    story.model.to(device).train()
    batches = story.batches(0, 0, 1)
    steps, taken, startup = 8, 0, 0.0
    began = time.perf_counter()
    for k, batch in enumerate(
        loader(Pictures(parts.train, story.embedder.preprocess, story.augment), batches, workers)
    ):
        if k == 0:  # starting the readers costs this much in every epoch
            startup = time.perf_counter() - began
        if k == 2:  # the first steps warm up
            taken, began = 0, time.perf_counter()
        if k == steps:
            break
        if len(batch.rows) < 2:
            continue
        labels = torch.tensor(story.labels)[batch.rows].to(device)
        story.model(batch.images.to(device), labels)["loss"].backward()
        story.optimizers[0].step()
        taken += len(batch.rows)
    rate = taken / max(time.perf_counter() - began, 1e-9)
    # An image of the validation costs about a third of one trained on.
    validated = len(parts.val) / 3 / settings.validate_every
    an_epoch = (sum(map(len, batches)) + validated) / max(rate, 1e-9)
    an_epoch += startup * (1 + 1 / settings.validate_every)
    return max(1, int(60 * minutes / an_epoch)), rate


def _fit(
    run: Run,
    settings: CTLSettings,
    story: CTLStory,
    parts: Parts,
    options: LoopOptions,
    watcher: Watcher,
    *,
    resume: bool,
) -> Outcome:
    for line in parts.notes:
        watcher.tell(line)
    watcher.tell(
        f"training on {len(parts.train):,} images of {len(parts.train.objects()):,} objects, "
        f"validating on {len(parts.val):,} of {len(parts.val.objects()):,}"
    )
    record = run.record
    story.embedder.info = {
        "recipe": settings.model_dump(mode="json"),
        "data": record["data"] | {"training_objects": len(parts.train.objects())},
        "resight": record["resight"],
        "versions": record["versions"],
    }
    usable = len(parts.val.objects()) >= 2
    validation = (
        Validation(parts.val, settings.validate_every, settings.select_by, options.workers)
        if usable
        else None
    )
    if validation is None:
        watcher.tell("too few objects to hold any out: the last epoch's embedder is kept")
    options = replace(options, precision=_precision(settings.precision))
    position = fit(story, parts.train, validation, run, options, resume=resume, watcher=watcher)
    if is_main():
        _finish(run, position, settings)
    return Outcome(run, position, parts)


def is_main() -> bool:
    """Whether this is the only process, or the one of several that talks and writes."""
    return bool(PartialState().is_main_process)


def check_out(out: Path, force: bool) -> None:
    """Check that a run can be written to `out`, before any work; raises UserError."""
    if is_main():
        check_folder(out, "a training run", mark=RECORD, force=force)


def _of_main(watcher: Watcher) -> Watcher:
    """Of several processes only the main one talks."""
    return watcher if is_main() else Watcher()


def _finish(run: Run, position: Position, settings: CTLSettings) -> None:
    run.update(
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        seconds=round(position.seconds, 1),
        best={"epoch": position.best_epoch, settings.select_by: position.best},
        skipped=position.skipped,
    )


def _precision(asked: str) -> str:
    """ "auto" is bfloat16 where the GPU has it, else float32."""
    if asked != "auto":
        return asked
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
