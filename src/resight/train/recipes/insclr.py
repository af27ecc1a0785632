"""InsCLR: train on a folder of photos, without labels (Deng et al., AAAI 2022).

    pool      the nearest neighbours of every image, by the model as it stands
    batch     tuples of an anchor and its nearest neighbours
    select    neighbours that are close by un-augmented similarity stay positives
    mine      further positives from the pools of those, in rounds
    loss      contrastive, over the batch and over a memory of all images' embeddings

In stages; the pool is made anew before each. This module is the settings; the step and the stages
are in `train/unlabelled`. The defaults are for a folder of anyone's photos: an embedder that is
whitened first, without labels, so that the paper's thresholds mean the same for any backbone.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from resight.data.transforms import Augment, Side
from resight.mining.positives import Mining
from resight.mining.selection import CLOSE_TO_ANCHOR, Rule
from resight.spatial.local import SpatialOptions
from resight.train.recipes.losses import CTL, Contrastive, InfoNCE, SmoothAP
from resight.train.recipes.settings import CommonSettings, Count, Rate, Weight

Cosine = Annotated[float, Field(ge=-1, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PoolSettings(_Part):
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


class BankSettings(_Part):
    """The memory: what fills it before the first step, how many random negatives a step uses."""

    fill: Literal["views", "plain", "none"] = "plain"
    negatives: Annotated[int, Field(ge=0)] = 100_000
    own: bool = True  # an image's own slot, of when it was last seen, is a positive
    weight: Weight = 1.0


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


MinedLoss = Annotated[Contrastive | InfoNCE | SmoothAP | CTL, Field(discriminator="name")]


# Fewer a round than for landmarks, of which a collection has hundreds of photos each.
_MINING = Mining(rule=Rule(score="average", choose="topk", top=2, rounds=2, floor=0.6))
# The better the embedder, the more of an image's neighbours can be believed.
_STAGES: tuple[dict[str, Any], ...] = (
    {},
    {"calibrate": 2.0},
    {"calibrate": 4.0},
    {"calibrate": 4.0, "lr_factor": 0.3},
)
_FIXED = {"recipe", "backbone", "weights", "projection", "bn_neck", "pooling", "seed", "stages"}
_FIXED |= {"whiten", "part", "only_objects_with"}


class InsCLRSettings(CommonSettings):
    """All settings of the recipe, of which those in `stages` differ from stage to stage.

    `part`: the images that are not for testing, or those of a test gallery. `only_objects_with`:
    where labels exist, images of objects with at least so many. `epochs`: of each stage; an epoch
    has `steps` batches, by default as many as draw as many pictures as there are. `neighbours`:
    members of a tuple besides the anchor. `views`: how often an anchor stands in its tuple,
    differently augmented.

    `similarity`: what selection and mining compare: the features the pool was made from, or those
    of the model as it is now, of plain or of augmented pictures. `calibrate`: thresholds on
    similarity come from the pool, such that the average image has so many neighbours that are
    kept (see `unlabelled.fit_to`). Without `select` all neighbours stay positive; without `mining`
    there are no further positives; without `memory` only the batch counts. `oracle`: selection and
    mining by the labels, which is not training without labels, but says how far it could get.
    """

    CONVNET_LR: ClassVar[float] = 1e-4

    recipe: Literal["insclr"] = "insclr"
    last_stride: Literal[1, 2] = 2
    bn_neck: bool = False
    augment: Augment = Augment(crop="resized-crop", scale=(0.4, 1.0), flip=0, erase=0, jitter=0.2)
    freeze_bn: bool = True
    epochs: Count = 4
    weight_decay: Weight = 1e-4

    part: Literal["train", "gallery"] = "train"
    only_objects_with: Count | None = None
    whiten: Count | Literal["auto"] | None = "auto"  # dimensions of PCA-whitening before stage 1
    tuples: Annotated[int, Field(ge=2)] | None = None  # 16, fewer in small collections
    neighbours: Annotated[int, Field(ge=0)] = 2
    views: Count = 2
    steps: Count | None = None
    similarity: Literal["pool", "plain", "augmented"] = "plain"
    calibrate: Rate | None = 1.0
    pool: PoolSettings = PoolSettings()
    select: Rule | None = CLOSE_TO_ANCHOR
    mining: Mining | None = _MINING
    memory: BankSettings | None = BankSettings()
    spatial: SpatialSettings | None = None
    oracle: bool = False
    loss: Annotated[MinedLoss, BeforeValidator(_named)] = InfoNCE()

    stages: tuple[dict[str, Any], ...] = _STAGES
    lr_factor: Rate = 1.0  # times lr

    @model_validator(mode="after")
    def _stages_hold(self) -> InsCLRSettings:
        if self.neighbours + self.views < 2:
            raise ValueError("neighbours + views must be at least 2: a tuple has no pair otherwise")
        for k in range(len(self.stages)):
            self.stage(k)
        return self

    def stage(self, k: int) -> InsCLRSettings:
        """The settings of stage k (from 0), with no stages of their own."""
        own = self.stages[k]
        fixed = {
            "recipe",
            "part",
            "only_objects_with",
            "backbone",
            "weights",
            "whiten",
            "projection",
            "stages",
            "seed",
        }
        if wrong := sorted(fixed & own.keys()):
            raise ValueError(f"stages: {', '.join(wrong)} can't differ from stage to stage")
        values = _merged(self.model_dump() | {"stages": ()}, own)
        return InsCLRSettings.model_validate(values)


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `values`, mapping by mapping."""
    merged = dict(values)
    for name, value in changes.items():
        inner = merged.get(name)
        if (
            isinstance(inner, dict)
            and isinstance(value, dict)
            and inner.get("name") == value.get("name", inner.get("name"))
        ):
            merged[name] = _merged(inner, value)
        else:
            merged[name] = value
    return merged
