"""Which candidates join a query set: the rule behind mini-batch selection and mining.

A query set starts with some images. In each round every candidate gets a score from its
similarities to the query set, the rule lets some join, and those count in the next round.
InsCLR (AAAI 2022) uses it twice, with different rules; every row of its tables is a Rule.

All comparisons are between float32 numbers, so a similarity written as .6 reaches a threshold
of .6. A NaN similarity counts as none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
States = NDArray[np.int8]
# Query rows taken at once: their similarities stay in the processor's cache, and the count of
# the high ones fits a byte.
_BLOCK = 64


class Rule(BaseModel):
    """How a query set grows.

    score: `average` is the mean of a candidate's similarities to the query set that are at least
    `floor` (none that high: it can't join); `max` is the largest of all its similarities.
    choose: with `threshold` all whose score is at least `threshold` join; with `topk` the `top`
    best, ties to the lower index, of those with a score of at least `floor`.
    rounds: how often; growth ends early when nobody joins.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Literal["average", "max"]
    choose: Literal["threshold", "topk"]
    threshold: FiniteFloat = 0.6
    top: int = Field(default=5, ge=1)
    rounds: int = Field(default=1, ge=0, le=127)
    floor: FiniteFloat = 0.6


# Mini-batch selection as in the paper: a neighbour stays if it is close to the anchor.
CLOSE_TO_ANCHOR = Rule(score="max", choose="threshold", threshold=0.6, rounds=1)


def grow(
    similarity: Callable[[NDArray[np.int64]], Floats],
    initial: Bools,
    candidates: Bools,
    rule: Rule,
    start: Floats | None = None,
) -> States:
    """Let candidates join the query set, round by round.

    `initial` (C,) is the query set at first and `candidates` (C,) who may join (one that is in
    both is of the query set). `similarity(rows (m,)) -> (m, C)` float32 is asked once for each
    member of the query set and only when there is still a round to score. `start` (q, C) are the
    similarities of members that are not among the C.
    Returns (C,) int8: 0 for the initial ones, r for those that joined in round r >= 1, else -1.
    Raises ValueError when the lengths differ.
    """
    if initial.shape != candidates.shape or (
        start is not None and start.shape[1:] != initial.shape
    ):
        raise ValueError("initial, candidates and start must be of the same number of candidates")
    joined = np.where(initial, 0, -1).astype(np.int8)
    waiting = candidates & ~initial
    tally = _Tally(len(initial), rule)
    if start is not None:
        tally.add(start)
    new = np.flatnonzero(initial)
    for round_ in range(1, rule.rounds + 1):
        if not waiting.any():
            break
        if len(new):
            tally.add(similarity(new))
        new = _chosen(tally.scores(), waiting, rule)
        if not len(new):
            break
        joined[new] = round_
        waiting[new] = False
    return joined


def select(similarity: Floats, rule: Rule = CLOSE_TO_ANCHOR) -> Bools:
    """Mini-batch selection: which members of a tuple stay with their anchor, (M,).

    similarity: (M, M) float32 of the tuple's un-augmented images, the anchor first. The anchor
    always stays. Raises ValueError when similarity is not square, or empty.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1] or not len(similarity):
        raise ValueError(f"the similarities of a tuple are a square, not {similarity.shape}")
    anchor = np.arange(len(similarity)) == 0
    kept: Bools = grow(lambda rows: similarity[rows], anchor, ~anchor, rule) >= 0
    return kept


class _Tally:
    """Sums and counts, or the largest, of the similarities to the query set so far."""

    def __init__(self, candidates: int, rule: Rule):
        self.average, self.floor = rule.score == "average", np.float32(rule.floor)
        self.largest = np.full(candidates, -np.inf, dtype=np.float32)
        # Float64: the sum then doesn't depend on who joined when.
        self.sums = np.zeros(candidates)
        self.counts = np.zeros(candidates, dtype=np.int64)

    def add(self, similarity: Floats) -> None:
        """Count (m, C) similarities of new members of the query set."""
        for first in range(0, len(similarity), _BLOCK):
            block = similarity[first : first + _BLOCK]
            if self.average:
                high = block >= self.floor
                # A product is several times faster than a choice; fmax takes care of NaN.
                counted = np.fmax(block, self.floor) * high
                self.sums += np.add.reduce(counted, axis=0, dtype=np.float64)
                self.counts += np.add.reduce(high.view(np.uint8), axis=0, dtype=np.uint8)
            else:
                np.fmax(self.largest, np.fmax.reduce(block, axis=0), out=self.largest)

    def scores(self) -> Floats:
        """(C,) float32; -inf where there is nothing to score."""
        if not self.average:
            return self.largest
        means = self.sums / np.maximum(self.counts, 1)
        scores: Floats = np.where(self.counts > 0, means, -np.inf).astype(np.float32)
        return scores


def _chosen(scores: Floats, waiting: Bools, rule: Rule) -> NDArray[np.int64]:
    """Rising indices of those who join."""
    least = np.float32(rule.threshold if rule.choose == "threshold" else rule.floor)
    able = np.flatnonzero(waiting & (scores >= least) & (scores > -np.inf))
    if rule.choose == "topk":
        able = able[np.argsort(-scores[able], kind="stable")[: rule.top]]
    return np.sort(able)
