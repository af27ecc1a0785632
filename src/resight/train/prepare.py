"""From settings to what is trained: input size, learning rate, initial weights, the story."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import torch

from resight import lightly
from resight.data.decode import BadImage, shape_of
from resight.data.imageset import ImageSet
from resight.data.loading import Pictures, loader
from resight.data.splits import Parts, training_parts
from resight.errors import UserError
from resight.models.embedder import Embedder, embedder_folder
from resight.models.open import AUTO, auto_backbone
from resight.models.rates import default_lr
from resight.models.weights import load_backbone_weights
from resight.train.recipes.settings import CommonSettings, TrainSettings
from resight.train.step import Stepper, accelerator
from resight.train.story import Story, compose

Tell = Callable[[str], None]
_FEWEST_STEPS = 20  # that are worth beginning with
Kind = TypeVar("Kind", bound=CommonSettings)


def with_size(settings: Kind, images: ImageSet, tell: Tell) -> Kind:
    """Choose the input size, where none is set, from the shapes of (a sample of) the images."""
    if settings.size is not None:
        return settings
    return settings.model_copy(update={"size": size_for(images, tell)})


def size_for(images: ImageSet, tell: Tell) -> tuple[int, int]:
    """An input size (height, width) that suits the shapes of (a sample of) the images.

    Square, up to 224; 2 : 1 for upright images (people) and 1 : 2 for lying ones, up to 256; not
    much larger than the images themselves, and at least 96 (128).

    Raises UserError when none of them can be read.
    """
    shapes = []
    for row in np.unique(np.linspace(0, len(images) - 1, 64).astype(int)):
        box = images.table["box"][int(row)]
        with contextlib.suppress(BadImage):
            shapes.append(shape_of(images.full_paths()[row], box))
    if not shapes:
        raise UserError(f"{images.source}: not one of its images can be read")
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
    return size


def definite(settings: Kind, images: ImageSet, tell: Tell) -> Kind:
    """With backbone, input size and learning rate, where they are left open."""
    if settings.backbone == AUTO:
        settings = settings.model_copy(update={"backbone": auto_backbone(tell=tell)})
    return with_rate(with_size(settings, images, tell), tell)


def with_rate(settings: Kind, tell: Tell) -> Kind:
    """Choose the learning rate, where none is set: the recipe's own, or what the backbone needs."""
    if settings.lr is not None:
        return settings
    rate, why = default_lr(settings.backbone, settings.tune, convnet=settings.CONVNET_LR)
    tell(f"learning rate {rate:g}: {why} (--set lr=... decides)")
    return settings.model_copy(update={"lr": rate})


def build_story(
    settings: TrainSettings, parts: Parts, tell: Tell, *, start: Path | None = None
) -> Story:
    """The recipe for these training objects, with its initial weights: those of `start`, a folder
    with the embedder that a closed form gave, where there is one."""
    supers = _supers(settings, parts.train)
    seed_everything(settings.seed, settings.deterministic)
    embedder = Embedder(settings.embedder())
    if start is not None:
        fitted = Embedder.load(start, "cpu")
        embedder.load_state_dict(fitted.state_dict())
        embedder.info = fitted.info
    else:
        if embedder.config.last_stride != settings.last_stride:
            tell(f"{settings.backbone} has no last stride to remove; it is kept")
        initial_weights(embedder, settings.weights, settings.partial_weights, tell)
    classes = {name: k for k, name in enumerate(parts.train.objects())}
    labels = [classes[name] for name in parts.train.table["object"]]
    return compose(settings, embedder, labels, supers)


def _supers(settings: TrainSettings, images: ImageSet) -> list[int] | None:
    """The super-class of each image, as a number. Raises UserError without such a column."""
    name = settings.super_class
    if name is None:
        return None
    if name not in images.table.columns:
        raise UserError(
            f"--set super_class={name}: {images.source} has no such column; there are: "
            f"{', '.join(images.table.columns)}"
        )
    values = images.table[name]
    if values.null_count():
        raise UserError(f"{images.source}: {values.null_count():,} rows without a {name}")
    counts = images.table.group_by("object").agg(pl.col(name).n_unique())
    split = counts.filter(pl.col(name) > 1)["object"].sort()
    if len(split):
        raise UserError(
            f"--set super_class={name}: {len(split):,} objects have several, "
            f"{', '.join(split.head(3).to_list())} among them; an object needs one"
        )
    codes = {value: k for k, value in enumerate(values.unique().sort())}
    return [codes[value] for value in values]


def initial_weights(embedder: Embedder, source: str, partial: bool, tell: Tell) -> None:
    """Load "none", "auto" (what can be had), "imagenet", a file, or all of another embedder."""
    if source == "none":
        tell("no pretrained weights: training starts from random ones")
        return
    folder = embedder_folder(source)
    if folder is not None:
        _from_embedder(embedder, Embedder.load(folder, "cpu"), source)
        tell(f"weights {source}: all tensors of the embedder loaded")
        return
    for line in load_backbone_weights(
        embedder.backbone, embedder.config.backbone, source, partial
    ).lines():
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
    lightly.be_deterministic(deterministic)


def epochs_for(
    settings: TrainSettings, images: ImageSet, minutes: float, workers: int | None
) -> tuple[int, float]:
    """How many epochs fit into `minutes`, from a few steps that are thrown away.

    Returns the number (at least 1) and the measured images a second, reading included.
    """
    parts = training_parts(images, val_share=settings.val_share, seed=settings.seed)
    settings = definite(settings, parts.train, lambda line: None)
    story = build_story(settings.model_copy(update={"weights": "none"}), parts, lambda line: None)
    rate, startup = pace_of(story, parts.train, workers)
    # An image of the validation costs about a third of one trained on.
    validated = len(parts.val) / 3 / settings.validate_every
    an_epoch = (sum(map(len, story.batches(0))) + validated) / max(rate, 1e-9)
    an_epoch += startup * (1 + 1 / settings.validate_every)
    return max(1, int(60 * minutes / an_epoch)), rate


def pace_of(story: Story, images: ImageSet, workers: int | None) -> tuple[float, float]:
    """Images a second, reading included, and the seconds that starting the readers costs.

    From a few steps of the story, which is of no use afterwards.
    """
    stepper = Stepper(story, accelerator())
    steps, taken, startup = 8, 0, 0.0
    began = time.perf_counter()
    for k, batch in enumerate(
        loader(
            Pictures(images, story.embedder.preprocess, story.settings.augment),
            story.batches(0),
            workers,
        )
    ):
        if k == 0:  # starting the readers costs this much in every epoch
            startup = time.perf_counter() - began
        if k == 2:  # the first steps warm up
            taken, began = 0, time.perf_counter()
        if k == steps:
            break
        if len(batch.rows) < 2:
            continue
        stepper(batch.images, story.targets(0, k, batch.rows), update=True)
        taken += len(batch.rows)
    return taken / max(time.perf_counter() - began, 1e-9), startup


def timed(
    settings: TrainSettings, parts: Parts, start: Path, seconds: float, workers: int | None
) -> tuple[TrainSettings, float]:
    """The settings with as many steps as fit into `seconds`, and the measured images a second.

    Validations come out at about a tenth of it; with `refit` the training images are embedded once
    more at the end. No steps where hardly any would fit.
    """
    began = time.perf_counter()
    story = build_story(settings.model_copy(update={"steps": 1}), parts, _quiet, start=start)
    rate, startup = pace_of(story, parts.train, workers)
    seconds -= time.perf_counter() - began
    # An image that is embedded costs about a third of one trained on.
    validation = len(parts.val) / 3 / rate + startup
    if settings.refit:
        seconds -= (len(parts.train) + len(parts.val)) / 3 / rate + startup
    batches = story.batches(0)
    a_step = sum(map(len, batches)) / len(batches) / rate + startup / len(batches)
    steps = int((seconds - validation) / a_step)
    if steps < _FEWEST_STEPS:
        return settings.model_copy(update={"steps": 0}), rate
    every = max(1, round(10 * validation / (len(batches) * a_step)), steps // (5 * len(batches)))
    steps = int((seconds - validation * (1 + steps / (every * len(batches)))) / a_step)
    return settings.model_copy(update={"steps": max(0, steps), "validate_every": every}), rate


def _quiet(line: str) -> None:
    """For what was told before."""
