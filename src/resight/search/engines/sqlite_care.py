"""Looking after a SQLite gallery: integrity, generations, compaction, saving what can be read."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from resight.errors import UserError
from resight.search.engines.contract import Sum
from resight.search.engines.sqlite import SqliteEngine, generation_schema
from resight.search.engines.writer import SqliteWriter
from resight.search.sums import grid_of

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


def orphans(engine: SqliteEngine) -> list[int]:
    """Images of an object that is not there."""
    sql = (
        "SELECT id FROM images WHERE object IS NOT NULL "
        "AND object NOT IN (SELECT id FROM objects) ORDER BY id"
    )
    return [row[0] for row in engine.run(sql)]


def stray_sums(engine: SqliteEngine) -> int:
    """How many sums there are of objects that are not."""
    table = f"sums_{engine.generation():d}"
    sql = f"SELECT COUNT(*) FROM {table} WHERE object NOT IN (SELECT id FROM objects)"
    return int(engine.run(sql)[0][0])


def adopt(engine: SqliteEngine, images: Sequence[int]) -> None:
    """Give images whose object is not there to the one that their source names.

    Sums are not adjusted: they are to be made anew afterwards.
    """
    with engine.writing("repairing") as writer:
        writer.put([replace(row, object=row.given) for row in engine.rows(images)])


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
        table = f"sums_{engine.generation():d}"
        writer.script(f"DELETE FROM {table} WHERE object NOT IN (SELECT id FROM objects)")


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
    old.execute("PRAGMA writable_schema = ON")  # else a file that was cut is not read at all
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
            _carry(old, fresh, name)
        _settle(fresh)
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
    kept.unlink(missing_ok=True)
    os.link(path, kept)
    for ending in ("-wal", "-shm"):  # a log must not come to stand beside another file
        log = path.with_name(path.name + ending)
        if log.exists():
            log.replace(kept.with_name(kept.name + ending))
    os.replace(new, path)
    return saved, kept


def _settle(fresh: sqlite3.Connection) -> None:
    """Settings that follow from what was saved, where they were lost; a version beyond all others,
    so that nobody takes this for what he has seen."""
    meta: dict[str, Any] = {"generation": 0, "version": 0, "level": "image"}
    for key, value in fresh.execute("SELECT key, value FROM meta"):
        with contextlib.suppress(ValueError):
            meta[key] = json.loads(value)
    sql = "SELECT name FROM sqlite_master WHERE name GLOB 'vectors_[0-9]*'"
    there = {int(row[0].split("_")[1]) for row in fresh.execute(sql)}
    if meta["generation"] not in there:
        meta["generation"] = max(there)
    sql = "SELECT MAX(changed) FROM images UNION ALL SELECT MAX(version) FROM removed"
    latest = max(row[0] or 0 for row in fresh.execute(sql).fetchall())
    meta["version"] = meta["known_since"] = max(meta["version"], latest) + 1
    if "dim" not in meta or "grid" not in meta:
        sql = f"SELECT vector FROM vectors_{meta['generation']:d} LIMIT 8192"
        blobs = [row[0] for row in fresh.execute(sql)]
        sizes = [len(blob) for blob in blobs]
        usual = max(set(sizes), key=sizes.count, default=0)
        rows = [np.frombuffer(blob, np.float32) for blob in blobs if len(blob) == usual]
        rows = [row for row in rows if np.isfinite(row).all()]
        if rows:
            meta |= {"dim": usual // 4, "grid": grid_of(np.stack(rows))}
    fresh.execute("DELETE FROM meta")
    pairs = [(key, json.dumps(value, ensure_ascii=False)) for key, value in meta.items()]
    fresh.executemany("INSERT INTO meta VALUES (?, ?)", pairs)


def _carry(old: sqlite3.Connection, fresh: sqlite3.Connection, table: str) -> None:
    """Copy a table row by row; where a page can't be read, go on behind it."""
    columns = len(old.execute(f"PRAGMA table_info({table})").fetchall())
    new = "REPLACE" if table == "meta" else "IGNORE"
    put = f"INSERT OR {new} INTO {table} VALUES ({', '.join('?' * columns)})"
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
