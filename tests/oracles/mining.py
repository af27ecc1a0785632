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


class Told:
    """The sets of rows that one tuple has, and the lists each of its images gets from them."""

    def __init__(self, tuple_):
        members, kept = [int(row) for row in tuple_.members], [bool(k) for k in tuple_.kept]
        self.members = set(members)
        self.stay = {row for row, stays in zip(members, kept, strict=True) if stays}
        state = {}
        if tuple_.mined is not None:
            mined = tuple_.mined
            state = dict(zip(mined.rows.tolist(), mined.state.tolist(), strict=True))
        self.mined = {row for row in state if state[row] == 1}
        self.undecided = {row for row in state if state[row] == 0}
        self.hard = {row for row in state if state[row] == -1}
        self.candidates = set(state)
        self.positives = self.stay | self.mined


def _unsure(a: Told, b: Told) -> bool:
    """Should tuple a not be compared with tuple b as a whole?"""
    shared = a.positives & b.positives
    return bool(shared or a.members & b.undecided or b.members & a.undecided)


def relate(tuples, similarity, threshold):
    """The (B, B) matrix, and for each image its three sets: positives, negatives, ignored."""
    images = [
        (t, Told(each), int(row), bool(stays))
        for t, each in enumerate(tuples)
        for row, stays in zip(each.members, each.kept, strict=True)
    ]

    def one(i: int, j: int) -> int:
        (t, a, row_a, kept_a), (u, b, row_b, kept_b) = images[i], images[j]
        if i == j:
            return 0
        if row_a == row_b:
            return 1
        if t == u:
            if kept_a and kept_b:
                return 1
            if kept_a or kept_b:
                return -1
            alike = max(similarity[i, j], similarity[j, i]) >= np.float32(threshold)
            return 0 if alike else -1
        mined = row_b in a.positives or row_a in b.positives
        if kept_a and kept_b and mined:
            return 1
        if mined or _unsure(a, b):
            return 0
        if (not kept_a and row_b in a.candidates) or (not kept_b and row_a in b.candidates):
            return 0
        return -1

    matrix = [[one(i, j) for j in range(len(images))] for i in range(len(images))]
    lists = []
    for t, a, _, stays in images:
        others = [Told(each) for u, each in enumerate(tuples) if u != t]
        near = set().union(*(b.positives for b in others if _unsure(a, b)))
        if stays:
            negatives = a.hard | (a.members - a.stay)
            ignored = a.undecided | a.stay | (near - a.mined - negatives)
            lists.append((a.mined, negatives, ignored))
        else:
            lists.append((set(), set(), a.members | a.candidates | near))
    return matrix, lists


def labels(matrix) -> list[int]:
    """A label for each image: those joined by 1s, over any others, share one."""
    label = list(range(len(matrix)))
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            if matrix[i][j] == 1:
                label = [label[i] if each == label[j] else each for each in label]
    seen: dict[int, int] = {}
    return [seen.setdefault(each, len(seen)) for each in label]


def references(label, lists, rows, heard) -> dict[int, object]:
    """row -> its label, or "own" for a hard negative; `heard`: whose ignored rows count."""
    found: dict[int, object] = {}
    for row in set().union(*(p | n for p, n, _ in lists)):
        pull = {label[i] for i, (positives, _, _) in enumerate(lists) if row in positives}
        push = {label[i] for i, (_, negatives, _) in enumerate(lists) if row in negatives}
        out = row in list(rows) or any(
            row in ignored for (_, _, ignored), counts in zip(lists, heard, strict=True) if counts
        )
        if not out and len(pull) <= 1 and not pull & push:
            found[row] = min(pull) if pull else "own"
    return found
