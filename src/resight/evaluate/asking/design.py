"""Which photos are asked about: drawn with known probabilities, so that few speak for all.

Sampling with unequal probabilities without replacement: systematic, stratified by the size
measure (Madow, "On the theory of systematic sampling, II", Annals of Mathematical Statistics 20,
1949; Särndal, Swensson & Wretman, "Model Assisted Survey Sampling", 1992, section 3.6).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.uncertainty import Floats, Ints

FLOOR = 0.5  # share of the probability that is the same for all
_TAKEN = 2  # photos taken from each part of the order


def inclusion(useful: Floats, n: int, floor: float = FLOOR) -> Floats:
    """The probability of each of M photos to be among the n drawn, (M,) float64, of sum min(n, M).

    useful (M,), not negative: how much the answer to each is worth. Each gets at least `floor` of
    what it would have if all were equal, n / M, so that no weight 1 / probability is large. What
    would exceed 1 is 1, and the others share the rest.

    Raises ValueError: a negative or not finite value, n below 1, floor not above 0 and up to 1.
    """
    useful = np.asarray(useful, np.float64)
    if not (np.isfinite(useful) & (useful >= 0)).all():
        raise ValueError("useful: finite values of at least 0 are needed")
    if n < 1 or not 0 < floor <= 1:
        raise ValueError(f"n = {n}, floor = {floor}: n of at least 1, floor in (0, 1]")
    if n >= len(useful):
        return np.ones(len(useful))
    mean = useful.mean()
    size = floor + (1 - floor) * useful / mean if mean > 0 else np.ones(len(useful))
    sure = np.zeros(len(useful), bool)
    while True:
        left = n - int(sure.sum())
        share = left * size / size[~sure].sum()
        more = ~sure & (share >= 1)
        if not more.any():
            return np.where(sure, 1.0, share)
        sure |= more


def systematic(probability: Floats, order_by: Floats, random: np.random.Generator) -> Ints:
    """Draw photos, each with its probability: rows (n,) int64, n the sum of the probabilities.

    The photos stand in a row, each as long as its probability; taken are those at u, u + 1, u + 2,
    ... for one u in [0, 1). They stand in the order of `order_by` (M,) cut into parts of about two
    photos taken, in random order within a part: so photos of every kind are taken, the sum of the
    weights 1 / probability is close to M in each sample, and no order in the data can do harm.
    """
    n = round(float(np.sum(probability)))
    if not n:
        return np.zeros(0, np.int64)
    m, parts = len(probability), max(1, n // _TAKEN)
    order = random.permutation(m)
    order = order[np.argsort(np.asarray(order_by)[order], kind="stable")]
    order = order[np.lexsort((random.random(m), np.arange(m) * parts // m))]
    ends = np.cumsum(np.asarray(probability, np.float64)[order])
    ends[-1] = n  # but for rounding it is
    at = np.searchsorted(ends, random.random() + np.arange(n), side="right")
    found: NDArray[np.int64] = order[np.minimum(at, m - 1)]
    return found
