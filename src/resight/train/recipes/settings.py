"""The settings that all recipes share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from resight.data.transforms import Augment, Side
from resight.models.embedder import EmbedderConfig
from resight.models.open import preprocess_for

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class CommonSettings(BaseModel):
    """What every recipe needs to know, with labels and without.

    Of `warmup` and `milestones` a value below 1 is a share of the epochs.

    `start`: "weights" of the network as they are; "closed-form": its depths joined, and a
    projection fitted to the training images, before the first step; `depths`, `grids` and
    `projection` are then what was chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    CONVNET_LR: ClassVar[float]  # the rate for a convnet whose weights are all trained

    recipe: str
    backbone: str = "resnet50"
    weights: str = "auto"
    start: Literal["weights", "closed-form"] = "weights"
    depths: tuple[int, ...] = ()
    grids: tuple[int, ...] = ()
    partial_weights: bool = False
    last_stride: Literal[1, 2] = 1
    pooling: Literal["auto", "average", "gem", "model"] = "auto"
    projection: Count | None = None
    bn_neck: bool = True
    size: tuple[Side, Side] | None = None  # height, width; by default from the images' shapes
    resize: Literal["stretch", "crop"] = "stretch"
    augment: Augment = Augment()

    tune: Literal["all", "lora", "head"] = "all"
    lora_rank: Count = 8
    freeze_bn: bool = False

    accumulate: Count = 1
    chunk: Count | None = None  # images at a time, when a batch is too large for the memory

    epochs: Count = 120
    lr: Rate | None = None  # by default what suits the backbone
    head_lr: Rate = 1.0  # times lr, for what comes after the backbone
    weight_decay: Weight = 5e-4
    warmup: Weight = 0
    milestones: tuple[Rate, ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    seed: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    deterministic: bool = True

    def schedule(self) -> tuple[int, list[int]]:
        """Warm-up epochs, and the epochs at which the rate falls."""
        warmup = self.warmup * self.epochs if self.warmup < 1 else self.warmup
        return int(warmup), [
            round(step * self.epochs if step < 1 else step) for step in self.milestones
        ]

    def embedder(self) -> EmbedderConfig:
        """The embedder that the recipe trains. `size` must be known by now."""
        assert self.size is not None
        return EmbedderConfig(
            backbone=self.backbone,
            last_stride=2 if self.depths else self.last_stride,
            depths=self.depths,
            grids=self.grids,
            pooling=self.pooling,
            projection=self.projection,
            bn_neck=self.bn_neck,
            preprocess=preprocess_for(self.backbone, self.size, self.resize),
        )


class TrainSettings(CommonSettings):
    """What a recipe that trains with labels needs besides; it adds its own losses.

    `ids` and `images` are of the whole batch, whatever the number of processes. `steps` counts
    batches in place of epochs; the rate then rises over the share `warmup` of them and follows a
    cosine, milestones don't count. `refit`: at the end a projection is fitted again, to what was
    trained, and kept where it helps on the objects held out.
    """

    steps: Annotated[int, Field(ge=0)] | None = None
    refit: bool = False

    ids: Annotated[int, Field(ge=2)] = 16
    images: Annotated[int, Field(ge=2)] = 4
    super_class: str | None = None  # a column: batches from two of its values at a time

    val_share: Annotated[float, Field(gt=0, lt=0.9)] = 0.1
    validate_every: Count = 1
    select_by: Literal["mAP", "R@1", "object_mAP", "object_R@1"] = "mAP"


class Objective(nn.Module):
    """What a recipe minimises, on the gathered batch.

    Called with f, e (B, D), the features before and after the neck, and labels (B,) int64; gives
    the losses by name, "loss" among them, scalars. Where the pictures come without augmentation
    too, a fourth argument holds their e (B, D), without a gradient.
    """

    def keep(self) -> Any:
        """Called before a checkpoint is written: what it must know of files that an objective has.

        A plain value. `kept(value)` follows once the checkpoint is in place, `restore(value)` when
        a run goes on from it. Weights and buffers need none of this.
        """
        return None

    def kept(self, value: Any) -> None:
        """The checkpoint that holds `value` is in place."""

    def restore(self, value: Any) -> None:
        """Bring the files back to what they were at that checkpoint."""

    def optimizers(self, groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
        """Optimisers over the embedder's parameter groups, and what the losses learn themselves.

        The rates of the first follow the schedule.
        """
        raise NotImplementedError
