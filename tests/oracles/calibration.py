"""The slow, obvious twins of calibration: one image, one object, one formula at a time."""

from __future__ import annotations

import numpy as np


def p_value(s: float, own: int, scores, objects, n_objects: int) -> float:
    """By the formula; c_o is the share of o's scores that reach s (one score an object: 0 or 1)."""
    total = 0.0
    for o in sorted(set(objects)):
        mine = [score for score, other in zip(scores, objects, strict=True) if other == o]
        if o != own:
            total += sum(score >= s for score in mine) / len(mine)
    return min(1.0, (2 + total) / (1 + n_objects))


def unit(row):
    length = np.sqrt((np.asarray(row, np.float64) ** 2).sum())
    return np.asarray(row, np.float64) / (length or 1.0)


def hits(query, features, objects, level, cameras=None, camera=-1, itself=None, own=-1):
    """{object: similarity} of one query; objects that can't be compared are absent."""
    found = {}
    for o in sorted(set(objects)):
        rows = [j for j in range(len(features)) if objects[j] == o and j != itself]
        if cameras is not None and camera >= 0 and (level == "image" or o == own):
            rows = [j for j in rows if cameras[j] != camera]
        if not rows:
            continue
        if level == "image":
            found[o] = max(float(unit(query) @ unit(features[j])) for j in rows)
        else:
            total = np.sum([np.asarray(features[j], np.float64) for j in rows], axis=0)
            found[o] = float(unit(query) @ unit(total))
    return found


def rising(values, weights):
    """Isotonic regression by its min-max formula: max over starts of min over ends of the mean."""
    n = len(values)

    def mean(i, j):
        return np.dot(values[i : j + 1], weights[i : j + 1]) / np.sum(weights[i : j + 1])

    return [max(min(mean(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)]


def calibration_error(probability, right, bins):
    total = 0.0
    for b in range(bins):
        last = b == bins - 1
        inside = [
            i
            for i, p in enumerate(probability)
            if b / bins <= p < (b + 1) / bins or (last and p == 1)
        ]
        if inside:
            gap = np.mean([right[i] for i in inside]) - np.mean([probability[i] for i in inside])
            total += len(inside) * abs(gap)
    return total / len(probability)
