"""The engine for a gallery that outgrows one machine: PostgreSQL with pgvector.

    postgresql://user@host/database?gallery=NAME

A gallery is a schema of that name ("gallery" where none is given), with tables that a person can
query (`postgresql_tables`). One session reads, one writes; who writes holds an advisory lock to
the end of the transaction, under an `application_name` that says who it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.search.engines.contract import (
    Near,
    Writer,
)
from resight.search.engines.nearness import ordered
from resight.search.engines.postgresql_link import Link, split_name, without_password
from resight.search.engines.postgresql_reading import PostgresReader
from resight.search.engines.postgresql_search import Searching, build_index
from resight.search.engines.postgresql_tables import FORMAT, STEPS
from resight.search.engines.postgresql_writer import PostgresWriter
from resight.search.where.tree import Tree


class PostgresEngine(PostgresReader):
    """A gallery in a schema of a database. `create` False: it has to be there."""

    filters = True  # `nearest` takes them

    def __init__(self, address: str, *, create: bool = True, wait: float = 60.0):
        self.name = without_password(address)
        target, self.schema = split_name(address)
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", self.schema) or self.schema[:3] == "pg_":
            raise UserError(
                f"{self.name}: {self.schema!r} can't name a gallery; take small letters, digits "
                "and _ (a gallery is a schema of this name)"
            )
        super().__init__(Link(target, self.schema, self.name, wait))
        self._writes = Link(target, self.schema, self.name, wait)
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
