"""The reading half of the Qdrant engine."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from resight.errors import UserError
from resight.search.engines.contract import (
    Blob,
    Changes,
    LeftOut,
    Place,
    Root,
    Row,
    Sum,
    Vectors,
)
from resight.search.engines.qdrant_applying import META
from resight.search.engines.qdrant_link import Link, key, where
from resight.search.engines.records import box_text, own, parse_box, place_text

_DIRECT = ("object", "object_id", "path", "camera", "split", "bytes", "width", "height")
_Stack = tuple[NDArray[np.int64], NDArray[np.int64], Vectors]


class QdrantReader:
    """What an `Engine` reads: see the contract."""

    def __init__(self, link: Link, base: str):
        self._link, self._base = link, base
        self._there: set[int] = set()  # generations that have a collection

    def _state(self) -> dict[str, Any]:
        points = self._link.get(self._link.book, [META])
        if not points:
            raise UserError(f"{self._link.name}: its settings are gone; restore it from a snapshot")
        return deepcopy(dict(points[0].payload))

    def _images(self) -> str | None:
        """The collection of images; None where no vector has come yet."""
        if not self._there:
            state = self._state()
            if str(state["generation"]) not in state["dims"]:
                return None
            self._there.add(int(state["generation"]))
        return self._base

    def _count(self, collection: str, some: models.Filter | None = None) -> int:
        with self._link.using() as client:
            return int(client.count(collection, count_filter=some, exact=True).count)

    def _points(self, some: Any = None, **how: Any) -> Iterator[Any]:
        """Images that pass a filter, by id."""
        if (images := self._images()) is not None:
            for page in self._link.pages(images, some, **how):
                yield from page

    def _book(self, **fields: Any) -> Iterator[dict[str, Any]]:
        for page in self._link.pages(self._link.book, where(**fields)):
            for point in page:
                yield point.payload

    def meta(self) -> dict[str, Any]:
        """See the contract."""
        state = self._state()
        found: dict[str, Any] = own(json.loads(state["values"]))
        names = ("format", "version", "generation", "known_since")
        return found | {name: state[name] for name in names}

    def version(self) -> int:
        """See the contract."""
        return int(self._state()["version"])

    def generation(self) -> int:
        """The number of the embedder whose vectors are in use."""
        return int(self._state()["generation"])

    def changes(self, since: int) -> Changes | None:
        """See the contract."""
        state = self._state()
        if since < state["known_since"]:
            return None
        images = {int(p.id) for p in self._points(where(changed__gt=since), with_payload=False)}
        sums = self._book(kind="sum", generation=state["generation"], changed__gt=since)
        objects = {one["object"] for one in sums}
        for one in self._book(kind="removed", version__gt=since):
            images |= {one["image"]} - {None}
            objects |= {one["object"]} - {None}
        return Changes(int(state["version"]), sorted(images), sorted(objects))

    def counts(self) -> tuple[int, int]:
        """See the contract."""
        images = self._images()
        objects = self._count(self._link.book, where(kind="object"))
        return self._count(images) if images is not None else 0, objects

    def ids(self, after: int = 0, limit: int | None = None) -> list[int]:
        """See the contract."""
        found: list[int] = []
        if limit == 0:
            return found
        page = 8192 if limit is None else min(8192, limit)
        for point in self._points(start=after + 1, page=page, with_payload=False):
            found.append(int(point.id))
            if len(found) == limit:
                break
        return found

    def rows(self, ids: Sequence[int], *, thumbnails: bool = False) -> list[Row]:
        """See the contract."""
        if (images := self._images()) is None:
            return []
        wanted = list(dict.fromkeys(ids))
        found = {int(p.id): p.payload for p in self._link.get(images, wanted, with_payload=True)}
        small = self._thumbnails(wanted) if thumbnails else {}
        return [row_of(id_, found[id_], small.get(id_)) for id_ in ids if id_ in found]

    def _thumbnails(self, ids: Sequence[int]) -> dict[int, Blob]:
        points = self._link.get(self._link.book, [key("thumbnail", id_) for id_ in ids])
        return {p.payload["image"]: base64.b64decode(p.payload["jpeg"]) for p in points}

    def vectors(self, ids: Sequence[int]) -> _Stack:
        """See the contract."""
        if (images := self._images()) is None:
            return _stacked([])
        how = {"with_payload": ["object_id"], "with_vectors": ["raw"]}
        return _stacked(self._link.get(images, sorted(set(ids)), **how))

    def every_vector(self, block: int = 8192) -> Iterator[_Stack]:
        """See the contract."""
        if (images := self._images()) is None:
            return
        how = {"with_payload": ["object_id"], "with_vectors": ["raw"]}
        left: list[Any] = []
        for page in self._link.pages(images, page=min(block, 1024), **how):
            left += [point for point in page if "raw" in (point.vector or {})]
            while len(left) >= block:
                yield _stacked(left[:block])
                left = left[block:]
        if left:
            yield _stacked(left)

    def sums(self, objects: Collection[str] | None = None) -> list[Sum]:
        """See the contract."""
        if objects is None:
            return self._sums()
        wanted = [key("object", name) for name in dict.fromkeys(objects)]
        points = self._link.get(self._link.book, wanted, with_payload=["id"])
        return self.sums_by_id([point.payload["id"] for point in points])

    def sums_by_id(self, objects: Sequence[int]) -> list[Sum]:
        """See the contract."""
        wanted = sorted(set(objects))
        parts = (wanted[start : start + 512] for start in range(0, len(wanted), 512))
        return [one for part in parts for one in self._sums(object=part)]

    def _sums(self, **fields: Any) -> list[Sum]:
        found = [
            Sum(
                *(one["name"], one["camera"], one["count"]),
                np.frombuffer(base64.b64decode(one["total"]), np.float64),
                *(float.fromhex(one["squares"]), one["object"]),
            )
            for one in self._book(kind="sum", generation=self.generation(), **fields)
        ]
        return sorted(found, key=lambda one: (one.object_id, one.camera))

    def object_names(self, ids: Collection[int]) -> dict[int, str]:
        """See the contract."""
        wanted = sorted(set(ids))
        parts = (wanted[start : start + 512] for start in range(0, len(wanted), 512))
        found = (one for part in parts for one in self._book(kind="object", id=part))
        return {one["id"]: one["name"] for one in found}

    def objects(self, like: str = "", offset: int = 0, limit: int = 100) -> list[tuple[str, int]]:
        """See the contract. Reads the names of all objects."""
        found = [
            (one["name"], one["images"])
            for one in self._book(kind="object")
            if one["images"] > 0 and _folded(like) in _folded(one["name"])
        ]
        return sorted(found)[offset : offset + limit]

    def images_of(self, object: str) -> list[int]:
        """See the contract."""
        return [int(p.id) for p in self._points(where(object=object), with_payload=False)]

    def first_images(self, objects: Collection[int]) -> dict[int, int]:
        """See the contract."""
        of = {id_: self.images_of(name) for id_, name in self.object_names(objects).items()}
        return {id_: min(images) for id_, images in of.items() if images}

    def covers(self, objects: Collection[str]) -> dict[str, int]:
        """See the contract."""
        found: dict[str, int] = {}
        names = list(objects)
        for start in range(0, len(names), 256):
            some = where(object=names[start : start + 256])
            for point in self._points(some, with_payload=["object"]):  # ids rise
                found.setdefault(point.payload["object"], int(point.id))
        return found

    def images_at(self, root: int, path: str) -> list[int]:
        """See the contract."""
        some = self._points(where(root=root, path=path), with_payload=False)
        return [int(point.id) for point in some]

    def known(self, places: Sequence[Place]) -> dict[Place, Row]:
        """See the contract."""
        by_text = {place_text(place): place for place in places}
        return {
            by_text[point.payload["place"]]: row_of(int(point.id), point.payload)
            for point in self._any("place", list(by_text))
        }

    def _any(self, field: str, values: list[Any]) -> Iterator[Any]:
        for start in range(0, len(values), 256):
            yield from self._points(where(**{field: values[start : start + 256]}))

    def by_content(self, contents: Sequence[str]) -> list[Row]:
        """See the contract."""
        points = self._any("content", list(dict.fromkeys(contents)))
        return sorted((row_of(int(p.id), p.payload) for p in points), key=lambda row: row.id)

    def sizes(self, among: Collection[int]) -> set[int]:
        """See the contract."""
        return {point.payload["bytes"] for point in self._any("bytes", list(among))}

    def left_out(self, places: Sequence[Place]) -> dict[Place, LeftOut]:
        """See the contract."""
        wanted = [key("left out", place_text(place)) for place in dict.fromkeys(places)]
        points = self._link.get(self._link.book, wanted)
        return {one.place: one for one in (_left_out(point.payload) for point in points)}

    def every_left_out(self) -> Iterator[LeftOut]:
        """See the contract. Reads them all."""
        found = [_left_out(one) for one in self._book(kind="left out")]
        found.sort(key=lambda one: (one.place.root, one.place.path, box_text(one.place.box)))
        yield from found

    def roots(self) -> list[Root]:
        """See the contract."""
        return [Root(*one) for one in self._state()["roots"]]

    def table(self, columns: Collection[str]) -> dict[str, list[Any]]:
        """See the contract."""
        direct = [name for name in columns if name in _DIRECT]
        others = [name for name in columns if name not in _DIRECT and name != "id"]
        wanted: Any = direct + (["exact"] if others else []) or False
        found: dict[str, list[Any]] = {name: [] for name in ("id", *direct)}
        parsed: list[dict[str, Any]] = []
        for point in self._points(with_payload=wanted):
            found["id"].append(int(point.id))
            for name in direct:
                found[name].append(point.payload[name])
            if others:
                parsed.append(own(json.loads(point.payload["exact"])))
        for name in others:
            if any(name in one for one in parsed):
                found[name] = [one.get(name) for one in parsed]
        return found

    def thumbnail(self, id: int) -> Blob | None:
        """See the contract."""
        return self._thumbnails([id]).get(id)


def row_of(id_: int, payload: dict[str, Any], thumbnail: Blob | None = None) -> Row:
    """A row from a point's payload."""
    one = payload
    place = None
    if one["path"] is not None:
        place = Place(one["root"], one["path"], parse_box(one["box"]))
    labels = {name: one[name] for name in ("object", "given", "camera", "split")}
    file = {name: one[name] for name in ("content", "bytes", "mtime", "width", "height")}
    columns = own(json.loads(one["exact"]))
    kept = {"columns": columns, "object_id": one["object_id"], "thumbnail": thumbnail}
    return Row(id=id_, place=place, **labels, **file, **kept)


def _stacked(points: Sequence[Any]) -> _Stack:
    found = sorted(
        (int(p.id), p.payload["object_id"], p.vector["raw"])
        for p in points
        if "raw" in (p.vector or {})
    )
    ids = np.array([row[0] for row in found], np.int64)
    objects = np.array([row[1] for row in found], np.int64)
    if not found:
        return ids, objects, np.empty((0, 0), np.float32)
    return ids, objects, np.array([row[2] for row in found], np.float32)


def _left_out(one: dict[str, Any]) -> LeftOut:
    place = Place(one["root"], one["path"], parse_box(one["box"]))
    return LeftOut(place, one["bytes"], one["mtime"], one["content"], one["reason"], one["of"])


def _folded(name: str) -> str:
    """A to Z as a to z, all else as it is."""
    return "".join(c.lower() if c.isascii() else c for c in name)
