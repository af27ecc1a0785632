"""The reading half of the SQLite engine."""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.search.engines.contract import Changes, LeftOut, Place, Root, Row, Sum, Vectors
from resight.search.engines.records import box_text, parse_box

_IMAGE = (
    "i.id, i.root, i.path, i.box, o.name, i.given, i.camera, i.split, i.columns, i.content, "
    "i.bytes, i.mtime, i.width, i.height, i.object"
)
_FROM = "FROM images i LEFT JOIN objects o ON o.id = i.object"
_Stack = tuple[NDArray[np.int64], NDArray[np.int64], Vectors]


class SqliteReader:
    """What `Engine` can be asked, over one connection that reads."""

    def __init__(self, connection: sqlite3.Connection, name: str):
        self._reads, self.name = connection, name
        self._lock = threading.RLock()
        self._meta: dict[str, Any] = {}

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """SQLite's errors as one line that says what to do."""
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise UserError(
                f"{self.name}: two images in one place, or two roots of one name ({error}); "
                "nothing of this change was kept"
            ) from None
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "full" in text or "disk I/O" in text:
                raise UserError(
                    f"{self.name}: no space left on the disk; nothing that was acknowledged is "
                    "lost: free some room and run it again"
                ) from None
            if "locked" in text or "busy" in text:
                raise UserError(f"{self.name}: another program holds it; try again") from None
            if "readonly" in text or "unable to open" in text:
                raise UserError(f"{self.name}: can't be opened for writing ({text})") from None
            raise UserError(
                f"{self.name}: damaged ({text}); 'resight gallery check GALLERY --repair' saves "
                "what can be read"
            ) from None

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """A query on the reading connection."""
        with self._lock, self.trouble():
            return self._reads.execute(sql, values).fetchall()

    def meta(self) -> dict[str, Any]:
        """See the contract."""
        with self._lock, self.trouble():
            try:
                # Every write raises the version: what was read at this one still holds.
                if not self._meta or self._meta["version"] != self.version():
                    rows = self.run("SELECT key, value FROM meta")
                    self._meta = {key: json.loads(value) for key, value in rows}
            except (ValueError, KeyError, IndexError):
                raise sqlite3.DatabaseError("its settings can't be read") from None
            return dict(self._meta)

    def version(self) -> int:
        """See the contract."""
        return int(self.run("SELECT value FROM meta WHERE key = 'version'")[0][0])

    def generation(self) -> int:
        """The number of the embedder whose vectors are in use."""
        return int(self.run("SELECT value FROM meta WHERE key = 'generation'")[0][0])

    def changes(self, since: int) -> Changes | None:
        """See the contract."""
        with self._lock:
            meta = self.meta()
            if since < meta["known_since"]:
                return None
            images = {
                row[0] for row in self.run("SELECT id FROM images WHERE changed > ?", [since])
            }
            table = f"sums_{int(meta['generation']):d}"
            sql = f"SELECT DISTINCT object FROM {table} WHERE changed > ?"
            objects = {row[0] for row in self.run(sql, [since])}
            for image, object_ in self.run(
                "SELECT image, object FROM removed WHERE version > ?", [since]
            ):
                images |= {image} - {None}
                objects |= {object_} - {None}
            return Changes(int(meta["version"]), sorted(images), sorted(objects))

    def counts(self) -> tuple[int, int]:
        """See the contract."""
        sql = "SELECT (SELECT COUNT(*) FROM images), (SELECT COUNT(*) FROM objects)"
        images, objects = self.run(sql)[0]
        return int(images), int(objects)

    def ids(self, after: int = 0, limit: int | None = None) -> list[int]:
        """See the contract."""
        sql = "SELECT id FROM images WHERE id > ? ORDER BY id LIMIT ?"
        return [row[0] for row in self.run(sql, [after, -1 if limit is None else limit])]

    def rows(self, ids: Sequence[int], *, thumbnails: bool = False) -> list[Row]:
        """See the contract."""
        found = {
            row.id: row
            for part in _parts(ids)
            for row in map(
                row_of,
                self.run(f"SELECT {_IMAGE} {_FROM} WHERE i.id IN ({_marks(part)})", part),
            )
        }
        rows = [found[id_] for id_ in ids if id_ in found]
        if thumbnails:
            rows = [replace(row, thumbnail=self.thumbnail(row.id)) for row in rows]
        return rows

    def vectors(self, ids: Sequence[int]) -> _Stack:
        """See the contract."""
        table = f"vectors_{self.generation():d}"
        found: list[tuple[Any, ...]] = []
        for part in _parts(sorted(set(ids))):
            found += self.run(
                "SELECT v.image, COALESCE(i.object, 0), v.vector, v.crc "
                f"FROM {table} v JOIN images i ON i.id = v.image "
                f"WHERE v.image IN ({_marks(part)}) ORDER BY v.image",
                part,
            )
        return self._stacked(found)

    def every_vector(self, block: int = 8192, *, generation: int | None = None) -> Iterator[_Stack]:
        """See the contract; `generation`: of another one than that in use."""
        table = f"vectors_{self.generation() if generation is None else generation:d}"
        after = 0
        while True:
            found = self.run(
                "SELECT v.image, COALESCE(i.object, 0), v.vector, v.crc "
                f"FROM {table} v JOIN images i ON i.id = v.image "
                "WHERE v.image > ? ORDER BY v.image LIMIT ?",
                [after, block],
            )
            if not found:
                return
            yield self._stacked(found)
            after = found[-1][0]

    def _stacked(self, found: list[tuple[Any, ...]]) -> _Stack:
        """(image, object, vector, checksum) as arrays. Raises UserError for a damaged vector."""
        ids = np.array([row[0] for row in found], np.int64)
        objects = np.array([row[1] for row in found], np.int64)
        if not found:
            return ids, objects, np.empty((0, 0), np.float32)
        length = len(found[0][2])
        for image, _, blob, crc in found:
            if len(blob) != length or zlib.crc32(blob) != crc:
                raise UserError(
                    f"{self.name}: the vector of image {image} is not what was written; 'resight "
                    "gallery check GALLERY --repair' mends it"
                )
        rows = np.frombuffer(b"".join(row[2] for row in found), np.float32)
        return ids, objects, rows.reshape(len(found), length // 4)

    def sums(self, objects: Collection[str] | None = None) -> list[Sum]:
        """See the contract."""
        table = f"sums_{self.generation():d}"
        return list(read_sums(self.run, table, "o.name", objects))

    def sums_by_id(self, objects: Sequence[int]) -> list[Sum]:
        """See the contract."""
        table = f"sums_{self.generation():d}"
        return list(read_sums(self.run, table, "o.id", objects))

    def object_names(self, ids: Collection[int]) -> dict[int, str]:
        """See the contract."""
        found: dict[int, str] = {}
        for part in _parts(list(ids)):
            sql = f"SELECT id, name FROM objects WHERE id IN ({_marks(part)})"
            found.update((row[0], row[1]) for row in self.run(sql, part))
        return found

    def objects(self, like: str = "", offset: int = 0, limit: int = 100) -> list[tuple[str, int]]:
        """See the contract."""
        sql = (
            "SELECT o.name, COUNT(*) FROM objects o JOIN images i ON i.object = o.id "
            "WHERE INSTR(LOWER(o.name), LOWER(?)) > 0 GROUP BY o.id ORDER BY o.name "
            "LIMIT ? OFFSET ?"
        )
        return [(row[0], row[1]) for row in self.run(sql, [like, limit, offset])]

    def images_of(self, object: str) -> list[int]:
        """See the contract."""
        sql = f"SELECT i.id {_FROM} WHERE o.name = ? ORDER BY i.id"
        return [row[0] for row in self.run(sql, [object])]

    def first_images(self, objects: Collection[int]) -> dict[int, int]:
        """See the contract."""
        found: dict[int, int] = {}
        for part in _parts(list(objects)):
            sql = (
                f"SELECT object, MIN(id) FROM images WHERE object IN ({_marks(part)}) "
                "GROUP BY object"
            )
            found.update(self.run(sql, part))
        return found

    def covers(self, objects: Collection[str]) -> dict[str, int]:
        """See the contract."""
        found: dict[str, int] = {}
        for part in _parts(list(objects)):
            sql = (
                "SELECT o.name, MIN(i.id) FROM objects o JOIN images i ON i.object = o.id "
                f"WHERE o.name IN ({_marks(part)}) GROUP BY o.id"
            )
            found.update(self.run(sql, part))
        return found

    def images_at(self, root: int, path: str) -> list[int]:
        """See the contract."""
        sql = "SELECT id FROM images WHERE root = ? AND path = ? ORDER BY id"
        return [row[0] for row in self.run(sql, [root, path])]

    def known(self, places: Sequence[Place]) -> dict[Place, Row]:
        """See the contract."""
        wanted = set(places)
        found = {}
        for root in {place.root for place in wanted}:
            paths = sorted({place.path for place in wanted if place.root == root})
            for part in _parts(paths):
                where = f"WHERE i.root = ? AND i.path IN ({_marks(part)})"
                for row in map(row_of, self.run(f"SELECT {_IMAGE} {_FROM} {where}", [root, *part])):
                    if row.place in wanted:
                        found[row.place] = row
        return found

    def by_content(self, contents: Sequence[str]) -> list[Row]:
        """See the contract."""
        return [
            row
            for part in _parts(list(contents))
            for row in map(
                row_of,
                self.run(
                    f"SELECT {_IMAGE} {_FROM} WHERE i.content IN ({_marks(part)}) ORDER BY i.id",
                    part,
                ),
            )
        ]

    def sizes(self, among: Collection[int]) -> set[int]:
        """See the contract."""
        return {
            row[0]
            for part in _parts(list(among))
            for row in self.run(
                f"SELECT DISTINCT bytes FROM images WHERE bytes IN ({_marks(part)})", part
            )
        }

    def left_out(self, places: Sequence[Place]) -> dict[Place, LeftOut]:
        """See the contract."""
        if not self.run("SELECT 1 FROM left_out LIMIT 1"):
            return {}
        sql = (
            "SELECT bytes, mtime, content, reason, of FROM left_out "
            "WHERE root = ? AND path = ? AND box = ?"
        )
        found = {}
        for place in places:
            rows = self.run(sql, [place.root, place.path, box_text(place.box)])
            if rows:
                found[place] = LeftOut(place, *rows[0])
        return found

    def every_left_out(self) -> Iterator[LeftOut]:
        """See the contract."""
        sql = (
            "SELECT root, path, box, bytes, mtime, content, reason, of FROM left_out "
            "WHERE (root, path, box) > (?, ?, ?) ORDER BY root, path, box LIMIT 2000"
        )
        after: tuple[Any, ...] = (-1, "", "")
        while found := self.run(sql, after):
            for root, path, box, size, mtime, content, reason, of in found:
                place = Place(root, path, parse_box(box))
                yield LeftOut(place, size, mtime, content, reason, of)
            after = found[-1][:3]

    def roots(self) -> list[Root]:
        """See the contract."""
        return [Root(*row) for row in self.run("SELECT id, name, path FROM roots ORDER BY id")]

    def table(self, columns: Collection[str]) -> dict[str, list[Any]]:
        """See the contract."""
        own = {"object": "o.name", "path": "i.path", "camera": "i.camera", "split": "i.split"}
        own |= {"bytes": "i.bytes", "width": "i.width", "height": "i.height", "id": "i.id"}
        own |= {"object_id": "COALESCE(i.object, 0)"}
        direct = [name for name in columns if name in own and name != "id"]
        others = [name for name in columns if name not in own]
        wanted = ["i.id", *(own[name] for name in direct)] + ["i.columns"] * bool(others)
        rows = self.run(f"SELECT {', '.join(wanted)} {_FROM} ORDER BY i.id")
        found: dict[str, list[Any]] = {"id": [row[0] for row in rows]}
        for at, name in enumerate(direct, 1):
            found[name] = [row[at] for row in rows]
        if others:
            parsed = [json.loads(row[-1]) for row in rows]
            for name in others:
                if any(name in one for one in parsed):
                    found[name] = [one.get(name) for one in parsed]
        return found

    def thumbnail(self, id: int) -> bytes | None:
        """See the contract."""
        rows = self.run("SELECT jpeg FROM thumbnails WHERE image = ?", [id])
        return bytes(rows[0][0]) if rows else None


def row_of(found: tuple[Any, ...]) -> Row:
    """A row from the columns `_IMAGE`."""
    id_, root, path, box, name, given, camera, split, columns, *file, object_ = found
    content, size, mtime, width, height = file
    return Row(
        id_,
        Place(root, path, parse_box(box)) if path is not None else None,
        name,
        given,
        camera,
        split,
        json.loads(columns) if columns != "{}" else {},
        content,
        size,
        mtime,
        width,
        height,
        object_id=object_ or 0,
    )


def read_sums(
    run: Any, table: str, by: str, keys: Collection[str] | Sequence[int] | None
) -> Iterator[Sum]:
    """Sums from a table, of these objects or all."""
    sql = (
        "SELECT o.name, s.camera, s.count, s.total, s.squares, o.id "
        f"FROM {table} s JOIN objects o ON o.id = s.object"
    )
    order = " ORDER BY o.id, s.camera"
    parts: Iterable[Sequence[Any]] = [()] if keys is None else _parts(list(keys))
    for part in parts:
        where = "" if keys is None else f" WHERE {by} IN ({_marks(part)})"
        for name, camera, count, total, squares, id_ in run(sql + where + order, part):
            yield Sum(name, camera, count, np.frombuffer(total, np.float64), squares, id_)


def _parts(keys: Sequence[Any], size: int = 900) -> Iterator[Sequence[Any]]:
    """Not more at once than SQLite takes as parameters."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def _marks(part: Sequence[Any]) -> str:
    return ", ".join("?" * len(part))
