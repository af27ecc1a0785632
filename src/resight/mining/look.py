"""One tuple, looked at: who of it stays, and what its pools bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from resight.graph.pool import Pool
from resight.mining.positives import Mined, Mining, candidate_set, mine
from resight.mining.relations import AnchorTuple
from resight.mining.selection import Rule, select

Rows = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """How tuples are looked at.

    `select` None: all members stay; `mining` None: no candidates. An inlier count of spatial
    verification, where the pool has one, adds weight · min(inliers, cap) / cap to a similarity.
    """

    pool: Pool
    features: Callable[[Rows], Floats]  # rows (n,) -> unit vectors (n, D)
    select: Rule | None
    mining: Mining | None
    weight: float = 0.0
    cap: int = 1
    objects: Rows | None = None  # (N,), below 0 where unknown: who is who, for a ceiling

    def __call__(self, members: Rows, vectors: Floats) -> AnchorTuple:
        """members (M,) rows, the anchor first; vectors (M, D) float32, theirs, unit length."""
        if self.objects is not None:
            return self._known(members, self.objects)
        kept = np.ones(len(members), bool)
        if self.select is not None:
            similarity = (vectors @ vectors.T).astype(np.float32)
            kept = select(similarity + self._verified(members), self.select)
        return AnchorTuple(members, kept, self._mined(members, kept))

    def at(self, keep: float, count: float) -> Look:
        """The same at other levels: to keep a member from, and to count in scores from."""
        select, mining = self.select, self.mining
        if select is not None:
            select = select.model_copy(update={"threshold": keep, "floor": count})
        if mining is not None:
            rule = mining.rule.model_copy(update={"threshold": keep, "floor": count})
            mining = mining.model_copy(update={"rule": rule})
        return replace(self, select=select, mining=mining)

    def _mined(self, members: Rows, kept: NDArray[np.bool_]) -> Mined | None:
        if self.mining is None:
            return None
        scores = self.pool.scores(members, self.weight, self.cap)
        neighbours = self.pool.neighbours[members]
        return mine(members, kept, neighbours, scores, self.features, self.mining)

    def _known(self, members: Rows, objects: Rows) -> AnchorTuple:
        """What perfect selection and mining would give: all images of the anchor's object."""
        own = objects[members[0]]
        same = (objects == own) & (own >= 0)
        same[members[0]] = True
        near = candidate_set(self.pool.neighbours[members], self.pool.scores(members), members)[0]
        rows = np.setdiff1d(np.union1d(near, np.flatnonzero(same)), members)
        state = np.where(same[rows], 1, -1).astype(np.int8)
        joined = np.where(same[rows], 0, -1).astype(np.int8)
        mined = Mined(rows, np.zeros(len(rows), np.float32), state, joined)
        return AnchorTuple(members, same[members], mined if self.mining is not None else None)

    def _verified(self, members: Rows) -> Floats:
        """(M, M) float32: what spatial verification adds to the similarity of two members."""
        extra = np.zeros((len(members), len(members)), np.float32)
        if self.pool.inliers is None or not self.weight:
            return extra
        looked = self.pool.inliers[members]  # (M, t)
        near = self.pool.neighbours[members][:, : looked.shape[1]]
        gain = self.weight * np.clip(looked, 0, self.cap) / self.cap
        for k, row in enumerate(members):
            extra[:, k] = np.where(near == row, gain, 0).max(axis=1)
        return np.maximum(extra, extra.T)
