"""The losses by name, with their settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from resight.losses.ctl import Variant
from resight.train.recipes.settings import Rate, Weight


class _Loss(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SmoothAP(_Loss):
    """A smooth approximation of average precision (Brown et al., ECCV 2020)."""

    name: Literal["smooth_ap"] = "smooth_ap"
    temperature: Rate = 0.01
    include_query: bool = False

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.losses.smooth_ap import SmoothAPLoss

        return SmoothAPLoss(self.temperature, self.include_query)


class CTL(_Loss):
    """Centroid triplet loss (Wieczorek et al., ICONIP 2021), alone."""

    name: Literal["ctl"] = "ctl"
    variant: Variant = "official"
    margin: Weight | None = None

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.losses.ctl import CentroidTripletLoss

        return CentroidTripletLoss(self.variant, self.margin)


class Triplet(_Loss):
    """Triplets, batch-hard or semi-hard."""

    name: Literal["triplet"] = "triplet"
    mining: Literal["hard", "semihard"] = "hard"
    margin: Weight | None = None

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.losses.triplet import TripletLoss

        return TripletLoss(self.margin, self.mining)


class Contrastive(_Loss):
    """Pairs on cosine similarity, as with a cross-batch memory (Wang et al., CVPR 2020)."""

    name: Literal["contrastive"] = "contrastive"
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.5

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.losses.contrastive import ContrastiveLoss

        return ContrastiveLoss(self.margin)


class InfoNCE(_Loss):
    """Softmax over positives and negatives (van den Oord et al., 2018), of mined pairs."""

    name: Literal["infonce"] = "infonce"
    temperature: Rate = 0.1


class ProxyNCA(_Loss):
    """Learned proxies of classes (Movshovitz-Attias et al., ICCV 2017)."""

    name: Literal["proxy_nca"] = "proxy_nca"
    scale: Rate = 1.0
    include_positive: bool = False

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.losses.proxy_nca import ProxyNCALoss

        return ProxyNCALoss(
            classes, features, scale=self.scale, include_positive=self.include_positive
        )


class FastAP(_Loss):
    """AP by soft histograms of distances (Cakir et al., CVPR 2019)."""

    name: Literal["fastap"] = "fastap"
    bins: Annotated[int, Field(ge=2)] = 10

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.losses.fastap import FastAPLoss

        return FastAPLoss(self.bins)


class BlackboxAP(_Loss):
    """AP by blackbox differentiation of the ranking (Rolínek et al., CVPR 2020)."""

    name: Literal["blackbox_ap"] = "blackbox_ap"
    interpolation: Rate = 4.0
    margin: Weight = 0.02

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.losses.blackbox_ap import BlackboxAPLoss

        return BlackboxAPLoss(self.interpolation, self.margin)


class ArcFace(_Loss):
    """A classifier with an angular margin (Deng et al., CVPR 2019)."""

    name: Literal["arcface"] = "arcface"
    scale: Rate = 64.0
    margin: Weight = 0.5  # radians

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.losses.arcface import ArcFaceLoss

        return ArcFaceLoss(classes, features, scale=self.scale, margin=self.margin)


class CrossEntropy(_Loss):
    """A linear classifier with label-smoothed cross-entropy."""

    name: Literal["ce"] = "ce"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.losses.classifier import ClassifierLoss

        return ClassifierLoss(classes, features, self.label_smoothing)


class OwnLoss(_Loss):
    """A loss of one's own, from a Python file (see `train.recipes.own_loss`).

    `options` go to its class; `sha256` is that of the file, so that a run is gone on with by the
    loss it began with.
    """

    name: Literal["own"] = "own"
    file: str
    options: dict[str, Any] = {}
    sha256: str

    @model_validator(mode="before")
    @classmethod
    def _found(cls, values: Any) -> Any:
        from resight.train.recipes.own_loss import found

        return found(values) if isinstance(values, dict) and "file" in values else values

    def build(self, classes: int, features: int) -> nn.Module:
        from resight.train.recipes.own_loss import load

        return load(self.file, self.sha256, self.options, classes, features)


LossSettings = Annotated[
    SmoothAP
    | CTL
    | Triplet
    | Contrastive
    | ProxyNCA
    | FastAP
    | BlackboxAP
    | ArcFace
    | CrossEntropy
    | OwnLoss,
    Field(discriminator="name"),
]
