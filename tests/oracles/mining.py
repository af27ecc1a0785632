"""Slow, obvious twins of selection, mining and relations: sets, dicts and loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def _single(value: float) -> float:
    return float(np.float32(value))


def score(similarities: Sequence[float], kind: str, floor: float) -> float:
    """Of one candidate, from its similarities to the whole query set."""
    if kind == "max":
        return max(similarities, default=-math.inf)
    high = [value for value in similarities if value >= _single(floor)]
    return _single(math.fsum(high) / len(high)) if high else -math.inf


def grow(similarity, initial, candidates, rule, start=()) -> list[int]:
    """The whole query set is scored again in each round. similarity (C, C), start (q, C)."""
    count = len(initial)
    joined = [0 if initial[c] else -1 for c in range(count)]
    for round_ in range(1, rule.rounds + 1):
        scores = {}
        for c in range(count):
            if candidates[c] and joined[c] < 0:
                known = [float(row[c]) for row in start]
                known += [float(similarity[q][c]) for q in range(count) if joined[q] >= 0]
                scores[c] = score(known, rule.score, rule.floor)
        if rule.choose == "threshold":
            new = [c for c in scores if scores[c] >= _single(rule.threshold)]
        else:
            able = [c for c in scores if scores[c] >= _single(rule.floor)]
            new = sorted(able, key=lambda c: (-scores[c], c))[: rule.top]
        for c in new:
            joined[c] = round_
    return joined


def mine(members, kept, neighbours, scores, similarity, options) -> dict[int, tuple]:
    """row -> (offline, state, joined). similarity (N, N): of all images."""
    best: dict[int, float] = {}
    for m in range(len(members)):
        for row, value in zip(neighbours[m], scores[m], strict=True):
            if kept[m] and row >= 0 and row not in list(members):
                best[int(row)] = max(best.get(int(row), -math.inf), float(value))
    rows = sorted(best)
    near = [row for row in rows if best[row] >= _single(options.candidate_at)]
    sure = [row for row in near if best[row] >= _single(options.initial_at)]
    if options.initial != "batch+pool":
        sure = []
    outside = {int(members[0])}
    if options.initial != "anchor":
        outside = {int(row) for row, stays in zip(members, kept, strict=True) if stays}
    part = similarity[np.ix_(rows, rows)] if rows else np.zeros((0, 0))
    joined = grow(
        part,
        [row in sure for row in rows],
        [row in near for row in rows],
        options.rule,
        [similarity[row][rows] for row in sorted(outside)],
    )
    found = {}
    for row, when in zip(rows, joined, strict=True):
        if when >= 0:
            state = 1
        elif row in near and options.leftover == "ignore":
            state = 0
        else:
            state = -1
        found[row] = (best[row], state, when)
    return found
