"""The views of a gallery: one of its images, one of its objects, each kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.search import cache
from resight.search.engines.contract import Engine, Sum
from resight.search.index import Index, Kind, build, new_flat, unit
from resight.search.view import Ints, View

# Changes that stand beside an index before it is built anew, as a share of it and at least.
SHARE, LEAST = 0.1, 2000
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
        self._generation = 0

    def get(self, level: str, without_cameras: Collection[str] = ()) -> View:
        """The view of a level ("image" or "object") as the gallery is now.

        `without_cameras`: objects as the other cameras saw them (object level).
        """
        meta = self._engine.meta()
        if meta["generation"] != self._generation:
            self._views.clear()
            self._without.clear()
            self._generation = meta["generation"]
        if without_cameras and level == "object":
            return self._seen_otherwise(frozenset(without_cameras), int(meta["version"]))
        view = self._views.get(level)
        if view is None:
            of = self._of(meta)
            view = cache.load(self._folder, level, of) if self._folder is not None else None
        if view is None or not self._catch_up(level, view):
            view = self.whole(level, keep=True)
        elif view.changed > max(LEAST, SHARE * len(view.base)):
            view = self._anew(level, view, meta)
        self._views[level] = view
        return view

    def forget(self) -> None:
        """Make everything anew when it is next asked for."""
        self._views.clear()
        self._without.clear()
        if self._folder is not None:
            cache.drop(self._folder)

    def _of(self, meta: dict[str, Any]) -> dict[str, Any]:
        return {"gallery": meta.get("uuid"), "generation": meta["generation"]}

    def _catch_up(self, level: str, view: View) -> bool:
        """Bring a view to the engine's version; False where that is not known any more."""
        if view.version == self._engine.version():
            return True
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
        parts: list[_Parts] = []
        if level == "object":
            parts += [_centroids(self._engine.sums())]
        for ids, groups, vectors in self._engine.every_vector():
            if level == "image":
                parts.append((ids, groups, vectors))
            elif (groups == 0).any():
                parts.append(_alone(ids[groups == 0], vectors[groups == 0]))
        return self._built(level, parts, meta, int(meta["version"]), keep=keep)

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
        dim = int(meta.get("dim", 0))
        kept = [part for part in parts if len(part[0])]
        keys = np.concatenate([part[0] for part in kept]) if kept else np.zeros(0, np.int64)
        groups = np.concatenate([part[1] for part in kept]) if kept else np.zeros(0, np.int64)
        flat = new_flat(dim)
        order = np.argsort(keys, kind="stable")
        if (order == np.arange(len(order))).all():
            for part in kept:
                flat.add(unit(part[2]))
        else:
            rows = np.concatenate([unit(part[2]) for part in kept])
            flat.add(np.ascontiguousarray(rows[order]))
        kind: Kind = meta.get("index", "auto") if keep else "flat"
        floor = float(meta.get("recall_floor", 0.99))
        index = build(flat, keys[order], groups[order], kind, floor=floor, tell=self._tell)
        view = View(index, version)
        if keep and self._folder is not None and len(index) >= LEAST:
            view = cache.store(self._folder, level, self._of(meta), view, self._tell)
        return view

    def _seen_otherwise(self, cameras: frozenset[str], version: int) -> View:
        """Objects without the images of some cameras; kept while nothing changes."""
        view = self._without.get(cameras)
        if view is None or view.version != version:
            kept = [one for one in self._engine.sums() if one.camera not in cameras]
            parts = [_centroids(kept)]
            named = self._engine.table(["camera", "object_id"])
            barred = {
                id_
                for id_, camera in zip(named["id"], named["camera"], strict=True)
                if camera in cameras
            }
            for ids, groups, vectors in self._engine.every_vector():
                free = (groups == 0) & ~np.isin(ids, list(barred))
                parts.append(_alone(ids[free], vectors[free]))
            keys = np.concatenate([part[0] for part in parts])
            order = np.argsort(keys, kind="stable")
            dim = int(self._engine.meta().get("dim", 0))
            rows = [unit(part[2]) for part in parts if len(part[0])]
            flat = new_flat(dim, np.concatenate(rows)[order] if rows else None)
            groups = np.concatenate([part[1] for part in parts])[order]
            view = View(Index(flat, keys[order], groups, None, {"kind": "flat"}), version)
            if len(self._without) > 8:
                self._without.clear()
            self._without[cameras] = view
        return view


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
