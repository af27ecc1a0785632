"""CTL: train with the centroids of classes (Wieczorek, Rychalska, Dąbrowski, ICONIP 2021).

    f = pooled backbone feature, e = BN(f)
    L = L_triplet(f) + L_ctl(f) + L_ce(W e) + 5e-4 · L_center(f)

Batches of P ids with up to M images each; Adam with warm-up and steps. Section 3 of the paper,
and the details of its released code where the paper is silent.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from resight.data.loading import Draw
from resight.data.transforms import Augment, Side
from resight.losses.center import CenterLoss
from resight.losses.ctl import CentroidTripletLoss, Variant
from resight.losses.triplet import TripletLoss
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.heads import classifier
from resight.models.open import preprocess_for
from resight.sampling.balanced import balanced_batches
from resight.train.schedule import warmup_steps

Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class CTLSettings(BaseModel):
    """All settings of the recipe; the defaults are the paper's for re-identification."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Literal["ctl"] = "ctl"
    backbone: str = "resnet50"
    weights: str = "imagenet"
    partial_weights: bool = False
    last_stride: Literal[1, 2] = 1
    pooling: Literal["auto", "average", "gem", "model"] = "auto"
    projection: Count | None = None
    size: tuple[Side, Side] | None = None  # height, width; by default from the images' shapes
    augment: Augment = Augment()

    ids: Annotated[int, Field(ge=2)] = 16
    images: Annotated[int, Field(ge=2)] = 4
    epochs: Count = 120
    lr: Annotated[float, Field(gt=0)] = 3.5e-4
    weight_decay: Weight = 5e-4
    # By default 1/12, and 1/3 and 7/12 of the epochs: the paper's 10, and 40 and 70, of 120.
    # A milestone below 1 is a share of the epochs.
    warmup: Annotated[int, Field(ge=0)] | None = None
    milestones: list[Annotated[float, Field(gt=0)]] | None = None
    accumulate: Count = 1

    variant: Variant = "official"
    margin: Weight = 0.5
    ctl_margin: Weight | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    triplet_weight: Weight = 1.0
    ctl_weight: Weight = 1.0
    ce_weight: Weight = 1.0
    center_weight: Weight = 5e-4
    center_lr: Weight = 0.5

    seed: Annotated[int, Field(ge=0)] = 0
    val_share: Annotated[float, Field(gt=0, lt=0.9)] = 0.1
    validate_every: Count = 1
    select_by: Literal["mAP", "R@1", "object_mAP", "object_R@1"] = "mAP"
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    deterministic: bool = True

    def schedule(self) -> tuple[int, list[int]]:
        """Warm-up epochs, and the epochs at which the rate falls."""
        warmup = self.epochs // 12 if self.warmup is None else self.warmup
        steps = [1 / 3, 7 / 12] if self.milestones is None else self.milestones
        return warmup, [round(step * self.epochs if step < 1 else step) for step in steps]

    def embedder(self) -> EmbedderConfig:
        """The embedder that the recipe trains. `size` must be known by now."""
        assert self.size is not None
        return EmbedderConfig(
            backbone=self.backbone,
            last_stride=self.last_stride,
            pooling=self.pooling,
            projection=self.projection,
            bn_neck=True,
            preprocess=preprocess_for(self.backbone, self.size),
        )


class CTLModel(nn.Module):
    """The embedder with its losses: images and labels in, losses by name out."""

    def __init__(self, embedder: Embedder, classes: int, settings: CTLSettings):
        super().__init__()
        self.embedder, self.settings = embedder, settings
        self.classifier = classifier(embedder.dim, classes)
        self.center = CenterLoss(classes, embedder.dim)
        self.triplet = TripletLoss(settings.margin)
        self.ctl = CentroidTripletLoss(settings.variant, settings.ctl_margin)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """images (B, 3, H, W), labels (B,) int64 -> "loss" and its parts, scalars."""
        f, e = self.embedder(images)
        logits = self.classifier(e)
        # Distances between near points vanish in half precision: the losses are in float32.
        with torch.autocast(images.device.type, enabled=False):
            return self.losses(f.float(), logits.float(), labels)

    def losses(
        self, f: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """f (B, D), logits (B, classes), labels (B,) -> the losses by name."""
        s = self.settings
        losses = {
            "ce": nn.functional.cross_entropy(logits, labels, label_smoothing=s.label_smoothing),
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


class CTLStory:
    """The recipe, built for a set of training labels (one class index, from 0, an image)."""

    def __init__(self, settings: CTLSettings, embedder: Embedder, labels: list[int]):
        self.settings, self.embedder, self.labels = settings, embedder, labels
        self.epochs, self.accumulate = settings.epochs, settings.accumulate
        self.augment = settings.augment
        model = CTLModel(embedder, max(labels) + 1, settings)
        self.model: nn.Module = model
        centers = list(model.center.parameters())
        others = [
            p
            for name, p in model.named_parameters()
            if not name.startswith("center.") and p.requires_grad
        ]
        self.optimizers = [
            torch.optim.Adam(others, lr=settings.lr, weight_decay=settings.weight_decay),
            torch.optim.SGD(centers, lr=settings.center_lr),
        ]

    def batches(self, epoch: int, replica: int, replicas: int) -> list[list[Draw]]:
        """P ids of up to M images."""
        s = self.settings
        return balanced_batches(
            self.labels,
            ids=s.ids,
            images=s.images,
            seed=s.seed,
            epoch=epoch,
            replica=replica,
            replicas=replicas,
        )

    def start_epoch(self, epoch: int) -> float:
        """The rate of Adam; the centres keep theirs."""
        warmup, milestones = self.settings.schedule()
        rate = self.settings.lr * warmup_steps(epoch, warmup=warmup, milestones=milestones)
        for group in self.optimizers[0].param_groups:
            group["lr"] = rate
        return rate
