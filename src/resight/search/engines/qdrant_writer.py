"""The writing half of the Qdrant engine: what was asked for, gathered, and applied at the end."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from resight.errors import UserError
from resight.search.engines.contract import LeftOut, Place, Root, Row, Sum
from resight.search.engines.qdrant_link import Link, key, where
from resight.search.engines.records import box_text, place_text, plain, to_json


class QdrantWriter:
    """What `Engine.writing` yields: see the contract."""

    def __init__(self, link: Link, images: str, state: dict[str, Any]):
        self._link, self._images, self._state = link, images, state
        self._values: dict[str, Any] = json.loads(state["values"])
        self._version, self._generation = state["version"] + 1, int(state["generation"])
        self._begun = str(self._generation) in state["dims"]  # else no image is there yet
        self._payloads: dict[int, dict[str, Any] | None] = {}  # None: deleted
        self._vectors: dict[int, dict[int, str]] = {}  # generation -> image -> base64
        self._stored: dict[int, dict[str, Any]] = {}
        self._objects: dict[str, dict[str, Any]] = {}
        self._records: dict[str, dict[str, Any] | None] = {}  # of the book
        self._gone: set[str] = set()
        self._summed: dict[int, set[int]] = {}  # generation -> objects whose sums change

    # What is asked for ----------------------------------------------------------------------

    def put(self, rows: Sequence[Row]) -> list[int]:
        """See the contract."""
        self._know([row.object for row in rows if row.object is not None])
        self._fetch([row.id for row in rows if row.id])
        ids = []
        for row in rows:
            id_ = row.id or self._state["last"]["images"] + 1
            self._state["last"]["images"] = max(self._state["last"]["images"], id_)
            ids.append(id_)
            self._count(self._now(id_), -1)
            self._payloads[id_] = self._payload(row)
            self._count(self._payloads[id_], 1)
            if row.thumbnail is not None:
                jpeg = base64.b64encode(row.thumbnail).decode()
                record = {"kind": "thumbnail", "image": id_, "jpeg": jpeg}
                self._records[key("thumbnail", id_)] = record
        pairs = zip(ids, rows, strict=True)
        self.put_vectors({id_: row.vector for id_, row in pairs if row.vector is not None})
        return ids

    def put_vectors(self, vectors: dict[int, Any], generation: int | None = None) -> None:
        """Keep vectors by image id, of the generation in use or another."""
        if not vectors:
            return
        generation = self._generation if generation is None else generation
        dim = len(next(iter(vectors.values())))
        known = self._state["dims"].setdefault(str(generation), dim)
        for id_, vector in vectors.items():
            if len(vector) != known:
                raise UserError(
                    f"{self._link.name}: a vector of {len(vector)} dimensions can't be kept "
                    f"among vectors of {known}; nothing of this change was kept"
                )
            blob = np.asarray(vector, np.float32).tobytes()
            self._vectors.setdefault(generation, {})[id_] = base64.b64encode(blob).decode()

    def delete(self, ids: Sequence[int]) -> None:
        """See the contract."""
        self._fetch(list(ids))
        for id_ in ids:
            self._count(self._now(id_), -1)
            self._payloads[id_] = None
            self._records[key("thumbnail", id_)] = None
            self._remember_removed(image=id_)
            for vectors in self._vectors.values():
                vectors.pop(id_, None)

    def set_sums(self, sums: Sequence[Sum], generation: int | None = None) -> None:
        """See the contract."""
        generation = self._generation if generation is None else generation
        self._know([one.object for one in sums])
        for one in sums:
            object_ = self._objects[one.object]["id"]
            at = key("sum", generation, object_, one.camera)
            self._summed.setdefault(generation, set()).add(object_)
            if one.count > 0:
                total = np.asarray(one.total, np.float64).tobytes()
                self._records[at] = {
                    **{"kind": "sum", "generation": generation, "object": object_},
                    **{"name": one.object, "camera": one.camera, "count": one.count},
                    **{
                        "total": base64.b64encode(total).decode(),
                        "squares": float(one.squares).hex(),
                    },
                    "changed": self._version,
                }
                continue
            self._records[at] = None
            if generation == self._generation:
                self._gone.add(one.object)
                self._remember_removed(object=object_)

    def _remember_removed(self, **what: int) -> None:
        record = {"kind": "removed", "version": self._version, "image": None, "object": None}
        ((kind, id_),) = what.items()
        self._records[key("removed", self._version, kind, id_)] = record | what

    def leave_out(self, entries: Sequence[LeftOut]) -> None:
        """See the contract."""
        for one in entries:
            root, path, box = one.place
            self._records[key("left out", place_text(one.place))] = {
                **{"kind": "left out", "root": root, "path": path, "box": box_text(box)},
                **{"bytes": one.bytes, "mtime": one.mtime, "content": one.content},
                **{"reason": one.reason, "of": one.of},
            }

    def take_back(self, places: Sequence[Place]) -> None:
        """See the contract."""
        self._records.update({key("left out", place_text(place)): None for place in places})

    def add_root(self, name: str, path: str) -> Root:
        """See the contract."""
        if name in [root[1] for root in self._state["roots"]]:
            raise UserError(f"{self._link.name}: two roots of one name ({name})")
        id_ = self._state["last"]["roots"] = self._state["last"]["roots"] + 1
        self._state["roots"].append([id_, name, path])
        return Root(id_, name, path)

    def move_root(self, root: int, path: str) -> None:
        """See the contract."""
        for one in self._state["roots"]:
            if one[0] == root:
                one[2] = path

    def set_meta(self, **values: Any) -> None:
        """See the contract."""
        if values.get("generation") is not None:
            self._state["generation"] = int(values.pop("generation"))
        self._values |= values

    # What is known --------------------------------------------------------------------------

    def _know(self, names: Sequence[str]) -> None:
        """Read or make the records of objects."""
        wanted = [name for name in dict.fromkeys(names) if name not in self._objects]
        for point in self._link.get(self._link.book, [key("object", name) for name in wanted]):
            self._objects[point.payload["name"]] = dict(point.payload)
        for name in wanted:
            if name not in self._objects:
                id_ = self._state["last"]["objects"] = self._state["last"]["objects"] + 1
                self._objects[name] = {"kind": "object", "id": id_, "name": name, "images": 0}

    def _fetch(self, ids: Sequence[int]) -> None:
        """Read what is there of images."""
        wanted = [id_ for id_ in ids if id_ not in self._stored]
        if wanted and self._begun:
            for point in self._link.get(self._images, wanted, with_payload=True):
                self._stored[int(point.id)] = dict(point.payload)
        names = {one["object"] for one in self._stored.values()} - {None}
        self._know(sorted(names))

    def _now(self, id_: int) -> dict[str, Any] | None:
        return self._payloads[id_] if id_ in self._payloads else self._stored.get(id_)

    def _count(self, payload: dict[str, Any] | None, by: int) -> None:
        if payload is not None and payload["object"] is not None:
            self._objects[payload["object"]]["images"] += by

    def _payload(self, row: Row) -> dict[str, Any]:
        place = row.place
        return {
            "root": place.root if place else None,
            "path": place.path if place else None,
            "box": box_text(place.box) if place else "",
            "place": place_text(place) if place else None,
            "object": row.object,
            "object_id": self._objects[row.object]["id"] if row.object is not None else 0,
            **{"given": row.given, "camera": row.camera, "split": row.split},
            # Twice: as numbers for filters, as text to the last digit.
            **{"columns": plain(row.columns), "exact": to_json(row.columns)},
            **{"content": row.content, "bytes": row.bytes, "mtime": row.mtime},
            **{"width": row.width, "height": row.height, "changed": self._version},
        }

    # The end --------------------------------------------------------------------------------

    def finish(self) -> dict[str, Any]:
        """The change as a whole: what `apply` takes. Raises UserError where it can't be kept."""
        self._check_places()
        for name, record in self._objects.items():
            vanished = name in self._gone and record["images"] <= 0
            self._records[key("object", name)] = None if vanished else record
        self._state["version"] = self._version
        kept = {name: value for name, value in self._values.items() if value is not None}
        self._state["values"] = to_json(kept)
        put = {id_: one for id_, one in self._payloads.items() if one is not None}
        bare = [id_ for id_ in put if id_ not in self._stored]
        if bare and str(self._generation) not in self._state["dims"]:
            raise UserError(
                f"{self._link.name}: Qdrant takes an image without a vector only after the first "
                "one with a vector; nothing of this change was kept"
            )
        return {
            "state": self._state,
            "payloads": put,
            "new": bare,
            "vectors": self._vectors,
            "summed": {g: sorted(some) for g, some in self._summed.items()},
            "delete": [id_ for id_, one in self._payloads.items() if one is None],
            "records": {at: one for at, one in self._records.items() if one is not None},
            "strike": [at for at, one in self._records.items() if one is None],
        }

    def _check_places(self) -> None:
        places = [p["place"] for p in self._payloads.values() if p and p["place"] is not None]
        twice = len(places) != len(set(places))
        if not twice and self._begun:
            for start in range(0, len(places), 256):
                some = where(place=places[start : start + 256])
                for page in self._link.pages(self._images, some, with_payload=["place"]):
                    twice |= any(int(point.id) not in self._payloads for point in page)
        if twice:
            raise UserError(
                f"{self._link.name}: two images in one place; nothing of this change was kept"
            )
