"""What is searched, in memory: an index, what came since, and what is gone.

A view stands at a version of the engine and is brought up to date by what changed. New vectors
stand behind the index and are always looked at, struck ones are passed over; when they are many,
the index is built anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.search.engines.contract import Near as Near
from resight.search.index import NEIGHBOURS, Found, Index, knn, new_flat, rows_of, share_found, unit

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# float32 products of unit vectors differ from exact ones by less than this.
MARGIN = 8e-6
_GATHER = 65536
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class _Candidates:
    """Runs of (similarities, positions), each (Q, n) best first; `whole`: nothing is missing."""

    parts: list[Found]
    whole: bool
    coarse: bool = False

    def of(self, query: int) -> tuple[Ints, float]:
        """Of one query: positions, and the similarity that all others stay below."""
        at = np.concatenate([_NONE, *(part[1][query] for part in self.parts)])
        ends = [float(part[0][query][-1]) for part in self.parts if part[0].shape[1]]
        return at[at >= 0], max(ends, default=-2.0)


class View:
    """Unit vectors by key: `base`, and a tail of what came since. Not for several threads."""

    def __init__(self, base: Index, version: int):
        self.base, self.version = base, version
        self._dead: Bools = np.zeros(len(base), bool)
        self._tail = new_flat(base.flat.d)
        self._tail_keys: list[int] = []
        self._tail_groups: list[int] = []
        self._tail_dead: list[bool] = []
        self._tail_at: dict[int, int] = {}
        self._arrays: tuple[Ints, Ints, Bools] | None = None
        self.measured = 0  # changes when recall was last measured

    def __len__(self) -> int:
        return len(self.base) - int(self._dead.sum()) + len(self._tail_at)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.base.flat.d)

    @property
    def changed(self) -> int:
        """How many vectors came or went since the index was built."""
        return int(self._dead.sum()) + len(self._tail_keys)

    def strike(self, keys: Sequence[int]) -> None:
        """These are gone, or come anew in `append`."""
        wanted = np.asarray(keys, np.int64)
        at = np.searchsorted(self.base.keys, wanted)
        inside = at < len(self.base)
        hit = at[inside][self.base.keys[at[inside]] == wanted[inside]]
        self._dead[hit] = True
        for key in keys:
            place = self._tail_at.pop(int(key), None)
            if place is not None:
                self._tail_dead[place] = True
        self._arrays = None

    def append(self, keys: Ints, groups: Ints, vectors: NDArray[Any]) -> None:
        """Vectors (n, D) of any length, not yet here or struck before."""
        if not len(keys):
            return
        if not self.dim:
            self.base = Index(new_flat(vectors.shape[1]), self.base.keys, self.base.groups)
            self._tail = new_flat(vectors.shape[1])
        first = len(self._tail_keys)
        self._tail.add(unit(vectors))
        self._tail_keys += keys.tolist()
        self._tail_groups += groups.tolist()
        self._tail_dead += [False] * len(keys)
        self._tail_at.update((int(key), first + n) for n, key in enumerate(keys))
        self._arrays = None

    def _all(self) -> tuple[Ints, Ints, Bools]:
        """Keys, groups and life of base and tail, in one row each."""
        if self._arrays is None:
            keys = np.concatenate([self.base.keys, np.array(self._tail_keys, np.int64)])
            groups = np.concatenate([self.base.groups, np.array(self._tail_groups, np.int64)])
            dead = np.concatenate([self._dead, np.array(self._tail_dead, bool)])
            self._arrays = keys, groups, ~dead
        return self._arrays

    def everything(self) -> tuple[Ints, Ints, NDArray[np.float32]]:
        """Keys rising, groups and unit vectors of all that is alive; a copy."""
        keys, groups, alive = self._all()
        at = np.flatnonzero(alive)
        at = at[np.argsort(keys[at], kind="stable")]
        return keys[at], groups[at], self._rows(at)

    def of_group(self, group: int) -> tuple[Ints, NDArray[np.float32]]:
        """Keys and unit vectors of an object's items."""
        keys, groups, alive = self._all()
        at = np.flatnonzero(alive & (groups == group))
        return keys[at], self._rows(at)

    def keep(self, allowed: Ints) -> Bools:
        """A mask over `nearest`'s positions of the allowed keys (n,), rising."""
        keys = self._all()[0]
        at = np.minimum(np.searchsorted(allowed, keys), max(0, len(allowed) - 1))
        return allowed[at] == keys if len(allowed) else np.zeros(len(keys), bool)

    def _rows(self, at: Ints) -> NDArray[np.float32]:
        """Unit vectors by position."""
        base = len(self.base)
        rows = np.empty((len(at), self.dim), np.float32)
        early = at < base
        rows[early] = self.base.rows[at[early]]
        rows[~early] = rows_of(self._tail)[at[~early] - base]
        return rows

    def nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        distinct: bool = False,
        keep: Bools | None = None,
        without: Sequence[frozenset[int]] | None = None,
    ) -> list[Near]:
        """The k nearest of each query (Q, D); `distinct`: of k different objects, the best each.

        `keep`: a mask from `keep()`; `without`: keys that are no answer, for each query. The same
        whatever the number of queries: candidates are compared again, row by row, in float64.
        """
        asked = unit(queries)
        count = len(self._all()[0])
        usable = self._all()[2] if keep is None else self._all()[2] & keep
        total = int(usable.sum())
        found: list[Near | None] = [None] * len(asked)
        todo, fetch = list(range(len(asked))), k + 8
        while todo:
            candidates = self._candidates(asked[todo], fetch, usable, total)
            short = []
            for at, query in enumerate(todo):
                barred = without[query] if without is not None else frozenset()
                positions, horizon = candidates.of(at)
                near = self._settle(asked[query], positions, usable, barred, k, distinct)
                found[query] = near
                full = len(near.keys) == k
                if not candidates.whole and not (
                    full and (candidates.coarse or near.similarities[-1] > horizon + MARGIN)
                ):
                    short.append(query)
            todo, fetch = short, min(count, fetch * 4)
        return [near for near in found if near is not None]

    def _candidates(
        self, asked: NDArray[np.float32], fetch: int, usable: Bools, total: int
    ) -> _Candidates:
        base, count = len(self.base), len(usable)
        share = total / max(1, count)
        if share < 0.3 or (share < 0.9 and total <= 50_000):
            allowed = np.flatnonzero(usable)  # looked at one by one: exact, however few they are
            parts = []
            for start in range(0, total, _GATHER):
                here = allowed[start : start + _GATHER]
                similar, at = knn(asked, self._rows(here), fetch)
                parts.append((similar, here[at]))
            return _Candidates(parts, whole=fetch >= total)
        wider = int(fetch / share * 1.2) + 8 if total < count else fetch
        coarse = self.base.coarse is not None and wider < base // 8
        ask = self.base.search if coarse else partial(knn, rows=self.base.rows)
        late, late_at = knn(asked, rows_of(self._tail), wider)
        parts = [ask(asked, fetch=min(base, wider)), (late, late_at + base)]
        return _Candidates(parts, whole=not coarse and wider >= count, coarse=coarse)

    def _settle(
        self,
        query: NDArray[np.float32],
        positions: Ints,
        usable: Bools,
        barred: frozenset[int],
        k: int,
        distinct: bool,
    ) -> Near:
        """The k best of the candidates, compared again."""
        keys, groups, _ = self._all()
        at = positions[usable[positions]]
        if barred:
            at = at[~np.isin(keys[at], np.fromiter(barred, np.int64, len(barred)))]
        exact = (self._rows(at).astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        order = np.lexsort((keys[at], -exact))
        at, exact = at[order], exact[order]
        if distinct:
            first = first_of_each(groups[at])
            at, exact = at[first], exact[first]
        at, exact = at[:k], exact[:k]
        return Near(keys[at], groups[at], exact)

    def recall(self, queries: int = 200) -> float:
        """recall@10 of a search as it is now, against every vector looked at.

        Vectors that are here ask, evenly spread; what is gone does not count.
        """
        self.measured = self.changed
        _, _, alive = self._all()
        at = np.flatnonzero(alive)
        if self.base.coarse is None or not len(at):
            return 1.0
        asked = self._rows(at[np.unique(np.linspace(0, len(at) - 1, queries).astype(int))])
        best = np.full((len(asked), 0), 0, np.float32)
        for start in range(0, len(at), _GATHER):
            similar, _ = knn(asked, self._rows(at[start : start + _GATHER]), NEIGHBOURS + 1)
            best = np.sort(np.concatenate([best, similar], axis=1))[:, -NEIGHBOURS - 1 :]
        near = self.nearest(asked, NEIGHBOURS + 1)
        return share_found(best[:, ::-1], [one.similarities for one in near])


def first_of_each(groups: Ints) -> Ints:
    """Positions of the first of each object, in order; those of no object stand alone."""
    own = np.where(groups == 0, -1 - np.arange(len(groups)), groups)
    _, first = np.unique(own, return_index=True)
    return np.sort(first)
