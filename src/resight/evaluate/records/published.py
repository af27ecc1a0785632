"""Figures from the papers, to put beside our own: only under the protocol that they are of.

CTL: Wieczorek et al., "On the Unreasonable Effectiveness of Centroids in Image Retrieval", ICONIP
2021. Smooth-AP: Brown et al., ECCV 2020. InsCLR: AAAI 2022. A figure is `verified` when it was
read in a source; the others are recalled from the paper and are quoted with the word "unverified".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resight.evaluate.records.record import metrics

CTL = "CTL (ICONIP 2021)"
SMOOTH_AP = "Smooth-AP (ECCV 2020)"
INSCLR = "InsCLR (AAAI 2022)"
_FAULTY = "its code keeps same-camera images in the centroid and drops objects without a query"
_VAL_SHOPS = "its code adds the validation shop images to the gallery"
_SPLIT = "public or private half not stated where the figure was read"


@dataclass(frozen=True)
class Published:
    """One published figure: `value` is a fraction of the metric as a summary names it."""

    protocol: str
    paper: str
    metric: str
    value: float
    verified: bool
    remark: str = ""


def _all(
    protocol: str, paper: str, verified: bool, remark: str, **values: float
) -> list[Published]:
    """Figures of one model; R1 is R@1."""
    return [
        Published(
            protocol,
            paper,
            f"R@{name[1:]}" if name[0] == "R" else name,
            value,
            verified,
            remark,
        )
        for name, value in values.items()
    ]


FIGURES: tuple[Published, ...] = (
    *_all("market1501", CTL, True, "released weights", mAP=0.854, R1=0.939),
    *_all(
        "market1501-centroid-legacy", CTL, True, f"released weights; {_FAULTY}",
        mAP=0.987, R1=0.985,
    ),
    *_all("market1501-centroid-legacy", CTL, False, f"the paper; {_FAULTY}", mAP=0.983, R1=0.980),
    *_all(
        "market1501-centroid", CTL, True,
        "released weights with the rows right, as its users report", R1=0.948,
    ),
    *_all("dukemtmc-centroid-legacy", CTL, False, f"the paper; {_FAULTY}", mAP=0.961, R1=0.956),
    *_all(
        "deepfashion-val-gallery-centroid", CTL, True, f"small model, ResNet-50; {_VAL_SHOPS}",
        mAP=0.404, R1=0.294,
    ),
    *_all("street2shop-centroid", CTL, True, "large model, ResNet-50-IBN-A", mAP=0.598, R1=0.537),
    *_all("sop", SMOOTH_AP, True, "batch 384", R1=0.801),
    *_all("sop", SMOOTH_AP, False, "batch 384", R10=0.915, R100=0.966, R1000=0.990),
    *_all("sop", SMOOTH_AP, False, "batch 224", R1=0.792, R10=0.910, R100=0.965, R1000=0.989),
    *_all("sop", "FastAP, in Smooth-AP", False, "", R1=0.764),
    *_all("sop", "Blackbox AP, in Smooth-AP", False, "", R1=0.786),
    *_all("sop", "XBM, in Smooth-AP", False, "", R1=0.806),
    *_all("inat2018", SMOOTH_AP, True, "batch 384", R1=0.672, R4=0.818, R16=0.903, R32=0.931),
    *_all("inat2018", SMOOTH_AP, True, "batch 224", R1=0.659),
    *_all("inat2018", SMOOTH_AP, True, "a user's run of the released code", R1=0.624),
    *_all("inat2018", "Triplet, in Smooth-AP", False, "", R1=0.581),
    *_all("inat2018", "ProxyNCA, in Smooth-AP", False, "", R1=0.616),
    *_all("inat2018", "FastAP, in Smooth-AP", False, "", R1=0.606),
    *_all("inat2018", "Blackbox AP, in Smooth-AP", False, "", R1=0.629),
    *_all("vehicleid-small", SMOOTH_AP, True, "", R1=0.949),
    *_all("vehicleid-large", SMOOTH_AP, True, "", R1=0.919),
    *_all("vggface2", "SENet-50", False, "before Smooth-AP", mAP=0.828),
    *_all("vggface2", SMOOTH_AP, False, "SENet-50", mAP=0.850),
    *_all("vggface2", "ArcFace", False, "before Smooth-AP", mAP=0.858),
    *_all("vggface2", SMOOTH_AP, False, "ArcFace", mAP=0.902),
    *_all("ijbc", "SENet-50", False, "before Smooth-AP", mAP=0.726),
    *_all("ijbc", SMOOTH_AP, False, "SENet-50", mAP=0.754),
    *_all("ijbc", "ArcFace", False, "before Smooth-AP", mAP=0.772),
    *_all("ijbc", SMOOTH_AP, False, "ArcFace", mAP=0.803),
    *_all("roxford5k-medium", INSCLR, True, "", mAP=0.731),
    *_all("roxford5k-medium", INSCLR, True, "without mined pseudo-positives", mAP=0.652),
    *_all("roxford5k-medium", INSCLR, True, "a user's full reproduction", mAP=0.641),
    *_all("roxford5k-hard", INSCLR, True, "", mAP=0.483),
    *_all("roxford5k-hard", INSCLR, True, "a user's full reproduction", mAP=0.378),
    *_all("rparis6k-medium", INSCLR, True, "a user's full reproduction", mAP=0.745),
    *_all("rparis6k-hard", INSCLR, True, "a user's full reproduction", mAP=0.509),
    *(
        figure
        for half in ("gldv2-public", "gldv2-private")
        for figure in (
            *_all(half, INSCLR, False, _SPLIT, mAP=0.1371),
            *_all(half, "ImageNet weights, in InsCLR", False, _SPLIT, mAP=0.0052),
            *_all(half, "supervised, in InsCLR", False, _SPLIT, mAP=0.2557),
        )
    ),
)  # fmt: skip


def published(protocol: str) -> list[Published]:
    """The published figures of a protocol, by its name; none for most."""
    return [figure for figure in FIGURES if figure.protocol == protocol]


def ours(figure: Published, summary: Mapping[str, Any]) -> float | None:
    """The same metric in a summary, or None.

    mAP is the protocol's, however it is counted; metrics of a legacy protocol end in "legacy".
    """
    names = [figure.metric, f"{figure.metric} legacy"]
    if figure.metric == "mAP":
        names += [key for key in metrics(summary) if key.startswith("mAP")]
    value = next((summary[name] for name in names if name in summary), None)
    return float(value) if isinstance(value, int | float) else None


def beside(protocol: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any] | None:
    """A row for each published model and for each of ours, a column a metric; None without figures.

    rows: of each of ours its name, and its metrics as a summary has them; NaN is not known.
    """
    figures = published(protocol)
    if not figures:
        return None
    columns = {figure.metric: figure for figure in figures}
    models: dict[tuple[str, str, bool], dict[str, float]] = {}
    for figure in figures:
        key = (figure.paper, figure.remark, figure.verified)
        models.setdefault(key, {})[figure.metric] = figure.value
    mine = []
    for name, summary in rows:
        found = [ours(figure, summary) for figure in columns.values()]
        cells = [None if one is None or math.isnan(one) else one for one in found]
        mine.append({"name": name, "cells": cells})
    return {
        "columns": list(columns),
        "models": [
            {"paper": paper, "remark": remark, "verified": verified}
            | {"cells": [of_model.get(metric) for metric in columns]}
            for (paper, remark, verified), of_model in models.items()
        ],
        "ours": mine,
    }
