"""The engine for a gallery that outgrows one machine: PostgreSQL with pgvector.

    postgresql://user@host/database?gallery=NAME

A gallery is a schema of that name ("gallery" where none is given), with tables that a person can
query (`postgresql_tables`). One session reads, one writes; who writes holds an advisory lock to
the end of the transaction, under an `application_name` that says who it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.search.engines.contract import (
    Blob,
    Changes,
    LeftOut,
    Near,
    Place,
    Root,
    Row,
    Sum,
    Vectors,
    Writer,
)
from resight.search.engines.nearness import ordered
from resight.search.engines.postgresql_link import Link, split_name, without_password
from resight.search.engines.postgresql_search import Searching, build_index
from resight.search.engines.postgresql_tables import FORMAT, STEPS
from resight.search.engines.postgresql_writer import PostgresWriter
from resight.search.engines.records import box_text, own, parse_box
from resight.search.where.tree import Tree

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


class PostgresEngine:
    """A gallery in a schema of a database. `create` False: it has to be there."""

    def __init__(self, address: str, *, create: bool = True, wait: float = 60.0):
        self.name = without_password(address)
        target, self.schema = split_name(address)
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", self.schema) or self.schema[:3] == "pg_":
            raise UserError(
                f"{self.name}: {self.schema!r} can't name a gallery; take small letters, digits "
                "and _ (a gallery is a schema of this name)"
            )
        self._reads = Link(target, self.schema, self.name, wait)
        self._writes = Link(target, self.schema, self.name, wait)
        self._dims: dict[int, bool] = {}
        self._prepare(create)

    def _prepare(self, create: bool) -> None:
        """Make the schema, or bring it to our format."""
        found = self._format()
        if found == FORMAT:
            return
        if found == 0 and not create:
            raise UserError(f"{self.name}: no gallery is there")
        if found < FORMAT:
            with self._writes.transaction("making tables") as connection:
                self._extension()
                if found == 0:
                    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self.schema}")
                found = self._format()  # another one may have been here
                for step in STEPS[found:]:
                    connection.execute(step)
                connection.execute(
                    "INSERT INTO meta VALUES ('format', %s) "
                    "ON CONFLICT(key) DO UPDATE SET value = excluded.value",
                    [str(FORMAT)],
                )
            self._writes.close()  # a new session knows the type of vectors
            self._reads.close()
        else:
            raise UserError(
                f"{self.name}: made by a newer resight (format {found}, this one reads up to "
                f"{FORMAT}); install that version"
            )

    def _extension(self) -> None:
        """pgvector, in a transaction of its own. Raises UserError when it can't be had."""
        if self._reads.run("SELECT 1 FROM pg_extension WHERE extname = 'vector'"):
            return
        try:
            self._reads.run("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        except UserError as error:
            raise UserError(
                f"{error}; the gallery needs the extension pgvector: install it on the server and "
                "have an administrator say CREATE EXTENSION vector in this database"
            ) from None

    def _format(self) -> int:
        """The format of what is there; 0: nothing. Raises UserError: something else is."""
        run = self._reads.run
        tables = {
            row[0]
            for row in run(
                "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n "
                "ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v')",
                [self.schema],
            )
        }
        if not tables:
            return 0
        if {"meta", "images", "left_out"} <= tables:
            rows = run(f"SELECT value FROM {self.schema}.meta WHERE key = 'format'")
            return int(rows[0][0]) if rows else 0
        raise UserError(
            f"{self.name}: the schema {self.schema} holds something else; give the gallery "
            "another name (?gallery=NAME)"
        )

    @contextmanager
    def writing(self, who: str) -> Iterator[Writer]:
        """See the contract."""
        with self._writes.transaction(who) as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
            assert row is not None
            writer = PostgresWriter(connection, int(row[0]) + 1, self.generation())
            yield writer
            writer.finish()

    # Reading ------------------------------------------------------------------------------

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
        if not self._dims.get(generation):
            there = self._reads.run("SELECT to_regclass(%s) IS NOT NULL", [f"vectors_{generation}"])
            self._dims[generation] = bool(there[0][0])
        return f"{kind}_{generation:d}" if self._dims[generation] else None

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

    def sizes(self) -> set[int]:
        """See the contract."""
        sql = "SELECT DISTINCT bytes FROM images WHERE bytes IS NOT NULL"
        return {row[0] for row in self._reads.run(sql)}

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

    def nearest(
        self,
        queries: NDArray[np.float32],
        fetch: int,
        *,
        level: str = "image",
        where: Tree | None = None,
        exact: bool = False,
    ) -> list[Near]:
        """The nearest of each query (Q, D), found in the database: see `postgresql_search`.

        `level`: "image", keys are ids of images; "object", keys are ids of objects, and minus the
        ids of images of no object. `where`: a filter's tree; an object passes by any image.
        """
        if self._table("vectors") is None:
            return [ordered(query, [], fetch) for query in queries]
        searching = Searching(self._reads, self.generation(), where)
        return searching.nearest(queries, fetch, level=level, exact=exact)

    def build_index(self, level: str = "image") -> None:
        """pgvector's index for `nearest`; kept up to date by the server from then on."""
        if self._table("vectors") is not None:
            build_index(self._writes, self.generation(), level, int(self.meta()["dim"]))

    def close(self) -> None:
        """See the contract."""
        self._reads.close()
        self._writes.close()


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
