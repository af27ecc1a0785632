"""Slow, obvious twins of the metrics: plain loops down a list of hits, from the definitions.

`hits`: whether each place of a ranked list, junk removed, holds a positive, down to the last place.
`scored`: (similarity, right) of pairs or of answers, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

Hits = Sequence[bool]
Scored = Sequence[tuple[float, bool]]
NONE = float("nan")


def precision(hits: Hits, k: int) -> float:
    """The share of the first k that are positives; of nothing it is 1 by convention."""
    return sum(hits[:k]) / k if k else 1.0


def recall(hits: Hits, k: int) -> float:
    """The share of the positives that are among the first k."""
    return sum(hits[:k]) / sum(hits) if any(hits) else NONE


def rectangular(hits: Hits) -> float:
    """The mean, over the positives, of the precision there."""
    if not any(hits):
        return NONE
    values = [precision(hits, k) for k in range(1, len(hits) + 1) if hits[k - 1]]
    return sum(values) / len(values)


def trapezoidal(hits: Hits) -> float:
    """The area under straight lines between (recall, precision) of 0, 1, 2, ... places."""
    if not any(hits):
        return NONE
    points = [(recall(hits, k), precision(hits, k)) for k in range(len(hits) + 1)]
    area = 0.0
    for (x, y), (next_x, next_y) in pairwise(points):
        area += (next_x - x) * (y + next_y) / 2
    return area


def average_precision_at(hits: Hits, k: int, divisor: str, kind: str = "rectangular") -> float:
    """The area over the first k places in units of one positive, over a number of positives."""
    if not any(hits):
        return NONE
    total = 0.0
    for place in range(1, min(k, len(hits)) + 1):
        if hits[place - 1]:
            here, before = precision(hits, place), precision(hits, place - 1)
            total += here if kind == "rectangular" else (here + before) / 2
    relevant, found = sum(hits), sum(hits[:k])
    if divisor == "found":
        return total / found if found else 0.0
    return total / {"relevant": relevant, "min": min(relevant, k)}[divisor]


def map_at_r(hits: Hits) -> float:
    """1/R of the precisions at the positives among the first R."""
    return average_precision_at(hits, sum(hits), "relevant")


def r_precision(hits: Hits) -> float:
    """The precision of the first R."""
    return precision(hits, sum(hits)) if any(hits) else NONE


def first_rank(hits: Hits) -> float:
    """The place of the first positive, from 1."""
    for k, hit in enumerate(hits, start=1):
        if hit:
            return k
    return NONE


def hit_at(hits: Hits, k: int) -> float:
    """1 where any of the first k is a positive."""
    return float(any(hits[:k])) if any(hits) else NONE


def cmc(lists: Sequence[Hits], length: int) -> list[float]:
    """The share of the lists, of those with a positive, that have one within 1, 2, ... places."""
    asked = [hits for hits in lists if any(hits)]
    if not asked:
        return [NONE] * length
    return [sum(any(hits[:k]) for hits in asked) / len(asked) for k in range(1, length + 1)]


def precision_of_revisitop(hits: Hits, k: int) -> float:
    """As in the released code: `kq = min(max(pos), k)`, `(pos <= kq).sum() / kq`, places from 1."""
    positions = [place for place, hit in enumerate(hits, start=1) if hit]
    if not positions:
        return NONE
    end = min(max(positions), k)
    return sum(place <= end for place in positions) / end


def inverse_negative_penalty(hits: Hits) -> float:
    """The precision at the last positive."""
    last = max((k for k, hit in enumerate(hits, start=1) if hit), default=0)
    return precision(hits, last) if last else NONE


def ndcg(hits: Hits, gains: Sequence[float], at: int | None = None) -> float:
    """gains: of each place, 0 for negatives. The gain of the list over that of the best list."""
    if not any(hits):
        return NONE

    def discounted(order: Sequence[float]) -> float:
        return sum(gain / math.log2(1 + k) for k, gain in enumerate(order[:at], start=1))

    best = discounted(sorted(gains, reverse=True))
    return discounted(gains) / best if best else 0.0


def mean(values: Sequence[float]) -> float:
    """Over what is a number."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else NONE


def _thresholds(scored: Scored) -> list[float]:
    return sorted({similarity for similarity, _ in scored}, reverse=True)


def micro_average_precision(pairs: Scored) -> float:
    """Walk the thresholds: the recall that each adds, times the precision of all it accepts."""
    relevant = sum(right for _, right in pairs)
    if not relevant:
        return NONE
    area, before = 0.0, 0
    for threshold in _thresholds(pairs):
        accepted = [right for similarity, right in pairs if similarity >= threshold]
        area += (sum(accepted) - before) / relevant * sum(accepted) / len(accepted)
        before = sum(accepted)
    return area


def tpr_at_fpr(pairs: Scored, rate: float) -> float:
    """The best true positive rate of any threshold with a false positive rate of at most `rate`."""
    relevant = sum(right for _, right in pairs)
    if not relevant:
        return NONE
    best = 0.0  # nothing accepted
    for threshold in _thresholds(pairs):
        accepted = [right for similarity, right in pairs if similarity >= threshold]
        wrong, negatives = len(accepted) - sum(accepted), len(pairs) - relevant
        if not wrong or wrong / negatives <= rate:
            best = max(best, sum(accepted) / relevant)
    return best


def global_average_precision(answers: Scored, n: int) -> float:
    """1/n of the precisions at the right answers, each among all answers that are as sure."""
    if not n:
        return NONE
    total = 0.0
    for similarity, right in answers:
        if right:
            as_sure = [other for value, other in answers if value >= similarity]
            total += sum(as_sure) / len(as_sure)
    return total / n


def identified(mated: Scored, alarms: Sequence[float], rate: float) -> float:
    """The best share of right and accepted answers of a threshold with few enough alarms.

    mated: the answers of queries with a match; alarms: the similarities of those of the others.
    """
    if not mated or not alarms:
        return NONE
    best = 0.0
    for threshold in [*(similarity for similarity, _ in mated), *alarms]:
        alarmed = sum(similarity >= threshold for similarity in alarms)
        if alarmed / len(alarms) <= rate:
            taken = sum(right and similarity >= threshold for similarity, right in mated)
            best = max(best, taken / len(mated))
    return best
