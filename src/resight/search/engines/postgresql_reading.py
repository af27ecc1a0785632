"""The reading half of the PostgreSQL engine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from resight.search.engines.postgresql_link import Link
from resight.search.engines.records import box_text, own, parse_box

_IMAGE = (
    "i.id, i.root, i.path, i.box, o.name, i.given, i.camera, i.split, i.columns, i.content, "
    "i.bytes, i.mtime, i.width, i.height, i.object"
)
_FROM = "FROM images i LEFT JOIN objects o ON o.id = i.object"
_DIRECT = {
    **{"object": "o.name", "object_id": "COALESCE(i.object, 0)", "path": "i.path"},
    **{name: f"i.{name}" for name in ("camera", "split", "bytes", "width", "height")},
}
_Stack = tuple[NDArray[np.int64], NDArray[np.int64], Vectors]


class PostgresReader:
    """What an `Engine` reads: see the contract."""

    def __init__(self, link: Link):
        self._reads = link
        self._there: set[int] = set()  # generations that have tables

    def meta(self) -> dict[str, Any]:
        """See the contract."""
        return {key: own(value) for key, value in self._reads.run("SELECT key, value FROM meta")}

    def _setting(self, key: str) -> int:
        return int(self._reads.run("SELECT value FROM meta WHERE key = %s", [key])[0][0])

    def version(self) -> int:
        """See the contract."""
        return self._setting("version")

    def generation(self) -> int:
        """The number of the embedder whose vectors are in use."""
        return self._setting("generation")

    def _table(self, kind: str) -> str | None:
        """A table of the generation in use; None where no vector has come yet."""
        generation = self.generation()
        if generation not in self._there:
            found = self._reads.run("SELECT to_regclass(%s)", [f"vectors_{generation:d}"])
            if found[0][0] is None:
                return None
            self._there.add(generation)
        return f"{kind}_{generation:d}"

    def changes(self, since: int) -> Changes | None:
        """See the contract."""
        meta, run = self.meta(), self._reads.run
        if since < meta["known_since"]:
            return None
        images = {row[0] for row in run("SELECT id FROM images WHERE changed > %s", [since])}
        objects: set[int] = set()
        if table := self._table("sums"):
            found = run(f"SELECT DISTINCT object FROM {table} WHERE changed > %s", [since])
            objects = {row[0] for row in found}
        for image, object_ in run("SELECT image, object FROM removed WHERE version > %s", [since]):
            images |= {image} - {None}
            objects |= {object_} - {None}
        return Changes(int(meta["version"]), sorted(images), sorted(objects))

    def counts(self) -> tuple[int, int]:
        """See the contract."""
        sql = "SELECT (SELECT COUNT(*) FROM images), (SELECT COUNT(*) FROM objects)"
        images, objects = self._reads.run(sql)[0]
        return int(images), int(objects)

    def ids(self, after: int = 0, limit: int | None = None) -> list[int]:
        """See the contract."""
        sql = "SELECT id FROM images WHERE id > %s ORDER BY id LIMIT %s"
        return [row[0] for row in self._reads.run(sql, [after, limit])]

    def rows(self, ids: Sequence[int], *, thumbnails: bool = False) -> list[Row]:
        """See the contract."""
        small, join = "NULL::bytea", ""
        if thumbnails:
            small, join = "t.jpeg", "LEFT JOIN thumbnails t ON t.image = i.id"
        sql = f"SELECT {_IMAGE}, {small} {_FROM} {join} WHERE i.id = ANY(%s::bigint[])"
        found = {row[0]: row_of(row) for row in self._reads.run(sql, [list(ids)])}
        return [found[id_] for id_ in ids if id_ in found]

    def vectors(self, ids: Sequence[int]) -> _Stack:
        """See the contract."""
        table = self._table("vectors")
        if table is None:
            return _stacked([])
        sql = (
            f"SELECT v.image, COALESCE(i.object, 0), v.vector FROM {table} v "
            "JOIN images i ON i.id = v.image WHERE v.image = ANY(%s::bigint[]) ORDER BY v.image"
        )
        return _stacked(self._reads.run(sql, [list(ids)]))

    def every_vector(self, block: int = 8192) -> Iterator[_Stack]:
        """See the contract."""
        table, after = self._table("vectors"), 0
        while table is not None:
            found = self._reads.run(
                f"SELECT v.image, COALESCE(i.object, 0), v.vector FROM {table} v "
                "JOIN images i ON i.id = v.image WHERE v.image > %s ORDER BY v.image LIMIT %s",
                [after, block],
            )
            if not found:
                return
            yield _stacked(found)
            after = found[-1][0]

    def sums(self, objects: Collection[str] | None = None) -> list[Sum]:
        """See the contract."""
        if objects is None:
            return self._sums("TRUE", [])
        return self._sums("o.name = ANY(%s::text[])", [list(objects)])

    def sums_by_id(self, objects: Sequence[int]) -> list[Sum]:
        """See the contract."""
        return self._sums("o.id = ANY(%s::bigint[])", [list(objects)])

    def _sums(self, where: str, values: list[Any]) -> list[Sum]:
        if (table := self._table("sums")) is None:
            return []
        found = self._reads.run(
            f"SELECT o.name, s.camera, s.count, s.total, s.squares, o.id FROM {table} s "
            f"JOIN objects o ON o.id = s.object WHERE {where} ORDER BY o.id, s.camera",
            values,
        )
        return [Sum(*row) for row in found]

    def object_names(self, ids: Collection[int]) -> dict[int, str]:
        """See the contract."""
        sql = "SELECT id, name FROM objects WHERE id = ANY(%s::bigint[])"
        return {row[0]: row[1] for row in self._reads.run(sql, [list(ids)])}

    def objects(self, like: str = "", offset: int = 0, limit: int = 100) -> list[tuple[str, int]]:
        """See the contract."""
        sql = (
            "SELECT o.name, COUNT(*) FROM objects o JOIN images i ON i.object = o.id WHERE "
            'POSITION(LOWER(%s::text COLLATE "C") IN LOWER(o.name)) > 0 '
            "GROUP BY o.id ORDER BY o.name LIMIT %s OFFSET %s"
        )
        return [(row[0], row[1]) for row in self._reads.run(sql, [like, limit, offset])]

    def images_of(self, object: str) -> list[int]:
        """See the contract."""
        sql = f"SELECT i.id {_FROM} WHERE o.name = %s ORDER BY i.id"
        return [row[0] for row in self._reads.run(sql, [object])]

    def first_images(self, objects: Collection[int]) -> dict[int, int]:
        """See the contract."""
        sql = "SELECT object, MIN(id) FROM images WHERE object = ANY(%s::bigint[]) GROUP BY object"
        return {row[0]: row[1] for row in self._reads.run(sql, [list(objects)])}

    def covers(self, objects: Collection[str]) -> dict[str, int]:
        """See the contract."""
        sql = (
            "SELECT o.name, MIN(i.id) FROM objects o JOIN images i ON i.object = o.id "
            "WHERE o.name = ANY(%s::text[]) GROUP BY o.name"
        )
        return {row[0]: row[1] for row in self._reads.run(sql, [list(objects)])}

    def images_at(self, root: int, path: str) -> list[int]:
        """See the contract."""
        sql = "SELECT id FROM images WHERE root = %s AND path = %s ORDER BY id"
        return [row[0] for row in self._reads.run(sql, [root, path])]

    def known(self, places: Sequence[Place]) -> dict[Place, Row]:
        """See the contract."""
        sql = f"SELECT p.at, {_IMAGE} {_FROM} JOIN {_PLACES} USING (root, path, box)"
        found = self._reads.run(sql, _split(places))
        return {places[row[0] - 1]: row_of(row[1:]) for row in found}

    def by_content(self, contents: Sequence[str]) -> list[Row]:
        """See the contract."""
        sql = f"SELECT {_IMAGE} {_FROM} WHERE i.content = ANY(%s::text[]) ORDER BY i.id"
        return [row_of(row) for row in self._reads.run(sql, [list(contents)])]

    def sizes(self, among: Collection[int]) -> set[int]:
        """See the contract."""
        sql = "SELECT DISTINCT bytes FROM images WHERE bytes = ANY(%s::bigint[])"
        return {row[0] for row in self._reads.run(sql, [list(among)])}

    def left_out(self, places: Sequence[Place]) -> dict[Place, LeftOut]:
        """See the contract."""
        sql = (
            "SELECT p.at, l.bytes, l.mtime, l.content, l.reason, l.of FROM left_out l "
            f"JOIN {_PLACES} USING (root, path, box)"
        )
        found = self._reads.run(sql, _split(places))
        return {places[at - 1]: LeftOut(places[at - 1], *rest) for at, *rest in found}

    def every_left_out(self) -> Iterator[LeftOut]:
        """See the contract."""
        sql = (
            "SELECT root, path, box, bytes, mtime, content, reason, of FROM left_out WHERE "
            'root > %s OR (root = %s AND (path COLLATE "C", box COLLATE "C") > (%s, %s)) '
            'ORDER BY root, path COLLATE "C", box COLLATE "C" LIMIT 2000'
        )
        after: tuple[Any, ...] = (-1, -1, "", "")
        while found := self._reads.run(sql, after):
            for root, path, box, *rest in found:
                yield LeftOut(Place(root, path, parse_box(box)), *rest)
            after = (found[-1][0], *found[-1][:3])

    def roots(self) -> list[Root]:
        """See the contract."""
        return [
            Root(*row) for row in self._reads.run("SELECT id, name, path FROM roots ORDER BY 1")
        ]

    def table(self, columns: Collection[str]) -> dict[str, list[Any]]:
        """See the contract."""
        direct = [name for name in columns if name in _DIRECT]
        others = [name for name in columns if name not in _DIRECT and name != "id"]
        wanted = ["i.id", *(_DIRECT[name] for name in direct), *(["i.columns"] if others else [])]
        rows = self._reads.run(f"SELECT {', '.join(wanted)} {_FROM} ORDER BY i.id")
        found = {name: [row[at] for row in rows] for at, name in enumerate(["id", *direct])}
        if others:
            parsed = [own(row[-1]) for row in rows]
            for name in others:
                if any(name in one for one in parsed):
                    found[name] = [one.get(name) for one in parsed]
        return found

    def thumbnail(self, id: int) -> Blob | None:
        """See the contract."""
        rows = self._reads.run("SELECT jpeg FROM thumbnails WHERE image = %s", [id])
        return bytes(rows[0][0]) if rows else None


_PLACES = "unnest(%s::bigint[], %s::text[], %s::text[]) WITH ORDINALITY AS p(root, path, box, at)"


def _split(places: Sequence[Place]) -> list[list[Any]]:
    return [
        [place.root for place in places],
        [place.path for place in places],
        [box_text(place.box) for place in places],
    ]


def row_of(found: tuple[Any, ...]) -> Row:
    """A row from the columns `_IMAGE`, and a small picture where it was asked for."""
    id_, root, path, box, name, given, camera, split, columns, content, size, mtime = found[:12]
    width, height, object_ = found[12:15]
    thumbnail = bytes(found[15]) if len(found) > 15 and found[15] is not None else None
    place = Place(root, path, parse_box(box)) if path is not None else None
    labels = (name, given, camera, split, own(columns))
    return Row(
        *(id_, place, *labels, content, size, mtime, width, height),
        object_id=object_ or 0,
        thumbnail=thumbnail,
    )


def _stacked(found: list[tuple[Any, ...]]) -> _Stack:
    ids = np.array([row[0] for row in found], np.int64)
    objects = np.array([row[1] for row in found], np.int64)
    if not found:
        return ids, objects, np.empty((0, 0), np.float32)
    return ids, objects, np.stack([row[2] for row in found])
