"""Slow, obvious twins of Smooth-AP, from papers.md B: loops in plain Python, and a dense B×B×B."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tests.oracles.losses import Vector, mean
from tests.oracles.metrics import rectangular


def cosine(a: Vector, b: Vector) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else 1 - 1 / (1 + math.exp(x))


Lists = list[tuple[list[float], list[bool]]]


def ranked(
    f: Sequence[Vector],
    labels: Sequence[int],
    ref: Sequence[Vector] | None = None,
    ref_labels: Sequence[int] = (),
    include_query: bool = False,
) -> Lists:
    """For every query that has a positive: similarities of its retrieval set, and who is one."""
    found = []
    for q, (vector, label) in enumerate(zip(f, labels, strict=True)):
        others = list(zip(ref, ref_labels, strict=True) if ref is not None else [])
        if ref is None:
            others = [pair for j, pair in enumerate(zip(f, labels, strict=True)) if j != q]
        if not any(other == label for _, other in others):
            continue
        if include_query:
            others.append((vector, label))
        found.append(([cosine(vector, v) for v, _ in others], [y == label for _, y in others]))
    return found


def smooth_ap(lists: Lists, temperature: float) -> list[float]:
    """AP of each query, from the definition."""
    found = []
    for s, right in lists:
        terms = []
        for i in (i for i in range(len(s)) if right[i]):
            above = {j: logistic((s[j] - s[i]) / temperature) for j in range(len(s)) if j != i}
            rank = 1 + sum(value for j, value in above.items() if right[j])
            terms.append(rank / (1 + sum(above.values())))
        found.append(mean(terms))
    return found


def exact_ap(lists: Lists) -> list[float]:
    """The true AP of each query."""
    found = []
    for s, right in lists:
        order = sorted(range(len(s)), key=lambda j: -s[j])
        found.append(rectangular([right[j] for j in order]))
    return found


def dense(
    x: torch.Tensor,
    labels: torch.Tensor,
    ref: torch.Tensor | None = None,
    ref_labels: torch.Tensor | None = None,
    *,
    temperature: float,
    include_query: bool,
) -> torch.Tensor:
    """The loss in a few lines with a B×R×R tensor, for autograd."""
    x = torch.nn.functional.normalize(x, dim=1)
    y = x if ref is None else torch.nn.functional.normalize(ref, dim=1)
    same = labels[:, None] == (labels if ref_labels is None else ref_labels)[None]
    itself = torch.eye(len(x), dtype=torch.bool) if ref is None else torch.zeros_like(same)
    seen = torch.ones_like(same) if include_query else ~itself
    s = x @ y.T
    g = torch.sigmoid((s[:, None, :] - s[:, :, None]) / temperature)
    g = g * seen[:, None, :] * ~torch.eye(len(y), dtype=torch.bool)
    positive = same & seen
    ratio = (1 + (g * positive[:, None, :]).sum(2)) / (1 + g.sum(2))
    counted = (same & ~itself).any(1)
    return (1 - (ratio * positive).sum(1)[counted] / positive.sum(1)[counted]).mean()
