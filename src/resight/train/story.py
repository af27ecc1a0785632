"""A recipe, built for a set of training images: all that the loop asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from resight.data.loading import Draw
from resight.models.embedder import Embedder
from resight.models.tuning import freeze_batchnorm, parameter_groups, tune
from resight.sampling.balanced import balanced_batches
from resight.sampling.hierarchical import hierarchical_batches
from resight.sampling.tuples import TupleBatch
from resight.train.recipes import OBJECTIVES
from resight.train.recipes.settings import CommonSettings, Objective, TrainSettings
from resight.train.schedule import warmup_cosine, warmup_steps


@dataclass(frozen=True)
class TuplePlan:
    """Batches of tuples for an epoch: `make(epoch)`, a pure function of the epoch.

    `plain`: whether the objective wants the pictures without augmentation too.
    """

    make: Callable[[int], list[TupleBatch]]
    plain: bool = False
    _last: dict[str, Any] = field(default_factory=dict, repr=False)

    def epoch(self, epoch: int) -> list[TupleBatch]:
        """The batches; those of the last epoch asked for are remembered."""
        if self._last.get("epoch") != epoch:
            self._last.update(epoch=epoch, batches=self.make(epoch))
        found: list[TupleBatch] = self._last["batches"]
        return found

    def targets(self, epoch: int, batch: int, rows: torch.Tensor) -> torch.Tensor:
        """Row and tuple of each image, (b, 2) int64."""
        tuple_of = self.epoch(epoch)[batch].tuple_of
        return torch.tensor([[row, tuple_of[row]] for row in rows.tolist()]).reshape(-1, 2)


@dataclass
class Story:
    """What is trained, by what, on which labels (one class index, from 0, an image).

    `objective(f, e, labels)` gives the losses by name, "loss" among them, which is minimised.
    The rate of the first optimiser follows the schedule, the others keep theirs. `supers`: a
    super-class for each image, where batches come from two of them. `plan`: where there are no
    labels, batches of tuples; the objective then gets what `TuplePlan.targets` says.
    """

    settings: CommonSettings
    embedder: Embedder
    objective: Objective
    optimizers: list[torch.optim.Optimizer]
    labels: list[int]
    supers: list[int] | None = None
    plan: TuplePlan | None = None

    @property
    def length(self) -> int | None:
        """The number of steps after which training ends; None where epochs are counted."""
        s = self.settings
        return s.steps if isinstance(s, TrainSettings) else None

    @property
    def state(self) -> nn.Module:
        """Everything that is trained, as one module: what a checkpoint holds."""
        return nn.ModuleDict({"embedder": self.embedder, "objective": self.objective})

    def batches(self, epoch: int) -> list[list[Draw]]:
        """The batches of an epoch, of all processes together; a pure function of the epoch."""
        if self.plan is not None:
            return [batch.draws for batch in self.plan.epoch(epoch)]
        s = self.settings
        assert isinstance(s, TrainSettings)
        if self.supers is not None:
            return hierarchical_batches(
                self.labels, self.supers, ids=s.ids, images=s.images, seed=s.seed, epoch=epoch
            )
        return balanced_batches(self.labels, ids=s.ids, images=s.images, seed=s.seed, epoch=epoch)

    def targets(self, epoch: int, batch: int, rows: torch.Tensor) -> torch.Tensor:
        """What the objective is told of the images `rows` (b,) of a batch: their labels (b,)."""
        if self.plan is not None:
            return self.plan.targets(epoch, batch, rows)
        return torch.tensor(self.labels)[rows]

    def set_rates(self, epoch: int, step: int) -> float:
        """Set the rates of a step (from 0) of an epoch; the backbone's is returned."""
        s = self.settings
        if isinstance(s, TrainSettings) and s.steps is not None:
            factor = warmup_cosine(step, steps=max(1, s.steps), warmup=s.warmup)
        else:
            warmup, milestones = s.schedule()
            factor = warmup_steps(epoch, warmup=warmup, milestones=milestones, gamma=s.gamma)
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
    objective = OBJECTIVES[settings.recipe](settings, max(labels) + 1, embedder.features_dim)
    return Story(
        settings, embedder, objective, optimizers(settings, embedder, objective), labels, supers
    )


def optimizers(
    settings: CommonSettings, embedder: Embedder, objective: Objective
) -> list[torch.optim.Optimizer]:
    """Those of the objective, over what of the embedder is trained."""
    assert settings.lr is not None
    groups = parameter_groups(embedder, settings.lr, settings.head_lr, settings.weight_decay)
    found = objective.optimizers(groups)
    for group in found[0].param_groups:
        group["base_lr"] = group["lr"]
    return found
