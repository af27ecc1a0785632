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
_CELLS = 2**20


@dataclass(frozen=True)
class _Candidates:
    """Runs of (similarities, positions), each (Q, n) best first; `whole`: nothing is missing."""

    parts: list[Found]
    whole: bool
    coarse: bool = False

    def joined(self, queries: int) -> tuple[Ints, NDArray[np.float64]]:
        """Positions (Q, n), -1 for none, and the similarities (Q,) that all others stay below."""
        at = np.concatenate([np.zeros((queries, 0), np.int64), *(p[1] for p in self.parts)], 1)
        ends = [part[0][:, -1:] for part in self.parts if part[0].shape[1]]
        return at, np.concatenate([np.full((queries, 1), -2.0), *ends], 1).max(axis=1)


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
        self._per_object: int | None = None
        self.masks: dict[Any, tuple[int, Bools]] = {}  # of filters: the version, and what passed
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

    def kept(self, keys: Ints, mask: Bools) -> Bools:
        """What a mask over `nearest`'s positions says of keys (n,) that are alive."""
        order = self._order()
        return mask[order[np.searchsorted(self._all()[0][order], keys)]]

    def cosines(self, keys: Ints, query: NDArray[np.float32]) -> NDArray[np.float64]:
        """The cosines of a unit query (D,) and the vectors of keys that are alive."""
        order = self._order()
        rows = self._rows(order[np.searchsorted(self._all()[0][order], keys)])
        return np.asarray((rows.astype(np.float64) * query.astype(np.float64)).sum(axis=1))

    def _order(self) -> Ints:
        """Positions of all that is alive, by key."""
        keys, _, alive = self._all()
        at = np.flatnonzero(alive)
        return at[np.argsort(keys[at], kind="stable")]

    def _rows(self, at: Ints) -> NDArray[np.float32]:
        """Unit vectors by position."""
        base = len(self.base)
        if not self._tail_keys:
            early_rows: NDArray[np.float32] = self.base.rows[at]
            return early_rows
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
        found: dict[int, Near] = {}
        todo, fetch = np.arange(len(asked)), k + 8
        if distinct:
            fetch += 2 * self._crowd()
        while len(todo):
            candidates = self._candidates(asked[todo], fetch, usable, total)
            positions, horizon = candidates.joined(len(todo))
            barred = [without[query] for query in todo.tolist()] if without is not None else None
            near = self._settle(asked[todo], positions, usable, barred, k, distinct)
            found |= dict(zip(todo.tolist(), near, strict=True))
            if candidates.whole:
                break
            full = np.array([len(one.keys) == k for one in near])
            if not candidates.coarse:
                last = [one.similarities[-1] if len(one.keys) else -2.0 for one in near]
                full &= np.array(last) > horizon + MARGIN
            todo, fetch = todo[~full], min(count, fetch * 4)
        return [found[query] for query in range(len(asked))]

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
        asked: NDArray[np.float32],
        positions: Ints,
        usable: Bools,
        barred: Sequence[frozenset[int]] | None,
        k: int,
        distinct: bool,
    ) -> list[Near]:
        """The k best of the candidates (Q, n), compared again."""
        all_keys, all_groups, _ = self._all()
        count, width = positions.shape
        good = positions >= 0
        at = np.where(good, positions, 0)
        good &= usable[at]
        keys = all_keys[at]
        for row, out in enumerate(barred or ()):
            if out:
                good[row] &= ~np.isin(keys[row], np.fromiter(out, np.int64, len(out)))
        exact = np.empty((count, width))
        step = max(1, _CELLS // max(1, width * self.dim))
        for start in range(0, count, step):
            part = slice(start, start + step)
            here = at[part]
            rows = self._rows(here.ravel()).reshape(*here.shape, self.dim).astype(np.float64)
            rows *= asked[part, None].astype(np.float64)
            exact[part] = rows.sum(axis=2)
        exact[~good] = -np.inf
        order = np.lexsort((keys, -exact), axis=-1)
        at, good = np.take_along_axis(at, order, 1), np.take_along_axis(good, order, 1)
        if distinct:
            good &= first_of_each(all_groups[at])
        good &= np.cumsum(good, axis=1) <= k
        exact = np.take_along_axis(exact, order, 1)[good]
        ends = np.cumsum(good.sum(axis=1))
        keys, groups = all_keys[at[good]], all_groups[at[good]]
        spans = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        return [Near(keys[one], groups[one], exact[one]) for one in spans]

    def _crowd(self) -> int:
        """How many images an object has, more or less."""
        if self._per_object is None:
            groups = self._all()[1]
            known = int((groups > 0).sum())
            self._per_object = known // max(1, len(np.unique(groups[groups > 0])))
        return self._per_object

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


def first_of_each(groups: Ints) -> Bools:
    """Which of each line (Q, n) are the first of their object; those of none stand alone."""
    own = np.where(groups == 0, -1 - np.arange(groups.shape[1]), groups)
    order = np.argsort(own, axis=1, kind="stable")
    sorted_ = np.take_along_axis(own, order, 1)
    first = np.ones(groups.shape, bool)
    np.put_along_axis(first, order[:, 1:], sorted_[:, 1:] != sorted_[:, :-1], 1)
    return first
