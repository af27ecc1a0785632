"""A connection to PostgreSQL that comes back: errors as one line, one writer at a time.

Reads are made again once when the connection is gone; a transaction that is cut off is undone by
the server, and its caller is told.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import numpy as np
import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

from resight.errors import UserError

_LOCKS = 0x7E516874  # the space of our advisory locks
_DOUBLES = np.dtype([("length", ">i4"), ("value", ">f8")])
GONE = (psycopg.OperationalError, psycopg.InterfaceError)


class AsVector:
    """A float32 vector on its way to a `vector` column."""

    def __init__(self, values: Any):
        self.values = np.asarray(values, ">f4")


class AsDoubles:
    """A float64 vector on its way to a `double precision[]` column."""

    def __init__(self, values: Any):
        self.values = np.asarray(values, ">f8")


class _VectorDumper(Dumper):  # type: ignore[misc]
    format = Format.BINARY

    def dump(self, obj: AsVector) -> bytes:
        return len(obj.values).to_bytes(2, "big") + b"\0\0" + obj.values.tobytes()


class _VectorLoader(Loader):  # type: ignore[misc]
    format = Format.BINARY

    def load(self, data: Buffer) -> Any:
        return np.frombuffer(bytes(data), ">f4", offset=4).astype(np.float32)


class _DoublesDumper(Dumper):  # type: ignore[misc]
    format = Format.BINARY
    oid = 1022

    def dump(self, obj: AsDoubles) -> bytes:
        cells = np.empty(len(obj.values), _DOUBLES)
        cells["length"], cells["value"] = 8, obj.values
        return np.array([1, 0, 701, len(cells), 1], ">i4").tobytes() + cells.tobytes()


class _DoublesLoader(Loader):  # type: ignore[misc]
    format = Format.BINARY

    def load(self, data: Buffer) -> Any:
        cells = np.frombuffer(bytes(data), _DOUBLES, offset=20)
        return cells["value"].astype(np.float64)


def split_name(address: str) -> tuple[str, str]:
    """The address that libpq takes, and the gallery's name: `?gallery=NAME`, or "gallery"."""
    parts = urlsplit(address)
    options = parse_qsl(parts.query, keep_blank_values=True)
    names = [value for key, value in options if key == "gallery"]
    query = urlencode([one for one in options if one[0] != "gallery"], quote_via=quote, safe="/")
    # urlunsplit drops the empty host of postgresql:///db
    rest = urlunsplit(("", parts.netloc, parts.path, query, ""))
    rest = rest if rest.startswith("//") else f"//{rest}"
    return f"{parts.scheme}:{rest}", names[-1] if names else "gallery"


def without_password(address: str) -> str:
    """The address as it may be shown."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    if ":" not in user:
        return address
    return address.replace(parts.netloc, f"{user.split(':')[0]}:***{at}{host}", 1)


class Link:
    """One session; `schema` is where its tables are. For one thread at a time (`lock`)."""

    def __init__(self, address: str, schema: str, name: str, wait: float):
        self._address, self._schema, self.name, self._wait = address, schema, name, wait
        self.lock = threading.RLock()
        self._inside = 0  # the thread that writes
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The connection, made again where it is gone."""
        if self._connection is None or self._connection.closed or self._connection.broken:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> psycopg.Connection[Any]:
        start = time.monotonic()
        while True:
            try:
                made = psycopg.connect(self._address, autocommit=True, connect_timeout=10)
                break
            except psycopg.OperationalError as error:
                # A server that is just being started says so.
                starting = "starting up" in str(error) or "shutting down" in str(error)
                if not starting or time.monotonic() - start > self._wait:
                    raise UserError(
                        f"{self.name}: can't be reached ({first_line(error)}); is the server "
                        "running, and is the address right?"
                    ) from None
                time.sleep(0.1)
            except psycopg.Error as error:
                raise UserError(f"{self.name}: {first_line(error)}") from None
        self._prepare(made)
        return made

    def _prepare(self, made: psycopg.Connection[Any]) -> None:
        """Find our tables, and pgvector's type, wherever it was installed."""
        found = made.execute(
            "SELECT t.oid, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = "
            "e.extnamespace JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector' "
            "WHERE e.extname = 'vector'"
        ).fetchone()
        places = [self._schema] + ([str(found[1])] if found else [])
        made.execute(
            sql.SQL("SET search_path TO {}").format(
                sql.SQL(", ").join(sql.Identifier(place) for place in places)
            )
        )
        if found:
            dumper = type("VectorDumper", (_VectorDumper,), {"oid": int(found[0])})
            made.adapters.register_dumper(AsVector, dumper)
            made.adapters.register_loader(int(found[0]), _VectorLoader)
        made.adapters.register_dumper(AsDoubles, _DoublesDumper)
        made.adapters.register_loader(1022, _DoublesLoader)

    def run(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; once more when the connection turns out to be gone."""
        with self.lock, self.trouble():
            try:
                return self._fetch(query, values)
            except GONE:
                if self._connection is None or not self._connection.broken:
                    raise
                return self._fetch(query, values)

    def _fetch(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self.connection.cursor(binary=True) as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def transaction(self, who: str) -> Iterator[psycopg.Connection[Any]]:
        """A transaction that nobody else writes beside. Raises UserError where one does."""
        if self._inside == threading.get_ident():
            raise RuntimeError("writing inside writing")
        if not self.lock.acquire(timeout=self._wait):
            raise UserError(f"{self.name}: another thread is writing; waited {self._wait:g} s")
        self._inside = threading.get_ident()
        try:
            with self.trouble(writing=True):
                connection = self._begun(who)
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if not connection.broken:
                        connection.execute("ROLLBACK")
                    raise
        finally:
            self._inside = 0
            self.lock.release()

    def _begun(self, who: str) -> psycopg.Connection[Any]:
        told = f"resight {who}, process {os.getpid()} on {socket.gethostname()}"[:63]
        try:
            self._begin(told)
        except GONE:
            self._begin(told)  # the connection had gone since it was used last
        connection = self.connection
        try:
            self._take_turn(connection)
        except BaseException:
            if not connection.broken:
                connection.execute("ROLLBACK")
            raise
        return connection

    def _begin(self, told: str) -> None:
        self.connection.execute("SELECT set_config('application_name', %s, false)", [told])
        self.connection.execute("BEGIN")

    def _take_turn(self, connection: psycopg.Connection[Any]) -> None:
        key = zlib.crc32(self._schema.encode()) - 2**31
        start, said = time.monotonic(), False
        while True:
            got = connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [_LOCKS, key])
            if (row := got.fetchone()) is not None and row[0]:
                return
            waited = time.monotonic() - start
            if waited > self._wait:
                raise UserError(
                    f"{self.name}: {self._holder(connection, key)} is writing; waited "
                    f"{waited:.0f} s, try again when it is done"
                )
            if waited > 1 and not said:
                print(f"waiting for {self._holder(connection, key)}", file=sys.stderr)
                said = True
            time.sleep(0.005 if waited < 0.1 else 0.05)

    @staticmethod
    def _holder(connection: psycopg.Connection[Any], key: int) -> str:
        row = connection.execute(
            "SELECT a.application_name, a.usename FROM pg_locks l JOIN pg_stat_activity a "
            "ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.granted "
            "AND l.classid::bigint = %s AND l.objid::bigint = %s AND l.database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())",
            [_LOCKS, key % 2**32],
        ).fetchone()
        if row is None:
            return "another session"
        return str(row[0] or f"another session of {row[1]}")

    @contextmanager
    def trouble(self, writing: bool = False) -> Iterator[None]:
        """PostgreSQL's errors as one line that says what to do."""
        try:
            yield
        except psycopg.Error as error:
            raise UserError(f"{self.name}: {_said(error, writing)}") from None

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()


def _said(error: psycopg.Error, writing: bool) -> str:
    text, told = first_line(error), psycopg.errors
    if isinstance(error, told.DiskFull):
        return "no space left on the server's disk; nothing that was acknowledged is lost"
    if isinstance(error, told.UniqueViolation):
        return f"two images in one place, or two roots of one name ({text}); nothing was kept"
    if isinstance(error, told.InsufficientPrivilege):
        return f"this user may not do that ({text}); ask whoever runs the server"
    if isinstance(error, told.UndefinedTable | told.UndefinedColumn):
        return f"a table is missing ({text}); restore the schema from a backup"
    if isinstance(error, psycopg.DataError):
        return f"can't be kept there ({text}); nothing of this change was kept"
    if isinstance(error, GONE):
        kept = "this change may not have been kept, run it again" if writing else "try again"
        return f"the connection was lost ({text}); {kept}"
    return text


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
