"""What a threshold on the similarity gives: micro AP, ROC rates of pairs, open-set rates.

The ranks of metrics.py compare hits of one query. Here similarities of different queries are
compared with each other, as a service does that answers "not in the gallery". All functions treat
equal similarities as one threshold, so that no order decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.csr import Csr
from resight.evaluate.ranking.result import Truth
from resight.evaluate.ranking.units import exact_similarities, unit_rows
from resight.features.rows import Rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_ROWS, _COLUMNS = 256, 4096


@dataclass(frozen=True)
class Pairs:
    """All pairs of a query and a gallery row: the positive ones, and how many negatives reach them.

    similarity (P,): of the positive pairs, falling; negatives (P,): the negative pairs of at least
    that similarity; n_negatives: all of them. Junk pairs are neither.
    """

    similarity: Floats
    negatives: Ints
    n_negatives: int


def count_pairs(queries: Rows, gallery: Rows, truth: Truth) -> Pairs:
    """Compare every query (Q, D) with every gallery row (G, D), in exact arithmetic, by cosine.

    It costs two float64 products of all pairs, and holds 16 bytes a positive pair.
    """
    found, n_hidden = [np.zeros(0)], 0
    for tile, positives, junk in _tiles(queries, gallery, truth):
        found.append(tile[positives])
        n_hidden += len(positives[0]) + len(junk[0])
    rising = np.sort(np.concatenate(found))
    place_counts = np.zeros(len(rising) + 1, dtype=np.int64)
    for tile, positives, junk in _tiles(queries, gallery, truth):
        tile[positives] = tile[junk] = -np.inf
        place = np.searchsorted(rising, tile.ravel(), side="right")
        place_counts += np.bincount(place, minlength=len(rising) + 1)
    # A pair at place p reaches the p lowest positives; the hidden are at place 0.
    total = len(queries) * len(gallery)
    reached = total - np.cumsum(place_counts)[:-1]
    return Pairs(rising[::-1], reached[::-1], total - n_hidden)


def micro_average_precision(pairs: Pairs) -> float:
    """µAP: the average precision of one list of all pairs, by falling similarity.

    µAP = 1/P sum over the positive pairs of the precision among all pairs of at least their
    similarity. mAP averages over queries and forgives a model whose similarities mean different
    things for different queries; µAP does not. Used for copy detection (Douze et al., "The 2021
    Image Similarity Dataset and Challenge"). NaN without a positive pair.
    """
    n = len(pairs.similarity)
    if not n:
        return float("nan")
    reached = _at_least(pairs.similarity)
    return float(np.mean(reached / (reached + pairs.negatives)))


def tpr_at_fpr(pairs: Pairs, rates: Sequence[float]) -> Floats:
    """The share of positive pairs accepted when at most `rate` of the negative pairs are.

    The verification rate of face recognition (IJB-C: TPR at FPR 1e-4): the highest true positive
    rate of a threshold whose false positive rate is <= rate. Below 1 / n_negatives a rate means
    no negative pair at all. Returns (len(rates),) float64; NaN without a positive pair.
    """
    if not len(pairs.similarity):
        return np.full(len(rates), np.nan)
    reached = _at_least(pairs.similarity)
    return np.array(
        [
            np.max(reached, initial=0, where=pairs.negatives / max(pairs.n_negatives, 1) <= rate)
            / len(reached)
            for rate in rates
        ]
    )


def global_average_precision(similarity: Floats, right: NDArray[np.bool_], n: int) -> float:
    """GAP: micro AP over the first hit of each query alone, with its similarity as confidence.

    similarity, right: (queries,): of each query's first hit; n: the queries that have a match, what
    the sum is divided by. The metric of the Google Landmarks recognition challenges (Weyand et
    al., CVPR 2020; Perronnin et al., CVPR 2009). Where µAP ranks all pairs, GAP takes one
    prediction a query; queries without a match can only lose. NaN when n is 0.
    """
    if not n:
        return float("nan")
    order = np.argsort(-similarity, kind="stable")
    rights, values = right[order].astype(np.float64), similarity[order]
    last = np.searchsorted(-values, -values, side="right")  # ties count as one threshold
    precision = np.cumsum(rights)[last - 1] / last
    return float((precision * rights).sum() / n)


@dataclass(frozen=True)
class OpenSet:
    """For each false alarm rate: `threshold`, and the share of mated queries `identified`."""

    rates: tuple[float, ...]
    threshold: Floats
    identified: Floats


def open_set(
    similarity: Floats, right: NDArray[np.bool_], mated: NDArray[np.bool_], rates: Sequence[float]
) -> OpenSet:
    """Detection and identification rate at a false alarm rate.

    similarity, right (Q,): of each query's first hit; mated (Q,): whether the gallery has a match
    for it at all. The threshold is the lowest at which at most `rate` of the queries without a
    match get an answer (FPIR); identified is the share of the mated whose first hit is right and
    reaches it (1 - FNIR at rank 1). R@1 is what it becomes when every answer is accepted. Grother &
    Ngan, FRVT (NIST IR 8009); Phillips et al., "Evaluation methods in face recognition". NaN where
    there is no mated or no unmated query.
    """
    alarms = np.sort(similarity[~mated])[::-1]
    n = int(mated.sum())
    thresholds, identified = [], []
    for rate in rates:
        if not len(alarms) or not n:
            thresholds.append(np.nan)
            identified.append(np.nan)
            continue
        allowed = int((np.arange(1, len(alarms) + 1) / len(alarms) <= rate).sum())
        # Just above the first alarm that is one too many.
        above = alarms[allowed] if allowed < len(alarms) else -np.inf
        taken = mated & right & (similarity > above)
        thresholds.append(above)
        identified.append(taken.sum() / n)
    return OpenSet(tuple(rates), np.array(thresholds), np.array(identified))


def _at_least(falling: Floats) -> Ints:
    """How many values are at least as large as each of these, which fall."""
    return np.searchsorted(-falling, -falling, side="right").astype(np.int64)


def _tiles(
    queries: Rows, gallery: Rows, truth: Truth
) -> Iterator[tuple[Floats, tuple[Ints, Ints], tuple[Ints, Ints]]]:
    """Tiles of exact similarities, with the (rows, columns) of their positives and junk."""
    for start in range(0, len(queries), _ROWS):
        left = unit_rows(np.asarray(queries[start : start + _ROWS]))
        lists = truth.lists(start, start + len(left))
        for first in range(0, len(gallery), _COLUMNS):
            right = unit_rows(np.asarray(gallery[first : first + _COLUMNS]))
            positives, junk = (_inside(one, first, len(right)) for one in lists)
            yield exact_similarities(left, right), positives, junk


def _inside(lists: Csr, first: int, length: int) -> tuple[Ints, Ints]:
    here = (lists.indices >= first) & (lists.indices < first + length)
    return lists.rows()[here], lists.indices[here] - first
