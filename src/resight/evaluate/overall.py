"""The numbers of a protocol that belong to no single query: µAP, TPR at FPR, GAP, open set."""

from __future__ import annotations

import numpy as np
import polars as pl

from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking.sources import Picked
from resight.evaluate.rules.parts import Part
from resight.evaluate.thresholds import (
    count_pairs,
    global_average_precision,
    micro_average_precision,
    open_set,
    tpr_at_fpr,
)
from resight.features.rows import Rows

RATES = (1e-4, 1e-3, 1e-2, 1e-1)  # false positive rates that are reported


def numbers_over_all(
    features: Rows, parts: list[Part], per_query: pl.DataFrame, protocol: Protocol
) -> dict[str, float]:
    """Numbers over all queries together: µAP and TPR at FPR, GAP, open-set rates."""
    more: dict[str, float] = {}
    if protocol.pairs and protocol.level == "image" and len(parts) == 1:
        found = parts[0].matches
        pairs = count_pairs(
            Picked(features, found.queries), Picked(features, found.gallery), found.truth
        )
        more["µAP"] = micro_average_precision(pairs)
        rates = tpr_at_fpr(pairs, RATES)
        more |= {f"TPR@FPR={rate:g}": float(v) for rate, v in zip(RATES, rates, strict=True)}
    if protocol.pairs or protocol.open_set:
        near = per_query["right_similarity"].fill_null(np.nan).to_numpy()
        far = per_query["wrong_similarity"].fill_null(np.nan).to_numpy()
        right = (per_query["first_rank"] == 1).fill_null(False).to_numpy()
        mated = (per_query["positives"] > 0).to_numpy()
        answer = np.where(right, near, np.nan_to_num(far, nan=-np.inf))
        n_mated = int(mated.sum())
        more["GAP"] = global_average_precision(answer, right, n_mated)
        if protocol.open_set:
            rates_found = open_set(answer, right, mated, RATES[1:])
            for rate, value in zip(rates_found.rates, rates_found.identified, strict=True):
                more[f"DIR@FAR={rate:g}"] = float(value)
    return more
