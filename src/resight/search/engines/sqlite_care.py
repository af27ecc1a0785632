"""Looking after a SQLite gallery: integrity, generations, compaction, saving what can be read."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from resight.errors import UserError
from resight.search.engines.contract import Sum
from resight.search.engines.sqlite import SqliteEngine, generation_schema
from resight.search.engines.writer import SqliteWriter

# Changes that a reader can still catch up with after a compaction, in versions.
_KEPT = 1000


def integrity(engine: SqliteEngine) -> list[str]:
    """What SQLite's own check finds; at most ten lines, none where all is well."""
    try:
        rows = engine.run("PRAGMA integrity_check(10)")
    except UserError as error:
        return [str(error)]
    lines = [line for row in rows for line in str(row[0]).splitlines()]
    return [] if lines == ["ok"] else lines[:10]


def raw_vectors(engine: SqliteEngine) -> Iterator[tuple[int, bytes, int]]:
    """(image, vector, checksum) as they are kept, ids rising."""
    after, table = 0, f"vectors_{engine.generation():d}"
    sql = f"SELECT image, vector, crc FROM {table} WHERE image > ? ORDER BY image LIMIT 4096"
    while rows := engine.run(sql, [after]):
        yield from rows
        after = rows[-1][0]


def without_vector(engine: SqliteEngine, generation: int | None = None) -> list[int]:
    """Images that have no vector of a generation (the one in use), ids rising."""
    table = f"vectors_{engine.generation() if generation is None else generation:d}"
    sql = f"SELECT id FROM images WHERE id NOT IN (SELECT image FROM {table}) ORDER BY id"
    return [row[0] for row in engine.run(sql)]


def strays(engine: SqliteEngine) -> list[int]:
    """Vectors of no image."""
    table = f"vectors_{engine.generation():d}"
    sql = f"SELECT image FROM {table} WHERE image NOT IN (SELECT id FROM images) ORDER BY image"
    return [row[0] for row in engine.run(sql)]


def empty_objects(engine: SqliteEngine) -> list[str]:
    """Objects that no image is of."""
    sql = (
        "SELECT name FROM objects WHERE id NOT IN "
        "(SELECT object FROM images WHERE object IS NOT NULL) ORDER BY name"
    )
    return [row[0] for row in engine.run(sql)]


def drop(engine: SqliteEngine, images: Collection[int] = (), vectors: Collection[int] = ()) -> None:
    """Remove images, or vectors alone, whatever state they are in; and objects left empty.

    Sums are not adjusted: they are to be made anew afterwards.
    """
    with engine.writing("repairing") as writer:
        assert isinstance(writer, SqliteWriter)
        writer.delete([*images, *vectors])
        writer.drop_empty_objects()


def replace_sums(engine: SqliteEngine, sums: Sequence[Sum], stale: Sequence[Sum] = ()) -> None:
    """Put these sums in place of all that are there."""
    with engine.writing("repairing") as writer:
        assert isinstance(writer, SqliteWriter)
        writer.set_sums([Sum(s.object, s.camera, 0, s.total, 0.0) for s in stale])
        writer.set_sums(sums)
        writer.drop_empty_objects()


def put_vectors(engine: SqliteEngine, vectors: dict[int, Any], generation: int) -> None:
    """Keep vectors of a generation, by image id; images that are gone meanwhile are passed over."""
    with engine.writing("embedding anew") as writer:
        assert isinstance(writer, SqliteWriter)
        there = {row.id for row in engine.rows(list(vectors))}
        writer.put_vectors({k: v for k, v in vectors.items() if k in there}, generation)
        writer.touch([k for k in vectors if k in there])


def begin_generation(engine: SqliteEngine, generation: int) -> None:
    """Make room for the vectors of another embedder, beside those in use."""
    with engine.writing("a new generation") as writer:
        assert isinstance(writer, SqliteWriter)
        writer.script(generation_schema(generation))


def switch(engine: SqliteEngine, generation: int, sums: Sequence[Sum], **meta: Any) -> None:
    """Take another generation into use, in one transaction; the old one's vectors go.

    Raises UserError when images without a vector have come meanwhile.
    """
    old = engine.generation()
    with engine.writing("switching to the new embedder") as writer:
        assert isinstance(writer, SqliteWriter)
        if without_vector(engine, generation):
            raise UserError(f"{engine.name}: images were added meanwhile; run it again")
        writer.set_sums(sums, generation)
        writer.set_meta(generation=generation, known_since=engine.version() + 1, **meta)
        writer.script(f"DROP TABLE vectors_{old:d}; DROP TABLE sums_{old:d};")


def compact(engine: SqliteEngine) -> tuple[int, int]:
    """Give unused room back and shorten the log of removals; (bytes before, after)."""
    if engine.path is None:
        return 0, 0
    before = _size(engine.path)
    with engine.turns.taken("compacting"):
        version = engine.version()
        with engine.writing("compacting") as writer:
            assert isinstance(writer, SqliteWriter)
            writer.forget_removed(max(0, version - _KEPT))
        engine.vacuum()
    return before, _size(engine.path)


def _size(path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def salvage(path: Path) -> tuple[int, Path]:
    """Put a new database in place of a damaged one, with every row that can be read.

    Returns how many images were saved, and where the damaged file is kept.

    Raises UserError when nothing of it can be read.
    """
    new = path.with_name(path.name + ".salvaged")
    new.unlink(missing_ok=True)
    old = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    old.text_factory = lambda raw: raw.decode(errors="replace")
    try:
        tables = [
            row[0] for row in old.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        if "images" not in tables:
            raise sqlite3.DatabaseError("no images in it")
        engine = SqliteEngine(new)
        engine.close()
        fresh = sqlite3.connect(new)
        for name in tables:
            if name.startswith(("vectors_", "sums_")):
                fresh.executescript(generation_schema(int(name.split("_")[1])))
            elif name.startswith("sqlite_"):
                continue
            fresh.execute(f"DELETE FROM {name}")
            _carry(old, fresh, name)
        fresh.commit()
        saved = int(fresh.execute("SELECT COUNT(*) FROM images").fetchone()[0])
        fresh.close()
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{path}: nothing of it can be read ({error}); make the gallery anew (resight index)"
        ) from None
    finally:
        old.close()
    kept = path.with_name(path.name + ".damaged")
    os.replace(path, kept)
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    os.replace(new, path)
    return saved, kept


def _carry(old: sqlite3.Connection, fresh: sqlite3.Connection, table: str) -> None:
    """Copy a table row by row; where a page can't be read, go on behind it."""
    columns = len(old.execute(f"PRAGMA table_info({table})").fetchall())
    put = f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * columns)})"
    try:
        for row in old.execute(f"SELECT * FROM {table}"):
            with contextlib.suppress(sqlite3.IntegrityError):
                fresh.execute(put, row)
        return
    except sqlite3.DatabaseError:
        pass
    after, last = 0, 0
    with contextlib.suppress(sqlite3.DatabaseError):
        last = int(old.execute(f"SELECT MAX(rowid) FROM {table}").fetchone()[0] or 0)
    last = max(last, 10_000)
    sql = f"SELECT rowid, * FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT 1"
    while after < last:
        try:
            row = old.execute(sql, (after,)).fetchone()
        except sqlite3.DatabaseError:
            after += 1
            continue
        if row is None:
            return
        with contextlib.suppress(sqlite3.IntegrityError):
            fresh.execute(put, row[1:])
        after = row[0]
