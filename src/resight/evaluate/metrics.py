"""Retrieval metrics, each a few lines on the ranks of the positives.

Notation: query q has R positives at ranks r_1 < ... < r_R in its ranked list, junk removed.
Per-query functions return (Q,) float64, NaN where a query has no positive; `mean` leaves those
out, as every published evaluation does. All values are fractions from 0 to 1.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranks import Ranks

Floats = NDArray[np.float64]
ApKind = Literal["rectangular", "trapezoidal"]


def average_precision(ranks: Ranks, kind: ApKind = "rectangular") -> Floats:
    """The area under the precision-recall curve of each query, over the full list.

    rectangular: AP = 1/R sum_k k / r_k, the mean of the precisions at the positives. Used by
    most re-identification papers (CTL, fast-reid, torchreid) and, as "average precision", by
    information retrieval.

    trapezoidal: AP = 1/R sum_k (p_k + k / r_k) / 2, where p_k = (k - 1) / (r_k - 1) is the
    precision just before the positive (1 at the top of the list). Used by ROxford and RParis
    (Radenovic et al., CVPR 2018) and by the first Market-1501 scripts; never above rectangular.

    Neither cuts the list; mAP@k and MAP@R do, and are other quantities of the same name.
    Positives at ranks 2, 3, 7, 11, 12 give .475 rectangular and .387 trapezoidal.
    """
    if kind not in get_args(ApKind):
        raise ValueError(f"AP convention {kind!r} is none of {', '.join(get_args(ApKind))}")
    k = _place(ranks)
    rank = ranks.rank.astype(np.float64)
    precision = k / rank
    if kind == "trapezoidal":
        before = np.divide(k - 1, rank - 1, out=np.ones_like(rank), where=rank > 1)
        precision = (before + precision) / 2
    return _sum(ranks, precision) / _counts(ranks)


def first_ranks(ranks: Ranks) -> Floats:
    """The rank r_1 of each query's first positive."""
    return _at(ranks, ranks.indptr[:-1])


def hit_at(ranks: Ranks, k: int) -> Floats:
    """1 where any positive stands within the first k, else 0: r_1 <= k.

    Its mean is R@K of the metric-learning papers (SOP, Smooth-AP) and Rank-k or Acc@k of
    re-identification. It is not recall in the sense of information retrieval, which is the
    share of all R positives found.
    """
    first = first_ranks(ranks)
    return np.where(np.isnan(first), np.nan, first <= k)


def cmc(ranks: Ranks, length: int) -> Floats:
    """The cumulative match characteristic: R@1 ... R@length as one curve, (length,) float64.

    The curve of Market-1501: every positive stays in the gallery and the first one counts. CUHK03's
    single-shot form draws one gallery image an identity instead, and gives other values.
    """
    first = first_ranks(ranks)
    first = first[~np.isnan(first)]
    if not len(first):
        return np.full(length, np.nan)
    found = np.bincount(np.minimum(first, length + 1).astype(np.int64), minlength=length + 2)
    curve: Floats = np.cumsum(found)[1 : length + 1] / len(first)
    return curve


def inverse_negative_penalty(ranks: Ranks) -> Floats:
    """INP = R / r_R: how much of the list up to the last positive is positives.

    Its mean is mINP (Ye et al., "Deep Learning for Person Re-identification", TPAMI 2022). Where
    AP rewards a good start, INP looks only at the hardest positive.
    """
    return _counts(ranks) / _at(ranks, ranks.indptr[1:] - 1)


def mean(values: Floats) -> float:
    """The mean over the queries that have a positive; NaN when none has."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _counts(ranks: Ranks) -> Floats:
    counts = ranks.counts().astype(np.float64)
    return np.where(counts > 0, counts, np.nan)


def _place(ranks: Ranks) -> Floats:
    """k of every positive: 1 for a query's first."""
    begins = np.repeat(ranks.indptr[:-1], ranks.counts())
    return (np.arange(len(ranks.rank)) - begins + 1).astype(np.float64)


def _sum(ranks: Ranks, values: Floats) -> Floats:
    rows = np.repeat(np.arange(len(ranks)), ranks.counts())
    sums: Floats = np.bincount(rows, weights=values, minlength=len(ranks)).astype(np.float64)
    return sums


def _at(ranks: Ranks, entries: NDArray[np.int64]) -> Floats:
    out = np.full(len(ranks), np.nan)
    some = ranks.counts() > 0
    out[some] = ranks.rank[entries[some]]
    return out
