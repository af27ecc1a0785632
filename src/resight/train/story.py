"""A recipe, built for a set of training images: all that the loop asks for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from resight.data.loading import Draw
from resight.models.embedder import Embedder
from resight.models.tuning import freeze_batchnorm, parameter_groups, tune
from resight.sampling.balanced import balanced_batches
from resight.sampling.hierarchical import hierarchical_batches
from resight.train.recipes import RECIPES
from resight.train.recipes.settings import Objective, TrainSettings
from resight.train.schedule import warmup_steps


@dataclass
class Story:
    """What is trained, by what, on which labels (one class index, from 0, an image).

    `objective(f, e, labels)` gives the losses by name, "loss" among them, which is minimised.
    The rate of the first optimiser follows the schedule, the others keep theirs. `supers`: a
    super-class for each image, where batches come from two of them.
    """

    settings: TrainSettings
    embedder: Embedder
    objective: Objective
    optimizers: list[torch.optim.Optimizer]
    labels: list[int]
    supers: list[int] | None = None

    @property
    def state(self) -> nn.Module:
        """Everything that is trained, as one module: what a checkpoint holds."""
        return nn.ModuleDict({"embedder": self.embedder, "objective": self.objective})

    def batches(self, epoch: int) -> list[list[Draw]]:
        """The batches of an epoch, of all processes together; a pure function of the epoch."""
        s = self.settings
        if self.supers is not None:
            return hierarchical_batches(
                self.labels, self.supers, ids=s.ids, images=s.images, seed=s.seed, epoch=epoch
            )
        return balanced_batches(self.labels, ids=s.ids, images=s.images, seed=s.seed, epoch=epoch)

    def start_epoch(self, epoch: int) -> float:
        """Set the rates of an epoch; the backbone's is returned."""
        warmup, milestones = self.settings.schedule()
        factor = warmup_steps(
            epoch, warmup=warmup, milestones=milestones, gamma=self.settings.gamma
        )
        groups = self.optimizers[0].param_groups
        for group in groups:
            group["lr"] = factor * group["base_lr"]
        return float(groups[0]["lr"])


def compose(
    settings: TrainSettings, embedder: Embedder, labels: list[int], supers: list[int] | None = None
) -> Story:
    """The recipe with its losses and optimisers, for an embedder that has its initial weights.

    `settings.lr` must be known by now. Raises UserError when nothing would be trained.
    """
    assert settings.lr is not None
    if settings.freeze_bn:
        freeze_batchnorm(embedder)
    tune(embedder, settings.tune, settings.lora_rank)
    objective = RECIPES[settings.recipe][1](settings, max(labels) + 1, embedder.dim)
    groups = parameter_groups(embedder, settings.lr, settings.head_lr, settings.weight_decay)
    optimizers = objective.optimizers(groups)
    for group in optimizers[0].param_groups:
        group["base_lr"] = group["lr"]
    return Story(settings, embedder, objective, optimizers, labels, supers)
