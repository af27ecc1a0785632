"""One tuple, looked at: who of it stays, and what its pools bring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from resight.mining.pool import Pool
from resight.mining.positives import Mined, Mining, mine
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

    def __call__(self, members: Rows, vectors: Floats) -> AnchorTuple:
        """members (M,) rows, the anchor first; vectors (M, D) float32, theirs, unit length."""
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
        neighbours = self.pool.candidates(members)
        return mine(members, kept, neighbours, scores, self.features, self.mining)

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
