"""Slow, obvious twins of the comparators, from their papers: loops, plain Python numbers.

A "pair list" of a query is [(row of the reference, similarity, same label)], the image itself left
out where a batch is compared with itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.oracles.losses import Vector, mean, squared

Pairs = list[tuple[int, float, bool]]


def normalised(row: Vector) -> list[float]:
    length = math.sqrt(sum(x * x for x in row))
    return [x / length if length else 0.0 for x in row]


def cosine(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(normalised(a), normalised(b), strict=True))


def pair_lists(
    f: Sequence[Vector],
    labels: Sequence[int],
    ref: Sequence[Vector] | None = None,
    ref_labels: Sequence[int] | None = None,
) -> list[Pairs]:
    result = []
    for i, row in enumerate(f):
        if ref is None or ref_labels is None:
            others = [j for j in range(len(f)) if j != i]
            result.append([(j, cosine(row, f[j]), labels[j] == labels[i]) for j in others])
        else:
            result.append(
                [(j, cosine(row, r), ref_labels[j] == labels[i]) for j, r in enumerate(ref)]
            )
    return result


def contrastive(lists: list[Pairs], margin: float, pos_margin: float = 1.0) -> float:
    total = 0.0
    for pairs in lists:
        for _, s, same in pairs:
            if same and s < pos_margin:
                total += 1 - s
            elif not same and s > margin:
                total += s
    return total / len(lists)


def semihard(lists: list[Pairs], margin: float, fallback: str) -> float:
    """FaceNet: the nearest negative that is farther than the positive."""
    losses = []
    for pairs in lists:
        negatives = [2 - 2 * s for _, s, same in pairs if not same]
        for _, s, same in pairs:
            if not same or not negatives:
                continue
            positive = 2 - 2 * s
            farther = [d for d in negatives if d > positive]
            if farther:
                negative = min(farther)
            elif fallback == "none":
                continue
            else:
                negative = max(negatives) if fallback == "farthest" else min(negatives)
            losses.append(max(0.0, positive - negative + margin))
    return mean(losses)


def hard(
    f: Sequence[Vector],
    labels: Sequence[int],
    ref: Sequence[Vector],
    ref_labels: Sequence[int],
    margin: float,
) -> float:
    """Batch-hard against references: plain Euclidean distance, not normalised."""
    losses = []
    for row, label in zip(f, labels, strict=True):
        distances = [(math.sqrt(squared(row, r)), k) for r, k in zip(ref, ref_labels, strict=True)]
        far = [d for d, k in distances if k == label]
        near = [d for d, k in distances if k != label]
        if far and near:
            losses.append(max(0.0, max(far) - min(near) + margin))
    return mean(losses)


def fastap(lists: list[Pairs], bins: int) -> float:
    """1 - FastAP, by histograms: a distance's share of a bin falls linearly with its distance."""
    losses = []
    width = 4 / bins
    for pairs in lists:
        count = sum(same for _, _, same in pairs)
        if not count:
            continue
        ap = own_so_far = all_so_far = 0.0
        for j in range(bins + 1):
            own = every = 0.0
            for _, s, same in pairs:
                share = max(0.0, 1 - abs(2 - 2 * s - j * width) / width)
                own += share * same
                every += share
            own_so_far += own
            all_so_far += every
            if own > 0:
                ap += own * own_so_far / all_so_far
        losses.append(1 - ap / count)
    return mean(losses)


def ranks(scores: Sequence[float]) -> list[int]:
    """Place of each score from 1, the highest first, equal ones in their order."""
    return [
        1 + sum(b > a or (b == a and j < i) for j, b in enumerate(scores))
        for i, a in enumerate(scores)
    ]


def average_precision(places: Sequence[int], hits: Sequence[bool]) -> float:
    own = [place for place, hit in zip(places, hits, strict=True) if hit]
    return mean([sum(other <= place for other in own) / place for place in own])


def shifted(pairs: Pairs, margin: float) -> list[float]:
    return [s - margin / 2 if same else s + margin / 2 for _, s, same in pairs]


def blackbox_ap(lists: list[Pairs], margin: float) -> float:
    """1 - AP of the actual ranking, positives lowered and negatives raised by half the margin."""
    losses = []
    for pairs in lists:
        hits = [same for _, _, same in pairs]
        if any(hits):
            losses.append(1 - average_precision(ranks(shifted(pairs, margin)), hits))
    return mean(losses)


def blackbox_ap_slopes(
    lists: list[Pairs], margin: float, interpolation: float
) -> list[dict[int, float]]:
    """What the ranking passes back, per query: {row of the reference: slope for its similarity}.

    The rank, divided by the length of the list, is the solver's output; the solver is asked again
    at scores + interpolation · dL/d(output), and the slope is the change over interpolation.
    """
    asking = sum(any(same for _, _, same in pairs) for pairs in lists)
    result = []
    for pairs in lists:
        n, hits = len(pairs), [same for _, _, same in pairs]
        if not any(hits):
            result.append({})
            continue
        scores = shifted(pairs, margin)
        first = ranks(scores)
        own = [place for place, hit in zip(first, hits, strict=True) if hit]
        incoming = []
        for place, hit in zip(first, hits, strict=True):
            # AP = 1/P Σ among / rank, rank = n · output: L falls by among / (rank · output) / P.
            among = sum(other <= place for other in own)
            incoming.append(among / (place * (place / n)) / len(own) / asking if hit else 0.0)
        moved = [s + interpolation * g for s, g in zip(scores, incoming, strict=True)]
        second = ranks(moved)
        result.append(
            {
                j: (b / n - a / n) / interpolation
                for (j, _, _), a, b in zip(pairs, first, second, strict=True)
            }
        )
    return result


def proxy_nca(
    f: Sequence[Vector],
    labels: Sequence[int],
    proxies: Sequence[Vector],
    scale: float,
    include_positive: bool,
) -> float:
    losses = []
    for row, label in zip(f, labels, strict=True):
        weights = [
            math.exp(-scale * squared(normalised(row), normalised(proxy))) for proxy in proxies
        ]
        below = sum(w for k, w in enumerate(weights) if include_positive or k != label)
        losses.append(-math.log(weights[label] / below))
    return mean(losses)


def arcface(
    f: Sequence[Vector],
    labels: Sequence[int],
    weights: Sequence[Vector],
    scale: float,
    margin: float,
) -> float:
    losses = []
    for row, label in zip(f, labels, strict=True):
        logits = []
        for k, weight in enumerate(weights):
            angle = math.acos(max(-1.0, min(1.0, cosine(row, weight))))
            if k != label:
                logits.append(math.cos(angle))
            elif angle + margin <= math.pi:
                logits.append(math.cos(angle + margin))
            else:
                logits.append(math.cos(angle) - margin * math.sin(margin))
        top = max(logits)
        total = math.log(sum(math.exp(scale * (value - top)) for value in logits))
        losses.append(total - scale * (logits[label] - top))
    return mean(losses)
