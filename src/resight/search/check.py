"""Is a gallery what it should be? Each fault with how to mend it, and the mending itself.

Looked at: SQLite's own integrity, every vector's and every sum's checksum, images without vector
and vectors without image, sums against a rebuild, the index against the vectors, the embedder,
small pictures; and, as notes, photos that are gone and images far from their object's others.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resight.data.addresses import is_address
from resight.search import cache
from resight.search.doubtful import outliers
from resight.search.engines import sqlite_care as care
from resight.search.engines.contract import Engine, Sum
from resight.search.engines.sqlite import SqliteEngine
from resight.search.gallery import EMBEDDER, Gallery
from resight.search.incoming import full_path
from resight.search.sums import Key, adjusted

FAULT, NOTE = "fault", "note"


@dataclass(frozen=True)
class Finding:
    """`kind`: fault or note; `what`: a short name; `where`: file, image or object."""

    kind: str
    what: str
    where: str
    text: str
    mend: str = ""
    ids: tuple[int, ...] = ()

    def __str__(self) -> str:
        remedy = f"; {self.mend}" if self.mend else ""
        return f"{self.where}: {self.text}{remedy}"


def check(gallery: Gallery, progress: Callable[[str], None] = lambda stage: None) -> list[Finding]:
    """Everything that is wrong with a gallery, and what is worth knowing."""
    found: list[Finding] = []
    for stage, look in (
        ("database", _database),
        ("vectors", _vectors),
        ("sums", _sums),
        ("index", _index),
        ("embedder", _embedder),
        ("photos", _photos),
        ("outliers", _outliers),
    ):
        progress(stage)
        try:
            found += look(gallery)
        except Exception as error:  # what is damaged can't be looked at further
            if not any(one.kind == FAULT for one in found):
                raise
            text = " ".join(str(error).split())[:150]
            found.append(Finding(FAULT, "unread", stage, f"can't be looked at ({text})", _REPAIR))
    return found


_REPAIR = "'resight gallery check GALLERY --repair' mends it"


def _sqlite(gallery: Gallery) -> SqliteEngine | None:
    """The SQLite engine beneath; servers look after their pages themselves."""
    return gallery.engine if isinstance(gallery.engine, SqliteEngine) else None


def _database(gallery: Gallery) -> Iterator[Finding]:
    engine = _sqlite(gallery)
    for line in care.integrity(engine) if engine is not None else ():
        where = gallery.engine.name
        yield Finding(FAULT, "database", where, f"SQLite finds: {line}", _REPAIR)


def _vectors(gallery: Gallery) -> Iterator[Finding]:
    engine = _sqlite(gallery)
    if engine is None:
        return
    dim = engine.meta().get("dim", 0)
    mend = "--repair embeds the photo again, or removes the image where it is gone"
    for image, blob, crc in care.raw_vectors(engine):
        where = _named(gallery, image)
        if zlib.crc32(blob) != crc:
            text = "its vector is not what was written"
            yield Finding(FAULT, "vector", where, text, mend, (image,))
        elif len(blob) != 4 * dim:
            text = f"its vector has {len(blob) // 4} dimensions, not {dim}"
            yield Finding(FAULT, "vector", where, text, mend, (image,))
        elif not np.isfinite(np.frombuffer(blob, np.float32)).all():
            yield Finding(FAULT, "vector", where, "its vector is not finite", mend, (image,))
    for image in care.without_vector(engine):
        where = _named(gallery, image)
        yield Finding(FAULT, "no vector", where, "has no vector", mend, (image,))
    for image in care.strays(engine):
        text = "a vector of no image"
        yield Finding(FAULT, "stray vector", f"vector {image}", text, "--repair drops it", (image,))


def rebuilt_sums(engine: Engine) -> dict[Key, Sum]:
    """The sums from scratch, by object and camera."""
    meta = engine.meta()
    grid, dim = float(meta.get("grid", 1.0)), int(meta.get("dim", 0))
    return summed(engine, engine.every_vector(), grid, dim)


def summed(
    engine: Engine, blocks: Iterable[tuple[Any, Any, Any]], grid: float, dim: int
) -> dict[Key, Sum]:
    """The sums of vectors in blocks (ids, object ids, (n, D)), labels as the engine has them."""
    sums: dict[Key, Sum] = {}
    for ids, _, vectors in blocks:
        by_id = dict(zip(ids.tolist(), vectors, strict=True))
        rows = [replace(row, vector=by_id[row.id]) for row in engine.rows(ids.tolist())]
        keys = {(row.object, row.camera or "") for row in rows if row.object is not None}
        present = [sums[key] for key in keys if key in sums]
        for one in adjusted(present, [], rows, grid, dim):
            sums[one.object, one.camera] = one
    return sums


def _sums(gallery: Gallery) -> Iterator[Finding]:
    engine = gallery.engine
    right = rebuilt_sums(engine)
    have = {(one.object, one.camera): one for one in engine.sums()}
    mend = "--repair adds its images up again"
    for key in sorted(right.keys() | have.keys()):
        where = f"object {key[0]!r}" + (f", camera {key[1]!r}" if key[1] else "")
        a, b = right.get(key), have.get(key)
        if a is None or b is None:
            text = "has no sum" if b is None else "has a sum, but no images"
            yield Finding(FAULT, "sum", where, text, mend)
        elif not same(a, b):
            yield Finding(FAULT, "sum", where, "its centroid is not its images' sum", mend)
    raw = _sqlite(gallery)
    if raw is None:
        return
    for name in care.empty_objects(raw):
        yield Finding(FAULT, "object", f"object {name!r}", "has no images", "--repair drops it")
    if stray := care.stray_sums(raw):
        yield Finding(FAULT, "sum", raw.name, f"{stray} sums of no object", "--repair drops them")
    for image in care.orphans(raw):
        mend = "--repair gives it to the object that its source names"
        where = _named(gallery, image)
        yield Finding(FAULT, "orphan", where, "its object is not there", mend, (image,))


def same(a: Sum, b: Sum) -> bool:
    """Whether two sums are equal to the last bit."""
    return (a.count, a.squares) == (b.count, b.squares) and np.array_equal(a.total, b.total)


def _index(gallery: Gallery) -> Iterator[Finding]:
    if gallery.folder is None:
        return
    mend = "--repair builds it anew (so does deleting it)"
    for level in ("image", "object"):
        record = cache.recorded(gallery.folder, level)
        where = str(gallery.folder / cache.FOLDER / f"{level}.json")
        bad = cache.damaged(gallery.folder, level)
        if bad:
            place = str(gallery.folder / cache.FOLDER / bad[0])
            yield Finding(FAULT, "index", place, "is not what was written", mend)
            continue
        if not record:
            continue
        meta = gallery.engine.meta()
        if record["of"].get("gallery") != meta.get("uuid"):
            yield Finding(FAULT, "index", where, "is of another gallery", mend)
        elif record["of"].get("generation") != meta["generation"]:
            yield Finding(FAULT, "index", where, "is of another embedder's vectors", mend)
        elif record["version"] > meta["version"]:
            yield Finding(FAULT, "index", where, "is newer than the gallery", mend)
        elif _differs(gallery, level):
            yield Finding(FAULT, "index", where, "does not hold the gallery's vectors", mend)


def _differs(gallery: Gallery, level: str) -> bool:
    """Whether the view, brought up to date, is not what the engine keeps."""
    keys, groups, rows = gallery.views.get(level).everything()
    other_keys, other_groups, other = gallery.views.whole(level).everything()
    return not (
        np.array_equal(keys, other_keys)
        and np.array_equal(groups, other_groups)
        and np.array_equal(rows, other)
    )


def _embedder(gallery: Gallery) -> Iterator[Finding]:
    meta = gallery.engine.meta()
    if gallery.folder is None or meta.get("embedder") is None:
        return
    from resight.errors import UserError
    from resight.models.embedder import Embedder

    place = gallery.folder / meta.get("embedder_folder", EMBEDDER)
    mend = "put the embedder back that filled it, or 'resight gallery reembed GALLERY MODEL'"
    try:
        found = Embedder.load(place, gallery.device)
    except UserError as error:
        yield Finding(FAULT, "embedder", str(place), str(error), mend)
        return
    if found.fingerprint() != meta["embedder"]:
        text = "is not the embedder that filled this gallery"
        yield Finding(FAULT, "embedder", str(place), text, mend)


def _photos(gallery: Gallery) -> Iterator[Finding]:
    roots = {root.id: root for root in gallery.engine.roots()}
    gone: dict[int, list[str]] = {}
    ids = gallery.engine.ids()
    for start in range(0, len(ids), 2000):
        for row in gallery.engine.rows(ids[start : start + 2000]):
            path = full_path(row, roots)
            if row.bytes is None or row.place is None or is_address(path):
                continue
            if not Path(path).exists():
                gone.setdefault(row.place.root, []).append(path)
    for root, paths in gone.items():
        text = f"{len(paths):,} photos are no longer there (the first: {paths[0]})"
        mend = f"moved? resight gallery move-root {gallery.folder} {roots[root].name} FOLDER"
        yield Finding(NOTE, "photos", f"root {roots[root].name}", text, mend)


def _outliers(gallery: Gallery) -> Iterator[Finding]:
    """Images whose similarity to the centroid of their object's others is unlike the rest."""
    engine = gallery.engine
    far = outliers(engine.sums(), engine.every_vector())
    for id_, similarity in zip(far.ids[:50].tolist(), far.similarities[:50], strict=True):
        (row,) = engine.rows([id_])
        text = (
            f"far from the other images of {row.object!r} (similarity {similarity:.2f}, usually "
            f"{far.usual:.2f}); is it the same thing?"
        )
        mend = f"resight gallery move {gallery.folder} {_named(gallery, row.id)} --to OBJECT"
        yield Finding(NOTE, "outlier", _named(gallery, row.id), text, mend, (row.id,))


def _named(gallery: Gallery, image: int) -> str:
    """An image as a person knows it."""
    try:
        rows = gallery.engine.rows([image])
    except (sqlite3.Error, ValueError):
        rows = []
    if not rows or rows[0].place is None:
        return f"image {image}"
    return full_path(rows[0], {root.id: root for root in gallery.engine.roots()})
