"""Pseudo-positives: images of the whole collection that are taken for the anchor's object.

A tuple is an anchor and its nearest neighbours; its members that mini-batch selection kept ask
the candidate pool (the nearest neighbours of every image, with similarities, found before the
stage). Candidates close enough there are positives at once; the others may join in rounds.
Source: InsCLR (AAAI 2022), section "Pseudo positive mining".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat, model_validator

from resight.mining.selection import Bools, Floats, Rule, States, grow

Rows = NDArray[np.int64]
RowFeatures = Callable[[Rows], Floats]


class Mining(BaseModel):
    """What makes a candidate a positive.

    initial: who is in the query set at first: the anchor, all kept members (`batch`), or these
    and the candidates with a pool similarity of at least `initial_at` (`batch+pool`).
    candidate_at: below this pool similarity a candidate is a hard negative.
    leftover: what those are who could have joined and did not.
    The defaults are the paper's for landmarks (its INSTRE: .95, .65, 2 rounds of 20).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial: Literal["anchor", "batch", "batch+pool"] = "batch+pool"
    initial_at: FiniteFloat = 0.75
    candidate_at: FiniteFloat = 0.5
    rule: Rule = Rule(score="average", choose="topk", top=5, rounds=4, floor=0.6)
    leftover: Literal["ignore", "negative"] = "ignore"

    @model_validator(mode="after")
    def _in_order(self) -> Mining:
        if self.candidate_at > self.initial_at:
            raise ValueError("candidate_at must not be above initial_at")
        return self


@dataclass(frozen=True)
class Mined:
    """The C candidates of one tuple.

    rows (C,) int64, rising; offline (C,) float32: the best pool similarity to a kept member;
    state (C,) int8: 1 positive, 0 undecided, -1 hard negative; joined (C,) int8: 0 for a positive
    from the start, r for one that joined in round r, else -1.
    """

    rows: Rows
    offline: Floats
    state: States
    joined: States


def candidate_set(
    neighbours: NDArray[np.int32] | Rows, scores: Floats, members: NDArray[np.int32] | Rows
) -> tuple[Rows, Floats]:
    """The union of some pools, without the members of the tuple.

    neighbours (m, k): rows of images, -1 where a pool is shorter; scores (m, k): their
    similarities; members (M,). Returns rows (C,) int64, rising, and for each its best similarity
    (C,) float32.
    """
    keep = (neighbours >= 0) & ~np.isin(neighbours, members)
    found = neighbours[keep].astype(np.int64)
    order = np.argsort(found, kind="stable")
    rows, first = np.unique(found[order], return_index=True)
    if not len(rows):
        return rows, np.zeros(0, dtype=np.float32)
    return rows, np.fmax.reduceat(scores[keep].astype(np.float32)[order], first)


def mine(
    members: NDArray[np.int32] | Rows,
    kept: Bools,
    neighbours: NDArray[np.int32] | Rows,
    scores: Floats,
    features: RowFeatures,
    options: Mining,
) -> Mined:
    """Sort one tuple's candidates into positives, undecided and hard negatives.

    members (M,) rows, the anchor first; kept (M,): who passed mini-batch selection, the anchor
    always; neighbours and scores (M, k): the members' pools (those of the kept are read).
    features(rows (n,)) -> (n, D) float32, L2-normalised, un-augmented: asked at most once, and
    only for the query set and the candidates that might join it.
    Raises ValueError when the lengths differ or the anchor is not kept.
    """
    if not (members.shape == kept.shape == neighbours.shape[:1]) or (
        neighbours.shape != scores.shape
    ):
        raise ValueError("members, kept, neighbours and scores must be of the same tuple")
    if not kept[:1].all():
        raise ValueError("the anchor of a tuple is always kept")
    rows, offline = candidate_set(neighbours[kept], scores[kept], members)
    near = offline >= np.float32(options.candidate_at)
    sure = near & (offline >= np.float32(options.initial_at))
    if options.initial != "batch+pool":
        sure[:] = False
    open_ = np.flatnonzero(near & ~sure)
    first = members[:1] if options.initial == "anchor" else members[kept]
    query = np.unique(np.concatenate([first.astype(np.int64), rows[sure]]))

    joined = np.where(sure, 0, -1).astype(np.int8)
    if len(open_) and options.rule.rounds:
        joined[open_] = _rounds(query, rows[open_], features, options.rule)
    state = np.full(len(rows), -1, dtype=np.int8)
    if options.leftover == "ignore":
        state[near] = 0
    state[joined >= 0] = 1
    return Mined(rows, offline, state, joined)


def _rounds(query: Rows, open_: Rows, features: RowFeatures, rule: Rule) -> States:
    """Who of the open candidates (n,) joins the query set (q,), as `grow` tells it."""
    vectors = features(np.concatenate([query, open_]))
    mine, theirs = vectors[: len(query)], vectors[len(query) :]
    nobody = np.zeros(len(open_), dtype=bool)
    return grow(lambda new: theirs[new] @ theirs.T, nobody, ~nobody, rule, start=mine @ theirs.T)
