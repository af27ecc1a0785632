"""Mending what `check` has found, and giving a gallery another embedder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from resight.checksums import file_sum
from resight.data.addresses import to_open
from resight.data.decode import BadImage, content_of
from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.files import read_json, write_json
from resight.search import cache
from resight.search.adding import fault_of
from resight.search.check import FAULT, Finding, check, rebuilt_sums, same, summed
from resight.search.engines import sqlite_care as care
from resight.search.engines.contract import Row
from resight.search.engines.sqlite import SqliteEngine
from resight.search.gallery import DATABASE, EMBEDDER, RECORD, Gallery
from resight.search.incoming import full_path
from resight.search.sums import grid_of

if TYPE_CHECKING:
    from resight.features.compute import EmbedOptions
    from resight.models.export.choose import Network

Progress = Callable[[int, int], None]
Tell = Callable[[str], None]


def open_damaged(folder: Path, tell: Tell = lambda line: None) -> Gallery:
    """Open a gallery whose database SQLite refuses: what can be read is saved into a new one.

    Raises UserError when there is no gallery, or nothing can be read.
    """
    read_json(folder / RECORD, "a gallery (made by 'resight index')")
    saved, kept = care.salvage(folder / DATABASE)
    tell(f"{saved:,} images were saved; the damaged file is kept as {kept}")
    cache.drop(folder)
    gallery = Gallery.open(folder)
    if gallery.engine.meta().get("embedder") is None and (folder / EMBEDDER).is_dir():
        gallery.forget_embedder()  # what filled it was lost with the settings: that one did
        made = gallery.need_embedder().fingerprint()
        with gallery.engine.writing("repairing") as writer:
            writer.set_meta(embedder=made, level=gallery.level)
    return gallery


def repair(
    gallery: Gallery, findings: Sequence[Finding], tell: Tell = lambda line: None
) -> Gallery:
    """Mend the faults of a gallery on disk; `tell` hears what was done.

    Returns the gallery, opened anew where its database had to be replaced.

    Raises UserError for another engine than SQLite.
    """
    engine = _sqlite(gallery)
    faults = [one for one in findings if one.kind == FAULT]
    if any(one.what == "database" for one in faults) and gallery.folder is not None:
        gallery.close()
        gallery = open_damaged(gallery.folder, tell)
        engine = _sqlite(gallery)
        faults = [one for one in check(gallery) if one.kind == FAULT]
    kinds = {one.what for one in faults}
    if not kinds:
        return gallery
    bad = sorted({i for one in faults if one.what in ("vector", "no vector") for i in one.ids})
    if bad:
        _embed_again(gallery, engine, bad, tell)
    stray = [i for one in faults if one.what == "stray vector" for i in one.ids]
    if stray:
        care.drop(engine, vectors=stray)
        tell(f"{len(stray):,} vectors of no image were dropped")
    orphans = [i for one in faults if one.what == "orphan" for i in one.ids]
    if orphans:
        care.adopt(engine, orphans)
        tell(f"{len(orphans):,} images are back with the objects that their sources name")
    right = rebuilt_sums(engine)
    have = {(one.object, one.camera): one for one in engine.sums()}
    stale = [one for key, one in have.items() if key not in right]
    wrong = [key for key in right if key not in have or not same(right[key], have[key])]
    if stale or wrong or kinds & {"object", "sum"}:
        care.replace_sums(engine, [right[key] for key in wrong], stale)
        tell(f"{len(stale) + len(wrong):,} sums were made anew")
    gallery.views.forget()
    tell("the index will be built anew")
    if "embedder" in kinds:
        tell("the embedder can't be mended here: put it back, or 'resight gallery reembed'")
    return gallery


def _embed_again(gallery: Gallery, engine: SqliteEngine, ids: list[int], tell: Tell) -> None:
    roots = {root.id: root for root in engine.roots()}
    rows = engine.rows(ids)
    there = [row for row in rows if _unchanged(row, full_path(row, roots))]
    vectors: dict[int, Any] = {}
    if there and gallery.folder is not None and engine.meta().get("embedder") is not None:
        from resight.features.compute import embed_rows

        found, _ = embed_rows(gallery.network(len(there)), _images(gallery, there))
        dim = engine.meta().get("dim")
        pairs = zip(there, found, strict=True)
        vectors = {row.id: v for row, v in pairs if fault_of(v, dim) is None}
    if vectors:
        care.put_vectors(engine, vectors, engine.generation())
        tell(f"{len(vectors):,} images were embedded again")
    lost = [i for i in ids if i not in vectors]
    if lost:
        names = [full_path(row, roots) or f"image {row.id}" for row in rows if row.id in lost]
        care.drop(engine, images=lost)
        first = f" (the first: {names[0]})" if names else ""
        tell(f"{len(lost):,} images whose vectors can't be made again were removed{first}")


def _unchanged(row: Row, path: str) -> bool:
    if row.content is None:
        return False
    try:
        content = content_of(to_open(path))
        found = sha256(content).hexdigest() if isinstance(content, bytes) else file_sum(path)
    except (OSError, BadImage):
        return False
    return found == row.content


def _images(gallery: Gallery, rows: Sequence[Row]) -> ImageSet:
    """Rows as an image set of their files."""
    roots = {root.id: root for root in gallery.engine.roots()}
    boxes = [list(row.place.box) if row.place and row.place.box else None for row in rows]
    table = pl.DataFrame(
        {
            "path": [full_path(row, roots) for row in rows],
            "object": pl.Series([row.object for row in rows], dtype=pl.String),
            "camera": pl.Series([row.camera for row in rows], dtype=pl.String),
            "split": pl.Series([row.split for row in rows], dtype=pl.String),
            "box": pl.Series(boxes, dtype=pl.List(pl.Float64())),
        }
    )
    return ImageSet(normalise(table), Path(os.sep), gallery.engine.name)


def _sqlite(gallery: Gallery) -> SqliteEngine:
    if not isinstance(gallery.engine, SqliteEngine):
        raise UserError(
            f"{gallery.engine.name}: only galleries in a folder can be mended or embedded anew in "
            "place; copy it into one (resight gallery copy)"
        )
    return gallery.engine


def reembed(
    gallery: Gallery,
    embedder: Network,
    *,
    runtime: str | None = None,
    drop_missing: bool = False,
    options: EmbedOptions | None = None,
    progress: Progress = lambda done, total: None,
    tell: Tell = lambda line: None,
) -> int:
    """Give a gallery on disk another embedder; how many images it has embedded.

    Vectors are made beside those in use, which go on being searched and added to; then all is
    switched in one transaction. An interrupted call goes on when made again. `runtime`: what
    embeds, see `Gallery`.

    Raises UserError: photos that are gone or can't be read, unless `drop_missing` removes them.
    """
    from resight.features.compute import EmbedOptions, embed_blocks
    from resight.models.export.choose import for_use

    engine = _sqlite(gallery)
    if gallery.folder is None:
        raise UserError("a gallery in memory has no generations; make a new one")
    new, made = engine.generation() + 1, embedder.fingerprint()
    meta = engine.meta()
    if meta.get("embedder") == made:
        return 0
    name = f"{EMBEDDER}-{new}"
    if meta.get("next") not in (None, made):  # begun with another embedder
        shutil.rmtree(gallery.folder / name, ignore_errors=True)
        with engine.writing("a new generation") as writer:
            writer.script(f"DROP TABLE IF EXISTS vectors_{new:d}")  # type: ignore[attr-defined]
    care.begin_generation(engine, new)
    with engine.writing("a new generation") as writer:
        writer.set_meta(next=made)
    embedder.save(gallery.folder / name)
    network = for_use(embedder, runtime, home=gallery.folder / name, tell=tell)
    count = 0
    while ids := care.without_vector(engine, new):
        rows = engine.rows(ids)
        bad: list[tuple[int, str]] = []
        total = engine.counts()[0]
        images = _images(gallery, rows)
        for block in embed_blocks(network, images, 256, options=options or EmbedOptions()):
            faults = {at: str(error) for at, error in block.bad}
            good = {}
            for at, vector in enumerate(block.vectors, block.start):
                reason = faults.get(at) or fault_of(vector, embedder.dim)
                if reason is None:
                    good[rows[at].id] = vector
                else:
                    bad.append((rows[at].id, reason))
            care.put_vectors(engine, good, new)
            count += len(good)
            progress(total - len(ids) + block.start + len(block.vectors), total)
        if bad and not drop_missing:
            raise UserError(
                f"{len(bad):,} of the {total:,} photos can't be embedded (the first: {bad[0][1]}); "
                "bring them back and run it again, or remove them with --drop-missing"
            )
        care.drop(engine, images=[id_ for id_, _ in bad])
    grid = next((grid_of(rows) for *_, rows in engine.every_vector(generation=new)), 1.0)
    blocks = engine.every_vector(generation=new)
    sums = summed(engine, blocks, grid, embedder.dim)
    care.switch(
        engine,
        new,
        list(sums.values()),
        **{"embedder": made, "embedder_folder": name, "dim": embedder.dim, "grid": grid},
        next=None,
        calibration=None,
    )
    write_json(gallery.folder / RECORD, {"format": 2, "embedder": name})
    old = gallery.folder / meta.get("embedder_folder", EMBEDDER)
    shutil.rmtree(old, ignore_errors=True)
    gallery.forget_embedder()
    return count
