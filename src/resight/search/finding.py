"""Which images are meant: by path, by object, by a filter; and roots that have moved."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from resight.data.addresses import absolute, is_address
from resight.errors import UserError
from resight.search.engines.contract import Engine, Root
from resight.search.filters import Filter, parse
from resight.search.incoming import AWAY, below_root
from resight.search.view import Ints

_FIXED = ("id", "object", "path", "camera", "split", "bytes", "width", "height")


def by_id_or_path(engine: Engine, images: Collection[int | str | Path]) -> list[int]:
    """Ids of images given by id or path. Raises UserError naming the first that is not here."""
    ids = [int(one) for one in images if isinstance(one, int)]
    there = {row.id for row in engine.rows(ids)}
    for id_ in ids:
        if id_ not in there:
            raise UserError(f"image {id_}: not in this gallery")
    roots = engine.roots()
    for path in images:
        if isinstance(path, int):
            continue
        found = at_path(engine, roots, absolute(path))
        if not found:
            raise UserError(f"{path}: not in this gallery")
        ids += found
    return ids


def of_object(engine: Engine, object: str) -> list[int]:
    """Ids of an object's images. Raises UserError when it is not here."""
    found = engine.images_of(object)
    if not found:
        raise UserError(f"object {object!r}: not in this gallery")
    return found


def at_path(engine: Engine, roots: Sequence[Root], path: str) -> list[int]:
    """Ids of the images of a file, by its absolute path."""
    return [
        id_
        for root in roots
        if is_address(path) == (root.path == AWAY)
        for id_ in engine.images_at(root.id, below_root(path, root))
    ]


def passing(engine: Engine, where: str) -> list[int]:
    """Ids of the images that pass a filter. Raises UserError for a wrong one."""
    ids, _ = passed(engine, parse(where))
    return [int(id_) for id_ in ids]


def passed(
    engine: Engine, where: Filter | None, without_cameras: Sequence[str] = ()
) -> tuple[Ints, Ints]:
    """Ids and object ids (0: unknown) of the images that pass a filter and are of none of these
    cameras, ids rising. Raises UserError for a column that no image has.
    """
    names = {"object_id"} | ({"camera"} if without_cameras else set())
    names |= where.columns if where is not None else set()
    found = engine.table(names)
    if where is not None and not where.columns <= found.keys():
        where.check(sorted({*_FIXED, *user_columns(engine)} | found.keys() - {"object_id"}))
    table = pl.DataFrame({name: pl.Series(name, v, strict=False) for name, v in found.items()})
    good = np.ones(table.height, bool)
    if where is not None:
        good &= where.mask(table)
    if without_cameras:
        good &= ~table["camera"].is_in(list(without_cameras)).fill_null(False).to_numpy()
    return table["id"].to_numpy()[good], table["object_id"].to_numpy()[good]


def check_columns(engine: Engine, where: Filter) -> None:
    """Raise UserError for a column that no image has; the table is read only where the first
    images don't have it."""
    some = {*_FIXED, *user_columns(engine)}
    if not where.columns <= some:
        where.check(sorted(some | engine.table(where.columns).keys()))


def user_columns(engine: Engine) -> list[str]:
    """The user's own columns that the first thousand images have."""
    some = engine.rows(engine.ids(limit=1000))
    return list(dict.fromkeys(name for row in some for name in row.columns))


def move_root(engine: Engine, root: str, folder: str | Path) -> tuple[int, int]:
    """Give a root another folder; how many of its first 100 photos are there, and of how many.

    Raises UserError: no root of this name, no such folder, or none of the photos in it.
    """
    roots = {one.name: one for one in engine.roots()}
    if root not in roots:
        names = ", ".join(roots) or "none"
        raise UserError(f"{root}: no root of this gallery (its roots: {names})")
    if roots[root].path == AWAY:
        raise UserError(f"{root}: these images lie at addresses, not in a folder; add them anew")
    new = Path(os.path.abspath(folder))
    if not new.is_dir():
        raise UserError(f"{folder}: no such folder")
    ids = engine.ids(limit=10_000)
    places = [row.place for row in engine.rows(ids) if row.place is not None]
    paths = [place.path for place in places if place.root == roots[root].id][:100]
    there = sum((new / path).exists() for path in paths)
    if paths and not there:
        raise UserError(f"{folder}: not one of its photos is there (the first: {paths[0]})")
    with engine.writing("moving a root") as writer:
        writer.move_root(roots[root].id, str(new))
    return there, len(paths)
