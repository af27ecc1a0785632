"""The writing half of the PostgreSQL engine: one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg

from resight.search.engines.contract import LeftOut, Place, Root, Row, Sum
from resight.search.engines.postgresql_link import AsDoubles, AsVector
from resight.search.engines.postgresql_tables import generation_tables
from resight.search.engines.records import box_text, to_json

_COLUMNS = (
    *("id", "root", "path", "box", "object", "given", "camera", "split", "columns", "content"),
    *("bytes", "mtime", "width", "height", "changed"),
)
_PUT = (
    f"INSERT INTO images({', '.join(_COLUMNS)}) VALUES ({', '.join(['%s'] * len(_COLUMNS))}) "
    "ON CONFLICT(id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
)


class PostgresWriter:
    """What `Engine.writing` yields: see the contract."""

    def __init__(self, connection: psycopg.Connection[Any], version: int, generation: int):
        self._sql, self._version, self._generation = connection, version, generation
        self._ids: dict[str, int] = {}

    def put(self, rows: Sequence[Row]) -> list[int]:
        """See the contract."""
        objects = self._objects([row.object for row in rows if row.object is not None])
        new = iter(self._numbers("images", sum(not row.id for row in rows)))
        ids = [row.id or next(new) for row in rows]
        self._at_least("images", max(ids, default=0))
        values = []
        for id_, row in zip(ids, rows, strict=True):
            place = row.place
            values.append(
                (
                    id_,
                    *((place.root, place.path, box_text(place.box)) if place else (None, None, "")),
                    *(None if row.object is None else objects[row.object],),
                    *(row.given, row.camera, row.split, to_json(row.columns), row.content),
                    *(row.bytes, row.mtime, row.width, row.height, self._version),
                )
            )
        pairs = list(zip(ids, rows, strict=True))
        with self._sql.cursor() as cursor:
            cursor.executemany(_PUT, values)
            cursor.executemany(
                "INSERT INTO thumbnails VALUES (%s, %s) "
                "ON CONFLICT(image) DO UPDATE SET jpeg = excluded.jpeg",
                [(id_, row.thumbnail) for id_, row in pairs if row.thumbnail is not None],
            )
        self.put_vectors({id_: row.vector for id_, row in pairs if row.vector is not None})
        return ids

    def put_vectors(self, vectors: dict[int, Any], generation: int | None = None) -> None:
        """Keep vectors by image id, of the generation in use or another."""
        if not vectors:
            return
        generation = self._generation if generation is None else generation
        self._tables(generation, len(next(iter(vectors.values()))))
        with self._sql.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO vectors_{generation:d} VALUES (%s, %s) "
                "ON CONFLICT(image) DO UPDATE SET vector = excluded.vector",
                [(id_, AsVector(vector)) for id_, vector in vectors.items()],
            )

    def _tables(self, generation: int, dim: int) -> None:
        """The tables of a generation, which are made when its dimensions are first known."""
        if not self._there(f"vectors_{generation:d}"):
            self._sql.execute(generation_tables(generation, dim))

    def _there(self, table: str) -> bool:
        row = self._sql.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone()
        return bool(row and row[0])

    def delete(self, ids: Sequence[int]) -> None:
        """See the contract."""
        keys = list(ids)
        self._sql.execute(
            "INSERT INTO removed(version, image) SELECT %s, unnest(%s::bigint[])",
            [self._version, keys],
        )
        found = self._sql.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() "
            "AND tablename ~ '^vectors_[0-9]+$'"
        ).fetchall()
        tables = [("images", "id"), ("thumbnails", "image")] + [(row[0], "image") for row in found]
        for table, column in tables:
            query: Any = f"DELETE FROM {table} WHERE {column} = ANY(%s::bigint[])"
            self._sql.execute(query, [keys])

    def set_sums(self, sums: Sequence[Sum], generation: int | None = None) -> None:
        """See the contract."""
        if not sums:
            return
        generation = self._generation if generation is None else generation
        self._tables(generation, max(len(one.total) for one in sums))
        ids = self._objects([one.object for one in sums])
        kept = [one for one in sums if one.count > 0]
        gone = [one for one in sums if one.count <= 0]
        with self._sql.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO sums_{generation:d} VALUES (%s, %s, %s, %s, %s, %s) "
                "ON CONFLICT(object, camera) DO UPDATE SET count = excluded.count, "
                "total = excluded.total, squares = excluded.squares, changed = excluded.changed",
                [
                    (
                        *(ids[one.object], one.camera, one.count, AsDoubles(one.total)),
                        *(one.squares, self._version),
                    )
                    for one in kept
                ],
            )
            cursor.executemany(
                f"DELETE FROM sums_{generation:d} WHERE object = %s AND camera = %s",
                [(ids[one.object], one.camera) for one in gone],
            )
        self._set_centroids(sorted(set(ids.values())), generation)
        if gone and generation == self._generation:
            # A reader must hear of it, whether other cameras are left or not.
            self._without({one.object: ids[one.object] for one in gone})

    def _without(self, gone: dict[str, int]) -> None:
        """Objects some of whose sums are no more; those without images vanish."""
        keys = list(gone.values())
        self._sql.execute(
            "INSERT INTO removed(version, object) SELECT %s, unnest(%s::bigint[])",
            [self._version, keys],
        )
        self._sql.execute(
            "DELETE FROM objects o WHERE o.id = ANY(%s::bigint[]) "
            "AND NOT EXISTS (SELECT 1 FROM images i WHERE i.object = o.id)",
            [keys],
        )
        for name in gone:
            self._ids.pop(name, None)

    def _set_centroids(self, objects: list[int], generation: int) -> None:
        """The unit centroids (CTL, section 3.3) of these objects, from their sums."""
        query: Any = (
            f"SELECT object, count, total FROM sums_{generation:d} "
            "WHERE object = ANY(%s::bigint[]) ORDER BY object, camera"
        )
        totals: dict[int, tuple[int, Any]] = {}
        with self._sql.cursor(binary=True) as cursor:
            for object_, count, total in cursor.execute(query, [objects]):
                before = totals.get(object_, (0, 0.0))
                totals[object_] = before[0] + count, before[1] + total
        units = {}
        for object_, (count, total) in totals.items():
            length = float(np.sqrt(total @ total))
            units[object_] = count, AsVector(total / (length or 1.0))
        left = [object_ for object_ in objects if object_ not in units]
        gone: Any = f"DELETE FROM centroids_{generation:d} WHERE object = ANY(%s::bigint[])"
        self._sql.execute(gone, [left])
        with self._sql.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO centroids_{generation:d} VALUES (%s, %s, %s) "
                "ON CONFLICT(object) DO UPDATE SET count = excluded.count, "
                "vector = excluded.vector",
                [(object_, count, unit) for object_, (count, unit) in units.items()],
            )

    def leave_out(self, entries: Sequence[LeftOut]) -> None:
        """See the contract."""
        with self._sql.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO left_out VALUES (%s, %s, %s, %s, %s, %s, %s, %s) "
                "ON CONFLICT(root, path, box) DO UPDATE SET bytes = excluded.bytes, "
                "mtime = excluded.mtime, content = excluded.content, reason = excluded.reason, "
                "of = excluded.of",
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
        with self._sql.cursor() as cursor:
            cursor.executemany(
                "DELETE FROM left_out WHERE root = %s AND path = %s AND box = %s",
                [(place.root, place.path, box_text(place.box)) for place in places],
            )

    def add_root(self, name: str, path: str) -> Root:
        """See the contract."""
        (id_,) = self._numbers("roots", 1)
        self._sql.execute("INSERT INTO roots VALUES (%s, %s, %s)", [id_, name, path])
        return Root(id_, name, path)

    def move_root(self, root: int, path: str) -> None:
        """See the contract."""
        self._sql.execute("UPDATE roots SET path = %s WHERE id = %s", [path, root])

    def set_meta(self, **values: Any) -> None:
        """See the contract."""
        for key, value in values.items():
            if value is None:
                self._sql.execute("DELETE FROM meta WHERE key = %s", [key])
            else:
                self._sql.execute(
                    "INSERT INTO meta VALUES (%s, %s) "
                    "ON CONFLICT(key) DO UPDATE SET value = excluded.value",
                    [key, to_json(value)],
                )

    def finish(self) -> None:
        """The last thing written: the new version."""
        self.set_meta(version=self._version)

    def _numbers(self, counter: str, count: int) -> range:
        """Numbers that were never given before."""
        row = self._sql.execute(
            "UPDATE counters SET last = last + %s WHERE name = %s RETURNING last", [count, counter]
        ).fetchone()
        assert row is not None
        return range(row[0] - count + 1, row[0] + 1)

    def _at_least(self, counter: str, used: int) -> None:
        self._sql.execute(
            "UPDATE counters SET last = %s WHERE name = %s AND last < %s", [used, counter, used]
        )

    def _objects(self, names: Sequence[str]) -> dict[str, int]:
        """The ids of objects, which are made where they are new."""
        wanted = [name for name in dict.fromkeys(names) if name not in self._ids]
        if wanted:
            found = self._sql.execute(
                "SELECT name, id FROM objects WHERE name = ANY(%s::text[])", [wanted]
            ).fetchall()
            self._ids.update((str(name), int(id_)) for name, id_ in found)
            new = [name for name in wanted if name not in self._ids]
            made = list(zip(new, self._numbers("objects", len(new)), strict=True))
            with self._sql.cursor() as cursor:
                cursor.executemany("INSERT INTO objects(name, id) VALUES (%s, %s)", made)
            self._ids.update(made)
        return {name: self._ids[name] for name in names}
