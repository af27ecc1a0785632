"""What a source brings: its rows, the root they lie below, and what it says anew."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from resight.data.addresses import is_address
from resight.data.imageset import SCHEMA, ImageSet
from resight.errors import UserError
from resight.search.engines.contract import Engine, Place, Root, Row

AWAY = "addresses:"  # the path of the root of images at addresses, whose places hold them whole


def rows_of(images: ImageSet, paths: Sequence[str], root: Root) -> Iterator[Row]:
    """A row of each image, as the source tells it. `paths`: of their files, absolute and plain."""
    own = [name for name in images.table.columns if name not in SCHEMA]
    for path, found in zip(paths, images.table.iter_rows(named=True), strict=True):
        below = below_root(path, root)
        box = tuple(found["box"]) if found["box"] is not None else None
        columns = {name: _plain(found[name]) for name in own if found[name] is not None}
        yield Row(
            place=Place(root.id, below, box),
            object=found["object"],
            given=found["object"],
            camera=found["camera"],
            split=found["split"],
            columns=columns,
        )


def below_root(path: str, root: Root) -> str:
    """How a row's place in a root says where its file is: an address stands whole."""
    if is_address(path):
        return "".join(path)  # as it may be seen, and no more
    top = root.path + os.sep
    below = path[len(top) :] if path.startswith(top) else os.path.relpath(path, root.path)
    return below.replace(os.sep, "/")


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    return value if isinstance(value, str | int | float | bool | list) else str(value)


def root_for(engine: Engine, images: ImageSet, paths: Sequence[str]) -> Root:
    """The root that these images are below: one that is there, or a new one.

    Raises UserError for files and addresses together.
    """
    away = sum(map(is_address, paths))
    if away:
        if away < len(paths):
            raise UserError(
                f"{images.source}: files and addresses together; add them one after the other"
            )
        return _root_of(engine, "addresses", AWAY)
    top = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else os.sep
    holding = [r for r in engine.roots() if top == r.path or top.startswith(r.path + os.sep)]
    if holding:
        return max(holding, key=lambda root: len(root.path))
    folder = os.path.abspath(images.root) if str(images.root) not in ("", ".") else top
    if not (top == folder or top.startswith(folder + os.sep)) or folder == os.sep:
        folder = top
    return _root_of(engine, os.path.basename(folder) or "photos", folder)


def _root_of(engine: Engine, base: str, folder: str) -> Root:
    found = next((root for root in engine.roots() if root.path == folder), None)
    if found is not None:
        return found
    taken = {root.name for root in engine.roots()}
    name = next(n for n in _numbered(base) if n not in taken)
    with engine.writing("a new root") as writer:
        return writer.add_root(name, folder)


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1


def full_path(row: Row, roots: dict[int, Root]) -> str:
    """Where a row's file is; "" where it never had one."""
    if row.place is None:
        return ""
    root, path = roots.get(row.place.root), row.place.path
    if root is not None and root.path == AWAY:
        return path
    if root is not None and not path.startswith("..") and os.sep == "/":
        return f"{root.path}/{path}"
    return os.path.normpath(os.path.join(root.path if root else "", path))


def told_anew(old: Row, new: Row) -> bool:
    """Whether the source says something else than it did."""
    before = (old.given, old.camera, old.split, old.columns)
    return before != (new.given, new.camera, new.split, new.columns)


def relabel(old: Row, new: Row) -> Row:
    """`old` with what the source says now; its object stays where a person has moved it, unless
    the source has changed its mind."""
    object_ = new.given if old.given != new.given else old.object
    told = replace(old, given=new.given, camera=new.camera, split=new.split, columns=new.columns)
    return replace(told, object=object_)
