"""One change of a gallery: rows and the sums of their objects, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from resight.errors import UserError
from resight.search.engines.contract import Engine, LeftOut, Place, Row, Writer
from resight.search.sums import adjusted, grid_of

REMOVED, COPY, CONFLICT, UNUSABLE = "removed", "copy", "conflict", "unusable"


def change(
    engine: Engine, writer: Writer, put: Sequence[Row] = (), delete: Sequence[int] = ()
) -> list[int]:
    """Keep rows and forget others, and adjust the sums; inside `engine.writing`, once.

    Rows with an id take the place of what is there; without a vector they keep theirs. Returns
    the ids of `put`.
    """
    present = [row.id for row in put if row.id]
    ids, _, stored = engine.vectors([*present, *delete])
    vectors = dict(zip(ids.tolist(), stored, strict=True))
    before = {row.id: row for row in engine.rows([*present, *delete])}
    new = [row.vector for row in put if row.vector is not None]
    grid, dim = _measures(engine, writer, new)
    gone = [replace(before[i], vector=vectors[i]) for i in delete if i in before and i in vectors]
    come: list[Row] = []
    for row in put:
        old = before.get(row.id)
        held = vectors.get(row.id)
        vector = row.vector if row.vector is not None else held
        if old is not None and held is not None:
            same = (old.object, old.camera) == (row.object, row.camera) and row.vector is None
            if same:
                continue
            gone.append(replace(old, vector=held))
        if vector is not None:
            come.append(row if row.vector is not None else replace(row, vector=vector))
    if delete:
        writer.delete([i for i in delete if i in before])
    kept = writer.put(put)
    names = {row.object for row in (*gone, *come) if row.object is not None}
    if names:
        writer.set_sums(adjusted(engine.sums(names), gone, come, grid, dim))
    return kept


def _measures(engine: Engine, writer: Writer, new: Sequence[object]) -> tuple[float, int]:
    """The grid of the sums and the dimensions, set by the first vectors."""
    meta = engine.meta()
    if "grid" not in meta and len(new):
        first = np.asarray(new, np.float32)
        meta |= {"grid": grid_of(first), "dim": int(first.shape[1])}
        writer.set_meta(grid=meta["grid"], dim=meta["dim"])
    return float(meta.get("grid", 1.0)), int(meta.get("dim", 0))


def remove(engine: Engine, ids: Sequence[int], *, remember: bool = True) -> int:
    """Remove images; how many there were. An object without images is no more.

    `remember`: a later `add` of the folder leaves these files out, as a person took them away.
    """
    with engine.writing("removing images") as writer:
        rows = engine.rows(sorted(set(ids)))
        change(engine, writer, delete=[row.id for row in rows])
        if remember:
            writer.leave_out(
                [
                    LeftOut(row.place, row.bytes, row.mtime, row.content, REMOVED)
                    for row in rows
                    if row.place is not None
                ]
            )
    return len(rows)


def move(engine: Engine, ids: Sequence[int], object: str | None) -> int:
    """Give images to another object (None: unknown); how many changed hands.

    Raises UserError: a name without a letter.
    """
    if object is not None and not object.strip():
        raise UserError("an object needs a name; give one, or none at all for unknown")
    with engine.writing("moving images") as writer:
        rows = [row for row in engine.rows(sorted(set(ids))) if row.object != object]
        change(engine, writer, put=[replace(row, object=object) for row in rows])
    return len(rows)


def places_of(rows: Sequence[Row]) -> list[Place]:
    """The places of rows that have one."""
    return [row.place for row in rows if row.place is not None]
