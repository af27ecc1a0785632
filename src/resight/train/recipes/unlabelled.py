"""The settings that recipes without labels share: which images, their pool, tuples, stages."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from resight.data.transforms import Augment, Side
from resight.spatial.local import SpatialOptions
from resight.train.recipes.settings import CommonSettings, Count, Rate, Weight

Cosine = Annotated[float, Field(ge=-1, le=1)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PoolSettings(Part):
    """The candidate pool: how many neighbours, how found, on which features.

    `size` and `scales` are those of the pictures it is made from (default: as in training, one
    scale). `leave_out_copies`: of near-duplicates only the first is trained on.
    """

    neighbours: Count | None = None  # 500, and at most a tenth of the collection
    method: Literal["exact", "faiss", "approximate"] = "exact"
    size: tuple[Side, Side] | None = None
    scales: tuple[Rate, ...] = (1.0,)
    leave_out_copies: bool = True
    copies_from: Cosine = 0.97  # similarity from which a pair is looked at as a near-duplicate


class SpatialSettings(SpatialOptions):
    """Spatial verification of the first `top` candidates of each image.

    A pair with `min_inliers` or more gains weight · min(inliers, cap) / cap in similarity.
    """

    top: Count = 20
    weight: Weight = 0.5
    cap: Count = 30
    from_similarity: Cosine = 0.2


class UnlabelledSettings(CommonSettings):
    """Settings of all stages, of which those in `stages` differ from stage to stage.

    `part`: the images that are not for testing, or those of a test gallery. `only_objects_with`:
    where labels exist, images of objects with at least so many. `epochs`: of each stage; an epoch
    has `steps` batches, by default as many as draw as many pictures as there are. `tuples` a
    batch, each with an anchor `views` times, differently augmented, and `neighbours` others.
    `oracle`: the labels take the place of what is found.
    """

    CONVNET_LR: ClassVar[float] = 1e-4
    FIXED: ClassVar[frozenset[str]] = frozenset(
        {
            "recipe",
            "part",
            "only_objects_with",
            "backbone",
            "weights",
            "projection",
            "whiten",
            "stages",
            "seed",
        }
    )

    last_stride: Literal[1, 2] = 2
    bn_neck: bool = False
    augment: Augment = Augment(crop="resized-crop", scale=(0.4, 1.0), flip=0, erase=0, jitter=0.2)
    freeze_bn: bool = True
    weight_decay: Weight = 1e-4

    part: Literal["train", "gallery"] = "train"
    only_objects_with: Count | None = None
    tuples: Annotated[int, Field(ge=2)] | None = None  # 16, fewer in small collections
    neighbours: Annotated[int, Field(ge=0)] = 2
    views: Count = 2
    steps: Count | None = None
    whiten: Count | Literal["auto"] | None = "auto"  # dimensions of PCA-whitening before stage 1
    pool: PoolSettings = PoolSettings()
    spatial: SpatialSettings | None = None
    oracle: bool = False

    stages: tuple[dict[str, Any], ...] = ()
    lr_factor: Rate = 1.0  # times lr

    @model_validator(mode="after")
    def _stages_hold(self) -> Self:
        for k in range(len(self.stages)):
            self.stage(k)
        return self

    def stage(self, k: int) -> Self:
        """The settings of stage k (from 0), with no stages of their own."""
        own = self.stages[k]
        if wrong := sorted(self.FIXED & own.keys()):
            raise ValueError(f"stages: {', '.join(wrong)} can't differ from stage to stage")
        return self.model_validate(merged(self.model_dump() | {"stages": ()}, own))


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `values`, mapping by mapping."""
    out = dict(values)
    for name, value in changes.items():
        inner = out.get(name)
        if (
            isinstance(inner, dict)
            and isinstance(value, dict)
            and inner.get("name") == value.get("name", inner.get("name"))
        ):
            out[name] = merged(inner, value)
        else:
            out[name] = value
    return out
