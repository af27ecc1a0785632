"""The views of a gallery: one of its images, one of its objects, each kept up to date."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.graph.rerank import Chain
from resight.search import cache
from resight.search.elsewhere import Elsewhere
from resight.search.engines.contract import Engine, Sum
from resight.search.index import RECALL_FLOOR, Index, Kind, build, new_flat, rows_of, unit
from resight.search.view import Ints, View

if TYPE_CHECKING:
    from resight.search.reranking import Ready, Seconds

# Changes that stand beside an index before it is built anew, as a share of it and at least.
SHARE, LEAST = 0.1, 2000
# Recall is measured again after this part of them; what a measurement may be off by.
WORN, _NOISE = 0.25, 0.01
_Parts = tuple[Ints, Ints, NDArray[Any]]


class Views:
    """Views by level, brought up to date before each use.

    At image level keys are image ids and groups object ids. At object level a key is an object's
    id, or, for an image of no known object, which stands alone, minus its id; groups are the same
    objects, 0 for none.
    """

    def __init__(self, engine: Engine, folder: Path | None, tell: Callable[[str], None]):
        self._engine, self._folder, self._tell = engine, folder, tell
        self._views: dict[str, View] = {}
        self._without: dict[frozenset[str], View] = {}
        self._seconds: Seconds | None = None
        self.elsewhere: Elsewhere | None = None  # who makes second looks ready; None: we
        self._generation = 0
        self.lock = threading.RLock()

    def get(self, level: str, without_cameras: Collection[str] = ()) -> View:
        """The view of a level ("image" or "object") as the gallery is now.

        `without_cameras`: objects as the other cameras saw them (object level). Hold `lock` for
        as long as the view is used: another thread's `get` changes it.
        """
        with self.lock:
            generation = self._engine.meta()["generation"]
            try:
                return self._get(level, frozenset(without_cameras))
            except UserError:
                if self._engine.meta()["generation"] == generation:
                    raise
            return self._get(level, frozenset(without_cameras))  # it was switched in between

    def _get(self, level: str, without_cameras: frozenset[str]) -> View:
        meta = self._engine.meta()
        if meta["generation"] != self._generation:
            self._views.clear()
            self._without.clear()
            self._seconds = None
            self._generation = meta["generation"]
        if without_cameras and level == "object":
            return self._seen_otherwise(without_cameras, int(meta["version"]))
        view = self._views.get(level)
        if view is None and self._folder is not None:
            view = cache.load(self._folder, level, self._of(meta))
        if view is None or not self._catch_up(level, view):
            view = self.whole(level, keep=True)
        elif view.changed > max(LEAST, SHARE * len(view.base)) or self._worn(view, meta):
            view = self._anew(level, view, meta)
        self._views[level] = view
        return view

    def ready(
        self,
        level: str,
        without_cameras: Collection[str],
        view: View,
        chain: Chain,
        *,
        whole: bool = False,
    ) -> Ready:
        """What a chain needs of a view that `get` gave; hold `lock` as there.

        `whole`: made of all that there is, nothing put beside what was made earlier. Raises
        NotReady where that is made by someone else, who has not yet.
        """
        from resight.search.reranking import Seconds  # its loops are compiled: not for all

        if self._seconds is None:
            self._seconds = Seconds(self._folder, self._tell, self.elsewhere)
        seen = without_cameras if level == "object" else ()
        name = level + "".join(f"@{camera}" for camera in sorted(seen))
        of = self._of(self._engine.meta())
        return self._seconds.get(name, view, chain, of, whole)

    def _worn(self, view: View, meta: dict[str, Any]) -> bool:
        """Whether recall has fallen below its floor, measured again after every few changes."""
        if view.base.coarse is None or view.changed - view.measured < max(
            LEAST * WORN, SHARE * WORN * len(view.base)
        ):
            return False
        built = float(view.base.info["recall@10"])
        recall = view.recall()
        floor = min(float(meta.get("recall_floor", RECALL_FLOOR)), built) - _NOISE
        if recall < floor:
            self._tell(f"recall@10 has fallen to {recall:.3f}; the index is built anew")
        return recall < floor

    def forget(self) -> None:
        """Make everything anew when it is next asked for."""
        self._views.clear()
        self._without.clear()
        self._seconds = None
        if self._folder is not None:
            cache.drop(self._folder)

    def _of(self, meta: dict[str, Any]) -> dict[str, Any]:
        return {"gallery": meta.get("uuid"), "generation": meta["generation"]}

    def _catch_up(self, level: str, view: View) -> bool:
        """Bring a view to the engine's version; False where that is not known any more."""
        if view.version == self._engine.version():
            return True
        if view.version > self._engine.version():  # of a database that is no more
            return False
        changes = self._engine.changes(view.version)
        if changes is None or len(changes.images) > max(10 * LEAST, 0.5 * len(view.base)):
            return False
        ids, groups, vectors = self._engine.vectors(changes.images)
        if level == "image":
            view.strike(changes.images)
            view.append(ids, groups, vectors)
        else:
            view.strike([*changes.objects, *(-id_ for id_ in changes.images)])
            alone = groups == 0
            view.append(*_alone(ids[alone], vectors[alone]))
            view.append(*_centroids(self._engine.sums_by_id(changes.objects)))
        view.version = changes.version
        return True

    def whole(self, level: str, *, keep: bool = False) -> View:
        """A view made from everything that the engine keeps, whatever there was."""
        meta = self._engine.meta()
        return self._built(level, self._read(level), meta, int(meta["version"]), keep=keep)

    def _read(self, level: str) -> Iterator[_Parts]:
        """Everything of a level that the engine keeps."""
        if level == "object":
            yield _units(_centroids(self._engine.sums()))
        for ids, groups, vectors in self._engine.every_vector():
            alone = groups == 0
            if level == "image":
                yield _units((ids, groups, vectors))
            elif alone.any():
                yield _units(_alone(ids[alone], vectors[alone]))

    def _anew(self, level: str, view: View, meta: dict[str, Any]) -> View:
        """The same vectors, with an index over all of them."""
        return self._built(level, [view.everything()], meta, view.version, keep=True)

    def _built(
        self,
        level: str,
        parts: Iterable[_Parts],
        meta: dict[str, Any],
        version: int,
        *,
        keep: bool,
    ) -> View:
        """A view over unit vectors. `keep`: with the gallery's kind of index, also on disk."""
        flat, keys, groups = _flat(int(meta.get("dim", 0)), parts)
        kind: Kind = meta.get("index", "auto") if keep else "flat"
        floor = float(meta.get("recall_floor", RECALL_FLOOR))
        index = build(flat, keys, groups, kind, floor=floor, tell=self._tell)
        view = View(index, version)
        if keep and self._folder is not None and len(index) >= LEAST:
            view = cache.store(self._folder, level, self._of(meta), view, self._tell)
        return view

    def _seen_otherwise(self, cameras: frozenset[str], version: int) -> View:
        """Objects without the images of some cameras; kept while nothing changes."""
        view = self._without.get(cameras)
        if view is None or view.version != version:
            kept = [one for one in self._engine.sums() if one.camera not in cameras]
            parts = [_units(_centroids(kept))]
            named = self._engine.table(["camera", "object_id"])
            pairs = zip(named["id"], named["camera"], strict=True)
            barred = [id_ for id_, camera in pairs if camera in cameras]
            for ids, groups, vectors in self._engine.every_vector():
                free = (groups == 0) & ~np.isin(ids, barred)
                parts.append(_units(_alone(ids[free], vectors[free])))
            flat, keys, groups = _flat(int(self._engine.meta().get("dim", 0)), parts)
            view = View(Index(flat, keys, groups, None, {"kind": "flat"}), version)
            if len(self._without) > 8:
                self._without.clear()
            self._without[cameras] = view
        return view


def _flat(dim: int, parts: Iterable[_Parts]) -> tuple[Any, Ints, Ints]:
    """A flat index of unit vectors, by keys rising; those and groups."""
    flat, none = new_flat(dim), np.zeros(0, np.int64)
    all_keys, all_groups = [none], [none]
    for keys, groups, rows in parts:
        if len(keys):
            flat.add(rows)
            all_keys.append(keys)
            all_groups.append(groups)
    keys, groups = np.concatenate(all_keys), np.concatenate(all_groups)
    order = np.argsort(keys, kind="stable")
    if (order != np.arange(len(order))).any():
        flat = new_flat(dim, rows_of(flat)[order])
    return flat, keys[order], groups[order]


def _units(part: _Parts) -> _Parts:
    return part[0], part[1], unit(part[2])


def _centroids(sums: Iterable[Sum]) -> _Parts:
    """Object ids rising, the same as groups, and totals (n, D) over the cameras given."""
    keys: list[int] = []
    totals: list[NDArray[np.float64]] = []
    for one in sums:  # by object id
        if keys and keys[-1] == one.object_id:
            totals[-1] = totals[-1] + one.total
        else:
            keys.append(one.object_id)
            totals.append(one.total)
    found = np.array(keys, np.int64)
    return found, found, np.array(totals) if totals else np.empty((0, 0))


def _alone(ids: Ints, vectors: NDArray[Any]) -> _Parts:
    """Images of no known object, as items of the object level; keys rising."""
    return -ids[::-1], np.zeros(len(ids), np.int64), vectors[::-1]
