"""Retrieval metrics, each a few lines on the ranks of the positives.

Notation: query q has R positives at ranks r_1 < ... < r_R in its ranked list, junk removed.
Per-query functions return (Q,) float64, NaN where a query has no positive; `mean` leaves those
out, as every published evaluation does. All values are fractions from 0 to 1.

The example of the docstrings: five positives at ranks 2, 3, 7, 11, 12.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.result import Ranks

Floats = NDArray[np.float64]
ApKind = Literal["rectangular", "trapezoidal"]
Divisor = Literal["relevant", "found", "min"]


def average_precision(
    ranks: Ranks,
    kind: ApKind = "rectangular",
    at: int | None = None,
    divisor: Divisor = "relevant",
) -> Floats:
    """The area under the precision-recall curve of each query: the first five of "mAP"'s seven.

    rectangular: AP = 1/R sum_k k / r_k, the mean of the precisions at the positives. Used by
    most re-identification papers (CTL, fast-reid, torchreid) and, as "average precision", by
    information retrieval.

    trapezoidal: AP = 1/R sum_k (p_k + k / r_k) / 2, where p_k = (k - 1) / (r_k - 1) is the
    precision just before the positive (1 at the top of the list). Used by ROxford and RParis
    (Radenovic et al., CVPR 2018) and by the first Market-1501 scripts; never above rectangular.

    at: only positives of rank <= `at` enter the sum, AP@k. What it is divided by has three forms:
    "relevant": R, so that a query with more than k positives can't reach 1
    (pytorch-metric-learning); "found": the positives found within k, 0 where none is
    (open-metric-learning), which does not fall when positives are missed; "min": min(R, k), so
    that a perfect list of k is 1 (Google Landmarks v2's mAP@100, Weyand et al., CVPR 2020).
    Without `at` the three are one.

    The example: .475 rectangular, .387 trapezoidal; at 5 and 10 .233 and .319 (relevant),
    .583 and .532 (found), .233 and .319 (min).

    Raises ValueError for an unknown kind or divisor, or `at` below 1.
    """
    for value, allowed in ((kind, ApKind), (divisor, Divisor)):
        if value not in get_args(allowed):
            choices = ", ".join(get_args(allowed))
            raise ValueError(f"AP convention {value!r} is none of {choices}")
    if at is not None and at < 1:
        raise ValueError(f"AP at {at}: the cut must be 1 or more")
    k = _place(ranks)
    rank = ranks.rank.astype(np.float64)
    precision = k / rank
    if kind == "trapezoidal":
        before = np.divide(k - 1, rank - 1, out=np.ones_like(rank), where=rank > 1)
        precision = (before + precision) / 2
    counts = _counts(ranks)
    if at is None:
        return _sum(ranks, precision) / counts
    inside = (rank <= at).astype(np.float64)
    if divisor == "found":
        counts = np.where(np.isnan(counts), np.nan, np.maximum(_sum(ranks, inside), 1))
    elif divisor == "min":
        counts = np.minimum(counts, at)
    return _sum(ranks, precision * inside) / counts


def map_at_r(ranks: Ranks) -> Floats:
    """MAP@R = 1/R sum of k / r_k over the positives with r_k <= R.

    AP cut at the number of positives, which differs from query to query, and divided by it: 1 only
    for a perfect start, 0 where no positive stands among the first R. Of Musgrave, Belongie, Lim,
    "A Metric Learning Reality Check" (ECCV 2020), section 3.2. The example: .233 (R = 5).
    """
    rank = ranks.rank.astype(np.float64)
    inside = rank <= np.repeat(ranks.counts(), ranks.counts())
    return _sum(ranks, _place(ranks) / rank * inside) / _counts(ranks)


def r_precision(ranks: Ranks) -> Floats:
    """The share of the first R that are positives, R their number: precision at R = recall at R.

    Unlike MAP@R the order within the first R doesn't count. Manning et al., "Introduction to
    Information Retrieval", section 8.4. The example: .400.
    """
    inside = ranks.rank <= np.repeat(ranks.counts(), ranks.counts())
    return _sum(ranks, inside.astype(np.float64)) / _counts(ranks)


def first_ranks(ranks: Ranks) -> Floats:
    """The rank r_1 of each query's first positive."""
    return _at(ranks, ranks.indptr[:-1])


def hit_at(ranks: Ranks, k: int) -> Floats:
    """1 where any positive stands within the first k, else 0: r_1 <= k.

    Its mean is R@K of the metric-learning papers (SOP, Smooth-AP) and Rank-k or Acc@k of
    re-identification. It is not recall in the sense of information retrieval, which is
    `recall_at`.
    """
    first = first_ranks(ranks)
    return np.where(np.isnan(first), np.nan, first <= k)


def recall_at(ranks: Ranks, k: int) -> Floats:
    """The share of all R positives within the first k: recall as information retrieval has it.

    Below `hit_at` wherever a query has several positives. The example at 10: .600, where
    `hit_at` is 1.
    """
    return _sum(ranks, (ranks.rank <= k).astype(np.float64)) / _counts(ranks)


def cmc(ranks: Ranks, length: int) -> Floats:
    """The cumulative match characteristic: R@1 ... R@length as one curve, (length,) float64.

    The curve of Market-1501: every positive stays in the gallery and the first one counts. CUHK03's
    single-shot form draws one gallery image an identity instead, and averages over draws: a
    protocol with `gallery_images` 1 and `repeats`. The two are not comparable: it thins both the
    right and the wrong images.
    """
    return curve_of(first_ranks(ranks), length)


def curve_of(first: Floats, length: int) -> Floats:
    """R@1 ... R@length from the ranks of the first positives (NaN: no positive)."""
    first = first[~np.isnan(first)]
    if not len(first):
        return np.full(length, np.nan)
    found = np.bincount(np.minimum(first, length + 1).astype(np.int64), minlength=length + 2)
    curve: Floats = np.cumsum(found)[1 : length + 1] / len(first)
    return curve


def precision_at(ranks: Ranks, k: int) -> Floats:
    """P@k as ROxford and RParis count it: positives among the first min(k, r_R), over that number.

    Where the last positive stands within the first k, the list ends there: a query with two
    positives at ranks 1 and 2 has P@10 = 1, not .2. Its mean is mP@k (Radenovic et al., CVPR 2018,
    and the evaluation code of revisitop). The example at 5: .400; at 10: .300; at 20: 5 / 12.
    """
    last = _at(ranks, ranks.indptr[1:] - 1)
    end = np.minimum(last, k)
    inside = ranks.rank <= np.repeat(end, ranks.counts())
    return _sum(ranks, inside.astype(np.float64)) / end


def inverse_negative_penalty(ranks: Ranks) -> Floats:
    """INP = R / r_R: how much of the list up to the last positive is positives.

    Its mean is mINP (Ye et al., "Deep Learning for Person Re-identification", TPAMI 2022). Where
    AP rewards a good start, INP looks only at the hardest positive. The example: .417.
    """
    return _counts(ranks) / _at(ranks, ranks.indptr[1:] - 1)


def ndcg(ranks: Ranks, gains: Floats | None = None, at: int | None = None) -> Floats:
    """Normalised discounted cumulative gain: DCG = sum_k g_k / log2(1 + r_k), over the best DCG.

    gains: (positives,), aligned with `ranks.rank`, how relevant each positive is, >= 0; 1 without
    it. (For the exponential form give 2**grade - 1.) The best DCG has the same gains in falling
    order at the top of the list. at: both sums end at this rank. Unlike AP it takes grades, and
    discounts by the logarithm of the rank rather than by counting. Jarvelin & Kekalainen,
    "Cumulated gain-based evaluation of IR techniques" (TOIS 2002). 0 where all gains are 0.
    """
    gain = np.ones(len(ranks.rank)) if gains is None else np.asarray(gains, np.float64)
    if gain.shape != ranks.rank.shape or (gain < 0).any():
        raise ValueError("gains needs one number, 0 or more, for each positive")
    place = _place(ranks)
    rows = np.repeat(np.arange(len(ranks)), ranks.counts())
    best = gain[np.lexsort((-gain, rows))]
    inside, top = np.ones(len(gain)), np.ones(len(gain))
    if at is not None:
        inside, top = (ranks.rank <= at).astype(np.float64), (place <= at).astype(np.float64)
    dcg = _sum(ranks, inside * gain / np.log2(1 + ranks.rank))
    ideal = _sum(ranks, top * best / np.log2(1 + place))
    value = np.divide(dcg, ideal, out=np.zeros_like(dcg), where=ideal > 0)
    return np.where(ranks.counts() > 0, value, np.nan)


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
