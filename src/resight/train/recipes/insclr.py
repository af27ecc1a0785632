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

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from resight.mining.positives import Mining
from resight.mining.selection import CLOSE_TO_ANCHOR, Rule
from resight.train.recipes.losses import CTL, Contrastive, InfoNCE, SmoothAP
from resight.train.recipes.settings import Count, Rate, Weight
from resight.train.recipes.unlabelled import Part, UnlabelledSettings


class BankSettings(Part):
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


class InsCLRSettings(UnlabelledSettings):
    """All settings of the recipe, of which those in `stages` differ from stage to stage.

    `neighbours`: members of a tuple besides the anchor.

    `similarity`: what selection and mining compare: the features the pool was made from, or those
    of the model as it is now, of plain or of augmented pictures. `calibrate`: thresholds on
    similarity come from the pool, such that the average image has so many neighbours that are
    kept (see `unlabelled.fit_to`). Without `select` all neighbours stay positive; without `mining`
    there are no further positives; without `memory` only the batch counts. `oracle`: selection and
    mining by the labels, which is not training without labels, but says how far it could get.
    """

    recipe: Literal["insclr"] = "insclr"
    epochs: Count = 4

    neighbours: Annotated[int, Field(ge=0)] = 2
    similarity: Literal["pool", "plain", "augmented"] = "plain"
    calibrate: Rate | None = 1.0
    select: Rule | None = CLOSE_TO_ANCHOR
    mining: Mining | None = _MINING
    memory: BankSettings | None = BankSettings()
    loss: Annotated[MinedLoss, BeforeValidator(_named)] = InfoNCE()

    stages: tuple[dict[str, Any], ...] = _STAGES

    @model_validator(mode="after")
    def _has_pairs(self) -> InsCLRSettings:
        if self.neighbours + self.views < 2:
            raise ValueError("neighbours + views must be at least 2: a tuple has no pair otherwise")
        return self
