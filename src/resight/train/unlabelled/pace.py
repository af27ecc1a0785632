"""How much training fits into a time, from a few steps that are thrown away."""

from __future__ import annotations

import time

import numpy as np
import torch

from resight.data.imageset import ImageSet
from resight.data.loading import Pictures, loader
from resight.models.embedder import Embedder, pick_device
from resight.models.tuning import freeze_batchnorm, tune
from resight.train.prepare import definite
from resight.train.recipes.graph import GraphSettings
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.recipes.unlabelled import UnlabelledSettings
from resight.train.unlabelled.fit_to import FEWEST_STEPS, fitted, unlabelled_rows

_STEPS, _WARM = 6, 2


def fitting(
    settings: UnlabelledSettings, images: ImageSet, minutes: float, workers: int | None
) -> tuple[UnlabelledSettings, float]:
    """The settings with as many epochs of each stage as fit; and the measured images a second.

    A step is taken to be a pass forward and back of the augmented pictures and, where selection
    looks at them, one forward of the plain ones. All images are embedded once before each stage,
    once for the start, and once for the end where that is fitted. Where not even one epoch fits,
    epochs are of fewer steps.
    """
    found = unlabelled_rows(settings, images, _still)
    count = len(found)
    chosen = fitted(definite(settings, found, _still), count)
    seconds = rate = 0.0
    passes = len(chosen.stages) + 1 + isinstance(chosen, GraphSettings)
    left, shortest = 60 * minutes, 0
    for k in range(len(chosen.stages)):
        stage = fitted(chosen.stage(k), count)
        if k == 0 or stage.size != chosen.stage(k - 1).size:
            rate = _rate(stage, images, workers)
        if k == 0:
            left -= passes * count / (3 * rate)  # embedding is about a third of training
        assert stage.steps is not None and stage.tuples is not None
        seconds += stage.steps * stage.tuples * (stage.neighbours + stage.views) / rate
        shortest = max(shortest, stage.steps)
    times = left / max(seconds, 1e-9)
    if times >= 1 or settings.steps is not None:
        return settings.model_copy(update={"epochs": max(1, int(times))}), rate
    steps = max(FEWEST_STEPS, int(times * shortest))
    return settings.model_copy(update={"epochs": 1, "steps": min(steps, shortest)}), rate


def _rate(settings: UnlabelledSettings, images: ImageSet, workers: int | None) -> float:
    embedder = Embedder(settings.embedder()).to(pick_device())
    if settings.freeze_bn:
        freeze_batchnorm(embedder)
    tune(embedder, settings.tune, settings.lora_rank)
    plain = isinstance(settings, InsCLRSettings) and settings.similarity == "plain"
    pictures = Pictures(images, embedder.preprocess, settings.augment, both=plain)
    assert settings.tuples is not None
    size = settings.tuples * (settings.neighbours + settings.views)
    rows = np.random.default_rng(0).integers(0, len(images), (_STEPS + _WARM, size))
    taken, began = 0, time.perf_counter()
    for k, batch in enumerate(loader(pictures, [[(int(r), 0) for r in b] for b in rows], workers)):
        if k == _WARM:
            taken, began = 0, time.perf_counter()
        if not len(batch.rows):
            continue
        if batch.plain is not None:
            embedder.embed_tensor(batch.plain)
        embedder.train()
        torch.autograd.backward(embedder.features(batch.images.to(embedder.device)).sum())
        taken += len(batch.rows)
    return max(taken, 1) / max(time.perf_counter() - began, 1e-9)


def _still(line: str) -> None:
    pass
