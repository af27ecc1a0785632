"""The engine that needs no server: one SQLite file, its log beside it.

SQLite in WAL mode with a sync at each commit: what was acknowledged is on the disk, readers go on
while one writes. One connection reads, one writes; a file beside says who is writing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from resight.errors import UserError
from resight.search.engines.contract import (
    Writer,
)
from resight.search.engines.sqlite_reading import SqliteReader
from resight.search.engines.turns import Turns
from resight.search.engines.writer import SqliteWriter

FORMAT = 1
_SCHEMA = f"""
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE roots(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, path TEXT NOT NULL);
CREATE TABLE objects(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
CREATE TABLE images(
  id INTEGER PRIMARY KEY AUTOINCREMENT, root INTEGER, path TEXT, box TEXT NOT NULL DEFAULT '',
  object INTEGER, given TEXT, camera TEXT, split TEXT, columns TEXT NOT NULL DEFAULT '{{}}',
  content TEXT, bytes INTEGER, mtime INTEGER, width INTEGER, height INTEGER,
  changed INTEGER NOT NULL);
CREATE UNIQUE INDEX images_place ON images(root, path, box) WHERE path IS NOT NULL;
CREATE INDEX images_content ON images(content) WHERE content IS NOT NULL;
CREATE INDEX images_bytes ON images(bytes) WHERE bytes IS NOT NULL;
CREATE INDEX images_object ON images(object);
CREATE INDEX images_changed ON images(changed);
CREATE TABLE thumbnails(image INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE TABLE removed(version INTEGER NOT NULL, image INTEGER, object INTEGER);
CREATE INDEX removed_version ON removed(version);
CREATE TABLE left_out(root INTEGER NOT NULL, path TEXT NOT NULL, box TEXT NOT NULL,
  bytes INTEGER, mtime INTEGER, content TEXT, reason TEXT NOT NULL, of INTEGER,
  PRIMARY KEY(root, path, box)) WITHOUT ROWID;
INSERT INTO meta VALUES ('format', '{FORMAT}'), ('version', '0'), ('generation', '1'),
  ('known_since', '0');
"""


def generation_schema(generation: int) -> str:
    """The tables of one generation: the vectors of one embedder, and their sums."""
    return f"""
CREATE TABLE IF NOT EXISTS vectors_{generation:d}(
  image INTEGER PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sums_{generation:d}(
  object INTEGER NOT NULL, camera TEXT NOT NULL, count INTEGER NOT NULL, total BLOB NOT NULL,
  squares REAL NOT NULL, crc INTEGER NOT NULL, changed INTEGER NOT NULL,
  PRIMARY KEY(object, camera));
CREATE INDEX IF NOT EXISTS sums_{generation:d}_changed ON sums_{generation:d}(changed);
"""


class SqliteEngine(SqliteReader):
    """A gallery in one file; `path` None: in memory, for as long as the process lives."""

    def __init__(self, path: Path | None, *, wait: float = 60.0):
        self.path, self.name = path, str(path) if path is not None else "the gallery in memory"
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        with self.trouble():
            super().__init__(self._connect(), self.name)
            self._writes = self._reads if path is None else self._connect()
            self.turns = Turns(path.with_name("writer.lock") if path is not None else None, wait)
            if not self._tables():
                with self.turns.taken("a new gallery"):
                    self._make()
            found = int(self.meta().get("format", 0))
        if found != FORMAT:
            raise UserError(
                f"{self.name}: made by another version of resight (format {found}, this one reads "
                f"{FORMAT}); install that version, or make the gallery anew (resight index)"
            )

    def _tables(self) -> bool:
        """Whether anything is there: a file that was only just begun has no tables yet."""
        return bool(self.run("SELECT 1 FROM sqlite_master LIMIT 1"))

    def _make(self) -> None:
        """The tables, unless another process has made them since we looked."""
        if not self._tables():
            self._writes.executescript("BEGIN;" + _SCHEMA + generation_schema(1) + "COMMIT")

    def _connect(self) -> sqlite3.Connection:
        target = str(self.path) if self.path is not None else ":memory:"
        connection = sqlite3.connect(
            target, timeout=60, isolation_level=None, check_same_thread=False
        )
        if self.path is not None:
            connection.execute("PRAGMA journal_mode = WAL")
            # Of a log of 64 MB, not 4: then a page that many changes touch is moved once.
            connection.execute("PRAGMA wal_autocheckpoint = 16384")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -65536")
        return connection

    @contextmanager
    def writing(self, who: str) -> Iterator[Writer]:
        """See the contract."""
        # In memory there is one connection: readers wait, or they would see what is half done.
        alone = self._lock if self.path is None else nullcontext()
        with self.turns.taken(who), alone, self.trouble():
            if self._writes.in_transaction:
                raise RuntimeError("writing inside writing")
            self._writes.execute("BEGIN IMMEDIATE")
            try:
                version = int(self._one(self._writes, "version")) + 1
                writer = SqliteWriter(self._writes, version, self.generation())
                yield writer
                writer.finish()
                self._writes.execute("COMMIT")
            except BaseException:
                if self._writes.in_transaction:
                    self._writes.execute("ROLLBACK")
                raise

    def vacuum(self) -> None:
        """Give unused room back, outside any transaction."""
        with self._lock, self.trouble():
            self._writes.execute("VACUUM")
            self._writes.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @staticmethod
    def _one(connection: sqlite3.Connection, key: str) -> str:
        rows = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchall()
        return str(rows[0][0]) if rows else "0"

    def close(self) -> None:
        """See the contract."""
        with self._lock:
            self._reads.close()
            self._writes.close()
