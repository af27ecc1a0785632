"""Smooth-AP (Brown, Xie, Kalogeiton, Zisserman, ECCV 2020), and what it is compared with.

    e = Linear(pooled backbone feature), unit length;  L = mean over queries of 1 − AP_smooth

ImageNet weights with all BatchNorm in inference mode, batches of P ids with M = 4 images, Adam
with a small rate, two steps of x 0.3. Section 5 of the paper. The paper trains its comparators
under the same roof; so does this recipe: `loss` names another one, `memory` puts a cross-batch
memory around it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from resight.data.transforms import Augment
from resight.losses.memory import CrossBatchMemory
from resight.train.recipes.losses import LossSettings, SmoothAP
from resight.train.recipes.settings import Count, Objective, Rate, TrainSettings, Weight


class MemorySettings(BaseModel):
    """Cross-batch memory: the last `size` embeddings as further references (Wang et al. 2020)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Count = 8192
    weight: Weight = 1.0
    start: Annotated[int, Field(ge=0)] = 0  # batches before it counts


def _named(value: Any) -> Any:
    """ "fastap" stands for {"name": "fastap"}, and options alone are those of smooth_ap.

    "mine.py" is a loss of one's own, from that file.
    """
    if isinstance(value, str) and value.endswith(".py"):
        return {"name": "own", "file": value}
    if isinstance(value, str):
        return {"name": value}
    return {"name": "smooth_ap"} | value if isinstance(value, dict) else value


class SmoothAPSettings(TrainSettings):
    """All settings of the recipe; the defaults are the paper's for SOP at its batch of 384.

    Steps: the paper's 200 and 300 of 400 epochs. The weight decay is the paper's; its code has
    4e-4.
    """

    CONVNET_LR: ClassVar[float] = 1e-5

    recipe: Literal["smooth_ap"] = "smooth_ap"
    last_stride: Literal[1, 2] = 2
    projection: Count | None = 512
    bn_neck: bool = False
    resize: Literal["stretch", "crop"] = "crop"
    augment: Augment = Augment(crop="resized-crop", erase=0)
    freeze_bn: bool = True
    ids: Annotated[int, Field(ge=2)] = 96
    epochs: Count = 400
    weight_decay: Weight = 4e-5
    milestones: tuple[Rate, ...] = (0.5, 0.75)
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.3

    loss: Annotated[LossSettings, BeforeValidator(_named)] = SmoothAP()
    loss_lr: Rate = 1.0  # times lr, for what a loss learns itself: proxies, a classifier
    memory: MemorySettings | None = None

    @model_validator(mode="after")
    def _memory_fits(self) -> SmoothAPSettings:
        if self.memory is not None and self.loss.name in ("proxy_nca", "arcface", "ce"):
            raise ValueError(
                f"memory: {self.loss.name} compares with vectors of its own, not with other "
                "images; use it without a memory"
            )
        return self


class SmoothAPObjective(Objective):
    """One loss on the embeddings that are searched."""

    def __init__(self, settings: SmoothAPSettings, classes: int, features: int):
        super().__init__()
        self.settings = settings
        loss = settings.loss.build(classes, features)
        memory = settings.memory
        if memory is not None:
            loss = CrossBatchMemory(
                loss, memory.size, features, weight=memory.weight, start=memory.start
            )
        self.loss = loss

    def forward(
        self, f: torch.Tensor, e: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """f, e (B, D), labels (B,) int64 -> "loss", scalar."""
        return {"loss": self.loss(e, labels)}

    def optimizers(self, groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
        """Adam over the embedder's groups, and what the loss learns itself."""
        s = self.settings
        assert s.lr is not None
        own = [p for p in self.loss.parameters() if p.requires_grad]
        if own:
            rate = s.lr * s.loss_lr
            groups = [*groups, {"params": own, "lr": rate, "weight_decay": s.weight_decay}]
        return [torch.optim.Adam(groups)]
