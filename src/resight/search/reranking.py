"""A second look on the live gallery: what chains need of it, kept, and what they answer.

index/near-LEVEL.npz             the neighbours of every vector; brought up to date by what changed
index/second-LEVEL-CHAIN.npz     what is made of them: rows of the diffusion, reciprocal sets

Derived, so it can be lost at any time; each file says which vectors it is of. Neighbours of an
earlier state are corrected, exactly, for what came and went; what is made of them is made anew
when anything has changed; but for the diffusion, which stays up to a twentieth of changes: what
came since stands beside its graph (`outside.attached`). A service has large ones made by another
process (`made_ready`), which leaves them in these files.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.files import atomic_path
from resight.graph.diffusion import Diffused
from resight.graph.expand import expand
from resight.graph.neighbours import Ids, Method, Similarities
from resight.graph.outside import attached
from resight.graph.reciprocal import Encoded
from resight.graph.rerank import Chain, Diffusion, KReciprocal
from resight.graph.second import Prepared, prepare
from resight.graph.sparse import Sparse
from resight.graph.unit import best_of, products, unit_rows
from resight.graph.updating import marks, updated
from resight.search.elsewhere import Elsewhere, NotReady
from resight.search.index import FLAT_BELOW
from resight.search.view import Bools, Ints, Near, View, first_of_each

_FOLDER = "index"  # that of the index, see `cache`
_LEAST = 2000  # vectors from which on it is worth a file
_KEPT = 4  # in memory
ATTACHED = 0.05  # share of changes that a diffusion bears before it is made anew
_SPARE = 32  # neighbours kept at least, so that other parameters need no new search


@dataclass(frozen=True)
class Ready:
    """A chain made ready over what a view holds: keys (N,) rising, groups, and the rest."""

    keys: Ints
    groups: Ints
    prepared: Prepared


class Seconds:
    """What has been made ready, by level and chain, at the version of its view."""

    def __init__(
        self, folder: Path | None, tell: Callable[[str], None], elsewhere: Elsewhere | None = None
    ) -> None:
        self._folder, self._tell, self._elsewhere = folder, tell, elsewhere
        self._read_at: dict[Path, int] = {}  # the file's time
        self._kept: dict[tuple[str, str], tuple[int, Ready]] = {}
        self._near: dict[str, dict[str, NDArray[Any]]] = {}
        self._built: dict[tuple[str, str], dict[str, NDArray[Any]]] = {}

    def get(
        self, name: str, view: View, chain: Chain, of: dict[str, Any], whole: bool = False
    ) -> Ready:
        """Ready for this view. `name`: of the view, a level, with its cameras if any; `of`: the
        gallery's uuid and generation; `whole`: made anew after any change. Raises NotReady."""
        key = name, chain.derived
        version, ready = self._kept.get(key, (-1, None))
        if ready is None or version != view.version:
            ready = self._made(name, view, chain, of, whole)
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = view.version, ready
        if ready.prepared.chain != chain:  # the same, but for what is not derived
            old = ready.prepared
            prepared = Prepared(chain, old.vectors, old.encoded, old.inverted, old.diffused)
            return Ready(ready.keys, ready.groups, prepared)
        return ready

    def _made(self, name: str, view: View, chain: Chain, of: dict[str, Any], whole: bool) -> Ready:
        keys, groups, rows = view.everything()
        if chain.look is None or not len(keys):
            return Ready(keys, groups, prepare(rows, chain))
        unit = unit_rows(rows)
        state = {"keys": keys, "marks": marks(unit)}
        short = hashlib.sha256(chain.derived.encode()).hexdigest()[:12]
        away = self._elsewhere is not None and len(keys) > self._elsewhere.most
        least = 0 if whole or away else _LEAST
        place = self._path(f"second-{name}-{short}", len(keys) >= least)
        found, before, changes = self._earlier(name, chain, place, of, state)
        same = found is not None and not changes
        few = changes <= ATTACHED * (1 + away) * len(keys) and chain.dba is None and not whole
        here = found is not None and (same or (few and isinstance(chain.look, Diffusion)))
        if away and (not here or changes > ATTACHED * len(keys)):
            assert self._elsewhere is not None
            self._elsewhere.ask(name, chain)
            if not here:
                raise NotReady(f"re-ranking by {chain.derived} is being made ready")
        if here and isinstance(chain.look, Diffusion):
            assert found is not None
            self._built[name, chain.derived] = found
        if here and found is not None and not same:
            assert isinstance(chain.look, Diffusion)
            built = Diffused(found["neighbours"], found["values"])
            now = attached(built, before, *_of_new(unit, before, chain.look.n), chain.look.n)
            return Ready(keys, groups, Prepared(chain, unit, diffused=now))
        if found is None or not same:
            self._built.pop((name, chain.derived), None)
            self._tell(f"re-ranking: {chain.derived} over {len(keys):,} vectors is made ready")
            near = None if chain.dba is not None else self._neighbours(name, unit, state, chain, of)
            prepared = prepare(unit, chain, neighbours=near)
            made = state | _arrays(prepared)
            if isinstance(chain.look, Diffusion):
                self._built[name, chain.derived] = made
            _write(place, of, made, self._tell)
            return Ready(keys, groups, prepared)
        return Ready(keys, groups, _from_arrays(found, unit, chain))

    def _earlier(
        self, name: str, chain: Chain, place: Path | None, of: dict[str, Any],
        state: dict[str, Any],
    ) -> tuple[dict[str, NDArray[Any]] | None, Ints, int]:  # fmt: skip
        """What was made of the nearest earlier state, where its vectors stood, what changed since.

        Kept in memory, or on disk by us once, or by another process since.
        """
        best: dict[str, NDArray[Any]] | None = None
        before, least = np.full(len(state["keys"]), -1, np.int64), len(state["keys"])
        kept = self._built.get((name, chain.derived))
        for found in (kept, self._newer(place, of) if kept is not None else _read(place, of)):
            if found is not None:
                stood = _before(found, state)
                there = int((stood >= 0).sum())
                changes = len(stood) + len(found["keys"]) - 2 * there
                if best is None or changes < least:
                    best, before, least = found, stood, changes
        return best, before, least

    def _newer(self, place: Path | None, of: dict[str, Any]) -> dict[str, NDArray[Any]] | None:
        """What a file holds that was not read as it is now."""
        try:
            when = place.stat().st_mtime_ns if place is not None else None
        except OSError:
            return None
        if place is None or when is None or self._read_at.get(place) == when:
            return None
        self._read_at[place] = when
        return _read(place, of)

    def _neighbours(
        self, name: str, unit: NDArray[np.float32], state: dict[str, Any], chain: Chain,
        of: dict[str, Any],
    ) -> tuple[Ids, Similarities]:  # fmt: skip
        """Of each row the nearest, from those kept where there are some."""
        place = self._path(f"near-{name}", len(unit) >= _LEAST)
        look = chain.look
        assert look is not None
        wanted = max(look.k1, look.k2 - 1) if isinstance(look, KReciprocal) else look.k
        old = self._near.get(name) or _read(place, of)
        k = max(wanted, _SPARE)
        ids, near = np.empty((0, k), np.int32), np.empty((0, k), np.float32)
        before = np.full(len(unit), -1, np.int64)
        if old is not None and old["ids"].shape[1] >= wanted:
            ids, near = old["ids"], old["similarities"]
            k = ids.shape[1]
            before = _before(old, state)
        method: Method = "exact" if len(unit) < FLAT_BELOW else "approximate"
        ids, near = updated(unit, k, before, ids, near, method)
        self._near[name] = state | {"ids": ids, "similarities": near}
        _write(place, of, self._near[name], self._tell)
        return ids, near

    def _path(self, stem: str, worth_it: bool) -> Path | None:
        if self._folder is None or not worth_it or "@" in stem:
            return None
        return self._folder / _FOLDER / f"{stem}.npz"


def _before(old: dict[str, NDArray[Any]], state: dict[str, NDArray[Any]]) -> Ints:
    """Where each vector of a state stood in an old one, -1 where it did not."""
    if not len(old["keys"]):
        return np.full(len(state["keys"]), -1, np.int64)
    at = np.minimum(np.searchsorted(old["keys"], state["keys"]), len(old["keys"]) - 1)
    same = (old["keys"][at] == state["keys"]) & (old["marks"][at] == state["marks"])
    return np.asarray(np.where(same, at, -1), np.int64)


def _of_new(unit: NDArray[np.float32], before: Ints, n: int) -> tuple[Ids, NDArray[np.float64]]:
    """The n nearest others of rows that came since, (N, n); of the rest none are looked for."""
    ids, values = np.full((len(unit), n), -1, np.int32), np.full((len(unit), n), -2.0)
    new = np.flatnonzero(before < 0)
    for start in range(0, len(new), 256):
        rows = new[start : start + 256]
        ids[rows], values[rows] = best_of(products(unit[rows], unit), n, rows)
    return ids, values


def looked(
    ready: Ready,
    view: View,
    queries: NDArray[np.float32],
    k: int,
    *,
    distinct: bool,
    keep: Bools | None,
    without: Sequence[frozenset[int]] | None,
) -> tuple[list[Near], list[NDArray[np.float64]]]:
    """The k best of each query (Q, D) by a chain, and their scores; options as in `View.nearest`.

    `similarities` stay the cosines of the query itself. Exact as far as the view's own search is:
    whoever gets nothing from the look is among the nearest.
    """
    chain, vectors = ready.prepared.chain, ready.prepared.vectors
    plain = asked = unit_rows(queries)
    if chain.aqe is not None:
        ids, values = _places(ready, view, asked, chain.aqe.n, without)
        asked = expand(asked, vectors, ids, values, chain.aqe.alpha)
    first = _first(ready, view, asked, k, distinct, keep, without)
    weight, added = 1.0, Sparse(np.zeros(len(asked) + 1, np.int64), _NONE, np.zeros(0, np.float32))
    if ready.prepared.near:
        ids, values = _places(ready, view, asked, ready.prepared.near, without)
        weight, added = ready.prepared.looked(ids, values, lambda r, c: _dots(asked[r], vectors[c]))
    allowed = None if keep is None else view.kept(ready.keys, keep)
    found, scores = [], []
    for row, query in enumerate(asked):
        at, more = added.row(row)
        both = np.unique(np.concatenate([first[row], at.astype(np.int64)]))
        value = np.zeros(len(both))
        value[np.searchsorted(both, at)] = more
        value += weight * (vectors[both].astype(np.float64) @ query.astype(np.float64))
        good = np.ones(len(both), bool) if allowed is None else allowed[both]
        if without is not None and without[row]:
            barred = np.fromiter(without[row], np.int64, len(without[row]))
            good &= ~np.isin(ready.keys[both], barred)
        both, value = both[good], value[good]
        order = np.lexsort((ready.keys[both], -value))
        if distinct and len(order):
            order = order[first_of_each(ready.groups[both[order]][None])[0]]
        order = order[:k]
        both = both[order]
        cosines = vectors[both].astype(np.float64) @ plain[row].astype(np.float64)
        if chain.dba is not None:  # shown are the cosines of the vectors as they are
            cosines = view.cosines(ready.keys[both], plain[row])
        found.append(Near(ready.keys[both], ready.groups[both], cosines))
        scores.append(value[order])
    return found, scores


_NONE = np.zeros(0, np.int32)


def _first(
    ready: Ready, view: View, asked: NDArray[np.float32], k: int, distinct: bool,
    keep: Bools | None, without: Sequence[frozenset[int]] | None,
) -> list[Ints]:  # fmt: skip
    """Places of the k nearest: all that can be among the best without the look."""
    if ready.prepared.chain.dba is None:
        near = view.nearest(asked, k, distinct=distinct, keep=keep, without=without)
        return [np.searchsorted(ready.keys, one.keys) for one in near]
    return [np.arange(len(ready.keys)) for _ in asked]  # other vectors than the view's: all


def _places(
    ready: Ready, view: View, asked: NDArray[np.float32], n: int,
    without: Sequence[frozenset[int]] | None,
) -> tuple[Ids, NDArray[np.float64]]:  # fmt: skip
    """Places (Q, n) of the nearest among all, -1 for none, and cosines."""
    ids, values = np.full((len(asked), n), -1, np.int32), np.full((len(asked), n), -2.0)
    if ready.prepared.chain.dba is not None:
        return best_of(products(asked, ready.prepared.vectors), n)
    for row, near in enumerate(view.nearest(asked, n, without=without)):
        ids[row, : len(near.keys)] = np.searchsorted(ready.keys, near.keys)
        values[row, : len(near.keys)] = near.similarities
    return ids, values


def _dots(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray((left.astype(np.float64) * right.astype(np.float64)).sum(axis=1))


def _arrays(prepared: Prepared) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    if prepared.diffused is not None:
        f = prepared.diffused
        found = {"neighbours": np.asarray(f.neighbours), "values": np.asarray(f.values)}
    if prepared.encoded is not None:
        e = prepared.encoded
        found = {"ids": e.ids, "similarities": e.similarities, "mutual": e.mutual}
        for name, rows in (("own", e.own), ("mean", e.mean)):
            found |= {f"{name}_{part}": getattr(rows, part) for part in _PARTS}
    if prepared.chain.dba is not None:
        found["vectors"] = prepared.vectors
    return found


_PARTS = ("indptr", "indices", "values")


def _from_arrays(
    found: dict[str, NDArray[Any]], unit: NDArray[np.float32], chain: Chain
) -> Prepared:
    unit = found.get("vectors", unit)
    if not isinstance(chain.look, KReciprocal):
        return Prepared(chain, unit, diffused=Diffused(found["neighbours"], found["values"]))
    own, mean = (Sparse(*(found[f"{n}_{part}"] for part in _PARTS)) for n in ("own", "mean"))
    encoded = Encoded(
        found["ids"], found["similarities"], found["mutual"], own, mean, chain.look.k2
    )
    return Prepared(chain, unit, encoded, encoded.inverted())


def _read(place: Path | None, of: dict[str, Any]) -> dict[str, NDArray[Any]] | None:
    """What a file holds; None where there is none of this gallery that is whole."""
    if place is None:
        return None
    try:
        with np.load(place, allow_pickle=False) as kept:
            found = {name: kept[name] for name in kept.files}
        return found if str(found.pop("of")) == str(sorted(of.items())) else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # derived: it is made again


def _write(
    place: Path | None, of: dict[str, Any], arrays: dict[str, NDArray[Any]],
    tell: Callable[[str], None],
) -> None:  # fmt: skip
    if place is None:
        return
    try:
        with atomic_path(place) as temporary, open(temporary, "wb") as file:
            named: dict[str, Any] = {"of": np.array(str(sorted(of.items())))} | arrays
            np.savez(file, **named)
    except OSError as error:
        tell(f"what re-ranking needs was not kept ({error}); it is made again next time")
