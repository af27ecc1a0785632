"""Slow, obvious twins of the losses, from papers.md A: loops over images, one number at a time.

The numbers may be Python's, or torch scalars, through which a gradient flows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]


def squared(a: Vector, b: Vector) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def centroid(rows: Sequence[Vector]) -> list[float]:
    return [mean(column) for column in zip(*rows, strict=True)]


def images_of(labels: Sequence[int]) -> dict[int, list[int]]:
    """Each id's images, in the order in which they stand in the batch."""
    groups: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    return groups


def batch_hard(points: Sequence[Vector], owners: Sequence[int], margin: float) -> float:
    """Batch-hard triplet: plain Euclidean distance, hinge, mean over anchors with both kinds."""
    losses = []
    for i, anchor in enumerate(points):
        others = [j for j in range(len(points)) if j != i]
        far = [squared(anchor, points[j]) ** 0.5 for j in others if owners[j] == owners[i]]
        near = [squared(anchor, points[j]) ** 0.5 for j in others if owners[j] != owners[i]]
        if far and near:
            losses.append(max(0.0, max(far) - min(near) + margin))
    return mean(losses)


References = tuple[Sequence[Vector], Sequence[int]]


def ctl_official(
    f: Sequence[Vector], labels: Sequence[int], margin: float, refs: References | None = None
) -> float:
    """M rounds; slot i of every id asks, the id's other real slots are its centroid.

    With references: all of the id's references are, and ids without any stay out.
    """
    groups = images_of(labels)
    known = images_of(refs[1]) if refs else {}
    rounds = []
    for i in range(max(len(rows) for rows in groups.values())):
        queries, centroids, ids = [], [], []
        for label, rows in groups.items():
            if refs:
                others = [refs[0][row] for row in known.get(label, [])]
            else:
                others = [f[row] for row in rows if row != rows[min(i, len(rows) - 1)]]
            if i < len(rows) and others:
                queries.append(f[rows[i]])
                centroids.append(centroid(others))
                ids.append(label)
        if len(ids) >= 2:
            rounds.append(batch_hard(queries + centroids, ids + ids, margin))
    return mean(rounds)


def ctl_paper(
    f: Sequence[Vector], labels: Sequence[int], margin: float, refs: References | None = None
) -> float:
    """[ ||f(A) - c_P||² - ||f(A) - c_N||² + margin ]_+ with the nearest other centroid."""
    pairs = _pairs(f, labels, refs)
    return mean([max(0.0, own - min(others) + margin) for own, others in pairs])


def ctl_all(
    f: Sequence[Vector], labels: Sequence[int], margin: float, refs: References | None = None
) -> float:
    """As the paper's, over every pair of an anchor and another id."""
    pairs = _pairs(f, labels, refs)
    return mean([max(0.0, own - n + margin) for own, others in pairs for n in others])


def _pairs(
    f: Sequence[Vector], labels: Sequence[int], refs: References | None
) -> list[tuple[float, list[float]]]:
    """Per anchor: squared distance to its id's centroid without it, and to all other ids'."""
    among, names = refs or (f, labels)
    groups = images_of(names)
    result = []
    for anchor, label in enumerate(labels):
        own = [among[row] for row in groups.get(label, []) if refs or row != anchor]
        others = [[among[row] for row in rows] for name, rows in groups.items() if name != label]
        if own and others:
            far = squared(f[anchor], centroid(own))
            result.append((far, [squared(f[anchor], centroid(rows)) for rows in others]))
    return result


def center(f: Sequence[Vector], labels: Sequence[int], centers: Sequence[Vector]) -> float:
    return mean([squared(row, centers[label]) for row, label in zip(f, labels, strict=True)])


def cross_entropy(logits: Sequence[Vector], labels: Sequence[int], smoothing: float) -> float:
    """Target 1 - smoothing on the own class, plus smoothing spread evenly over all classes."""
    losses = []
    for row, label in zip(logits, labels, strict=True):
        total = math.log(sum(math.exp(value) for value in row))
        target = [smoothing / len(row) + (1 - smoothing) * (k == label) for k in range(len(row))]
        losses.append(-sum(t * (value - total) for t, value in zip(target, row, strict=True)))
    return mean(losses)
