"""CTL: train with the centroids of classes (Wieczorek, Rychalska, Dąbrowski, ICONIP 2021).

    f = pooled backbone feature, e = BN(f)
    L = L_triplet(f) + L_ctl(f) + L_ce(W e) + 5e-4 · L_center(f)

Batches of P ids with up to M images each; Adam with warm-up and steps. Section 3 of the paper,
and the details of its released code where the paper is silent.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from resight.losses.center import CenterLoss
from resight.losses.classifier import ClassifierLoss
from resight.losses.ctl import CentroidTripletLoss, Variant
from resight.losses.triplet import TripletLoss
from resight.train.recipes.settings import Objective, Rate, TrainSettings, Weight


class CTLSettings(TrainSettings):
    """All settings of the recipe; the defaults are the paper's for re-identification.

    Warm-up and steps: the paper's 10, and 40 and 70, of 120 epochs.
    """

    CONVNET_LR: ClassVar[float] = 3.5e-4

    recipe: Literal["ctl"] = "ctl"
    warmup: Weight = 1 / 12
    milestones: tuple[Rate, ...] = (1 / 3, 7 / 12)

    variant: Variant = "official"
    margin: Weight = 0.5
    ctl_margin: Weight | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    triplet_weight: Weight = 1.0
    ctl_weight: Weight = 1.0
    ce_weight: Weight = 1.0
    center_weight: Weight = 5e-4
    center_lr: Weight = 0.5


class CTLObjective(Objective):
    """Features, embeddings and labels in, losses by name out."""

    def __init__(self, settings: CTLSettings, classes: int, features: int):
        super().__init__()
        self.settings = settings
        self.classifier = ClassifierLoss(classes, features, settings.label_smoothing)
        self.center = CenterLoss(classes, features)
        self.triplet = TripletLoss(settings.margin)
        self.ctl = CentroidTripletLoss(settings.variant, settings.ctl_margin)

    def forward(
        self, f: torch.Tensor, e: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """f, e (B, D), labels (B,) int64 -> "loss" and its parts, scalars."""
        s = self.settings
        losses = {
            "ce": self.classifier(e, labels),
            "triplet": self.triplet(f, labels),
            "ctl": self.ctl(f, labels),
            "center": self.center(f, labels),
        }
        loss = (
            s.triplet_weight * losses["triplet"]
            + s.ctl_weight * losses["ctl"]
            + s.ce_weight * losses["ce"]
            + s.center_weight * losses["center"]
        )
        # The weight of the centre loss must not slow the centres: they get the gradient that
        # they would have with a weight of 1. The value of the loss stays as it is.
        lift = (1 - s.center_weight) * self.center(f.detach(), labels)
        return {"loss": loss + (lift - lift.detach())} | losses

    def optimizers(self, groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
        """Adam over the embedder's groups and the classifier; SGD for the centres."""
        s = self.settings
        assert s.lr is not None
        own = {
            "params": list(self.classifier.parameters()),
            "lr": s.lr,
            "weight_decay": s.weight_decay,
        }
        return [
            torch.optim.Adam([*groups, own]),
            torch.optim.SGD(self.center.parameters(), lr=s.center_lr),
        ]
