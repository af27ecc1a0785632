"""The writing half of the SQLite engine: one transaction."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from resight.search.engines.contract import LeftOut, Place, Root, Row, Sum
from resight.search.engines.records import box_text


class SqliteWriter:
    """What `Engine.writing` yields: see the contract."""

    def __init__(self, connection: sqlite3.Connection, version: int, generation: int):
        self._sql, self._version = connection, version
        self._generation = generation
        self._ids: dict[str, int] = {}

    def put(self, rows: Sequence[Row]) -> list[int]:
        """See the contract."""
        ids = self._ids_for(rows)
        self._know(row.object for row in rows)
        self._sql.executemany(
            "INSERT INTO images(id, root, path, box, object, given, camera, split, "
            "columns, content, bytes, mtime, width, height, changed) "
            "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET "
            "root=excluded.root, path=excluded.path, box=excluded.box, "
            "object=excluded.object, given=excluded.given, camera=excluded.camera, "
            "split=excluded.split, columns=excluded.columns, content=excluded.content, "
            "bytes=excluded.bytes, mtime=excluded.mtime, width=excluded.width, "
            "height=excluded.height, changed=excluded.changed",
            [
                (
                    *(id_, *_place(row.place), self._object(row.object)),
                    *(row.given, row.camera, row.split),
                    json.dumps(row.columns, ensure_ascii=False) if row.columns else "{}",
                    *(row.content, row.bytes, row.mtime, row.width, row.height, self._version),
                )
                for id_, row in zip(ids, rows, strict=True)
            ],
        )
        pairs = list(zip(ids, rows, strict=True))
        self.put_vectors({id_: row.vector for id_, row in pairs if row.vector is not None})
        self._sql.executemany(
            "INSERT OR REPLACE INTO thumbnails VALUES (?, ?)",
            [(id_, row.thumbnail) for id_, row in pairs if row.thumbnail is not None],
        )
        return ids

    def _ids_for(self, rows: Sequence[Row]) -> list[int]:
        """The ids that rows have, or get: never one that was given before."""
        sql = "SELECT seq FROM sqlite_sequence WHERE name = 'images'"
        given = self._sql.execute(sql).fetchone()
        next_ = int(given[0]) + 1 if given is not None else 1
        next_ = max([next_, *(row.id + 1 for row in rows)])
        new = iter(range(next_, next_ + len(rows)))
        return [row.id or next(new) for row in rows]

    def put_vectors(self, vectors: dict[int, Any], generation: int | None = None) -> None:
        """Keep vectors by image id, of the generation in use or another."""
        generation = self._generation if generation is None else generation
        blobs = ((id_, np.asarray(v, np.float32).tobytes()) for id_, v in vectors.items())
        self._sql.executemany(
            f"INSERT OR REPLACE INTO vectors_{generation:d} VALUES (?, ?, ?)",
            ((id_, blob, zlib.crc32(blob)) for id_, blob in blobs),
        )

    def delete(self, ids: Sequence[int]) -> None:
        """See the contract."""
        keys = [(id_,) for id_ in ids]
        self._sql.executemany(
            "INSERT INTO removed(version, image) VALUES (?, ?)", [(self._version, i) for i in ids]
        )
        for table, column in (("images", "id"), ("thumbnails", "image"), *self._vector_tables()):
            self._sql.executemany(f"DELETE FROM {table} WHERE {column} = ?", keys)

    def _vector_tables(self) -> list[tuple[str, str]]:
        sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'vectors_[0-9]*'"
        return [(row[0], "image") for row in self._sql.execute(sql).fetchall()]

    def set_sums(self, sums: Sequence[Sum], generation: int | None = None) -> None:
        """See the contract."""
        generation = self._generation if generation is None else generation
        table = f"sums_{generation:d}"
        self._know(one.object for one in sums)
        named = [(self._object(one.object), one) for one in sums]
        blobs = (
            (object_, one, np.asarray(one.total, np.float64).tobytes())
            for object_, one in named
            if one.count > 0
        )
        self._sql.executemany(
            f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (o, one.camera, one.count, blob, one.squares, zlib.crc32(blob), self._version)
                for o, one, blob in blobs
            ),
        )
        gone = {(object_, one.object) for object_, one in named if one.count <= 0}
        self._sql.executemany(
            f"DELETE FROM {table} WHERE object = ? AND camera = ?",
            [(object_, one.camera) for object_, one in named if one.count <= 0],
        )
        if generation != self._generation:
            return
        for object_, name in gone:
            # A reader must hear of it, whether other cameras are left or not.
            self._sql.execute(
                "INSERT INTO removed(version, object) VALUES (?, ?)", (self._version, object_)
            )
            left = self._sql.execute(
                "SELECT EXISTS(SELECT 1 FROM images WHERE object = ?)", (object_,)
            ).fetchone()[0]
            if not left:
                self._sql.execute("DELETE FROM objects WHERE id = ?", (object_,))
                self._ids.pop(name, None)

    def leave_out(self, entries: Sequence[LeftOut]) -> None:
        """See the contract."""
        self._sql.executemany(
            "INSERT OR REPLACE INTO left_out VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *(one.place.root, one.place.path, box_text(one.place.box)),
                    *(one.bytes, one.mtime, one.content, one.reason, one.of),
                )
                for one in entries
            ],
        )

    def take_back(self, places: Sequence[Place]) -> None:
        """See the contract."""
        self._sql.executemany(
            "DELETE FROM left_out WHERE root = ? AND path = ? AND box = ?",
            [(place.root, place.path, box_text(place.box)) for place in places],
        )

    def add_root(self, name: str, path: str) -> Root:
        """See the contract."""
        done = self._sql.execute("INSERT INTO roots(name, path) VALUES (?, ?)", (name, path))
        return Root(int(done.lastrowid or 0), name, path)

    def move_root(self, root: int, path: str) -> None:
        """See the contract."""
        self._sql.execute("UPDATE roots SET path = ? WHERE id = ?", (path, root))

    def set_meta(self, **values: Any) -> None:
        """See the contract."""
        for key, value in values.items():
            if value is None:
                self._sql.execute("DELETE FROM meta WHERE key = ?", (key,))
            else:
                self._sql.execute(
                    "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                    (key, json.dumps(value, ensure_ascii=False)),
                )

    def touch(self, ids: Sequence[int]) -> None:
        """Let readers hear of images whose vectors were put alone."""
        self._sql.executemany(
            "UPDATE images SET changed = ? WHERE id = ?", [(self._version, id_) for id_ in ids]
        )

    def drop_empty_objects(self) -> None:
        """Forget objects that no image is of, and their sums."""
        sql = (
            "SELECT id FROM objects WHERE id NOT IN "
            "(SELECT object FROM images WHERE object IS NOT NULL)"
        )
        for (object_,) in self._sql.execute(sql).fetchall():
            self._sql.execute("DELETE FROM objects WHERE id = ?", (object_,))
            self._sql.execute(f"DELETE FROM sums_{self._generation:d} WHERE object = ?", (object_,))
            self._sql.execute(
                "INSERT INTO removed(version, object) VALUES (?, ?)", (self._version, object_)
            )
        self._ids.clear()

    def forget_removed(self, before: int) -> None:
        """Shorten the log of removals: readers that are further behind read everything anew."""
        self._sql.execute("DELETE FROM removed WHERE version <= ?", (before,))
        self.set_meta(known_since=before)

    def script(self, statements: str) -> None:
        """Run statements of our own making, inside the transaction."""
        for one in statements.split(";"):
            if one.strip():
                self._sql.execute(one)

    def finish(self) -> None:
        """The last thing written: the new version."""
        self.set_meta(version=self._version)

    def _know(self, names: Iterable[str | None]) -> None:
        """Learn the ids of objects, and make those that are new, all at once."""
        wanted = dict.fromkeys(name for name in names if name is not None)
        unknown = [name for name in wanted if name not in self._ids]
        if not unknown:
            return
        sql = "SELECT name, id FROM objects WHERE name IN (SELECT value FROM json_each(?))"
        asked = [json.dumps(unknown)]
        found = dict(self._sql.execute(sql, asked).fetchall())
        new = [(name,) for name in unknown if name not in found]
        if new:
            self._sql.executemany("INSERT INTO objects(name) VALUES (?)", new)
            found = dict(self._sql.execute(sql, asked).fetchall())
        self._ids |= found

    def _object(self, name: str | None) -> int | None:
        """The id of an object that `_know` was told of."""
        return self._ids[name] if name is not None else None


def _place(place: Place | None) -> tuple[int | None, str | None, str]:
    return (place.root, place.path, box_text(place.box)) if place else (None, None, "")
