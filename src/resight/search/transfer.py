"""From one engine to another: rows, vectors, small pictures, sums, and what was left out."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np

from resight.errors import UserError
from resight.search.editing import change
from resight.search.engines.contract import Engine, Place

_CARRIED = ("level", "grid", "dim", "index", "recall_floor", "embedder", "calibration")


def copy_rows(
    source: Engine,
    target: Engine,
    progress: Callable[[int, int], None] = lambda done, total: None,
    block: int = 256,
) -> int:
    """Copy every image, with its id, and go on where an earlier call stopped; how many there are.

    Raises UserError when the target holds other images, or what arrived is not what was sent.
    """
    meta, own = source.meta(), target.meta()
    if own.get("copied_from") not in (None, meta.get("uuid")):
        raise UserError(f"{target.name}: holds a copy of another gallery; give a new one")
    if target.counts()[0] and own.get("copied_from") is None:
        raise UserError(f"{target.name}: holds images of its own; give a new one")
    roots: dict[int, int] = {}
    with target.writing("copying a gallery") as writer:
        writer.set_meta(copied_from=meta.get("uuid"), **{k: meta[k] for k in _CARRIED if k in meta})
        there = {root.name: root.id for root in target.roots()}
        for root in source.roots():
            roots[root.id] = there.get(root.name) or writer.add_root(root.name, root.path).id
    total = source.counts()[0]
    have = target.ids()
    after, done = (have[-1] if have else 0), len(have)
    progress(done, total)
    while ids := source.ids(after, block):
        found, _, vectors = source.vectors(ids)
        by_id = dict(zip(found.tolist(), vectors, strict=True))
        rows = []
        for row in source.rows(ids, thumbnails=True):
            place = row.place
            if place is not None:
                place = Place(roots[place.root], place.path, place.box)
            rows.append(replace(row, place=place, vector=by_id.get(row.id), object_id=0))
        with target.writing("copying a gallery") as writer:
            change(target, writer, put=rows)
        after, done = ids[-1], done + len(rows)
        progress(done, total)
    _copy_left_out(source, target, roots)
    if (source.counts(), checksum(source)) != (target.counts(), checksum(target)):
        raise UserError(
            f"{target.name}: is not what {source.name} holds (counts or checksums differ); was it "
            "changed meanwhile? Copy into a new one"
        )
    return total


def _copy_left_out(source: Engine, target: Engine, roots: dict[int, int]) -> None:
    entries = source.every_left_out()
    while part := list(islice(entries, 2000)):
        moved = [
            replace(one, place=one.place._replace(root=roots.get(one.place.root, one.place.root)))
            for one in part
        ]
        with target.writing("copying a gallery") as writer:
            writer.leave_out(moved)


def checksum(engine: Engine) -> int:
    """Over all ids and vectors, rising; the same wherever a gallery is kept."""
    ids_sum = vectors_sum = 0
    for ids, _, vectors in engine.every_vector():
        ids_sum = zlib.crc32(ids.tobytes(), ids_sum)
        vectors_sum = zlib.crc32(np.ascontiguousarray(vectors).tobytes(), vectors_sum)
    return ids_sum << 32 | vectors_sum
