"""The overview of a gallery: its map, and what a person should look at. Derived, beside the index.

index/overview.npz    positions, doubtful pairs and outliers by image id; what they were made of

python -m resight.search.overview GALLERY makes it, in a process of its own and at low priority,
so that no search waits for it. Positions are made anew only where the vectors are other ones.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.files import atomic_open
from resight.search.cache import FOLDER
from resight.search.doubtful import Far, near_pairs, outliers
from resight.search.engines.contract import Engine
from resight.search.index import Index, build, new_flat, unit
from resight.search.layout import NEIGHBOURS, TSNE, have_tsne, on_plane

FILE = "overview.npz"
LEAST, MOST = 0.9, 2000  # similarity of pairs that are kept; how many pairs and outliers
SHOWN = 50_000  # images on a map; of more an even sample
_FORMAT = 1
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Overview:
    """`told`: gallery, generation, version, fingerprint, method, images, seconds, usual.

    `ids` (N,) rising and `xy` (N, 2) in [-1, 1]: the map. `pairs` (P, 2) image ids, `alike` (P,)
    their similarities, the nearest first. `far` (F,) image ids, `far_objects` the ids of their
    objects, `far_alike` their similarities to the others, the farthest first.
    """

    told: dict[str, Any]
    ids: Ints
    xy: NDArray[np.float32]
    pairs: Ints
    alike: NDArray[np.float64]
    far: Ints
    far_objects: Ints
    far_alike: NDArray[np.float64]


def load(folder: Path, of: dict[str, Any]) -> Overview | None:
    """The overview kept for `of` (gallery, generation), at whatever version; None without one."""
    try:
        with np.load(folder / FOLDER / FILE, allow_pickle=False) as kept:
            told = json.loads(str(kept["told"]))
            arrays = {name: kept[name] for name in Overview.__annotations__ if name != "told"}
    except (OSError, ValueError, KeyError, EOFError):
        return None  # derived: it is made again
    if not isinstance(told, dict) or told.get("format") != _FORMAT:
        return None
    if any(told.get(key) != value for key, value in of.items()):
        return None
    return Overview(told, **arrays)


def store(folder: Path, made: Overview) -> None:
    """Keep it, whole or not at all. Raises OSError."""
    arrays = {name: getattr(made, name) for name in Overview.__annotations__ if name != "told"}
    with atomic_open(folder / FOLDER / FILE) as file:
        np.savez(file, told=np.array(json.dumps(made.told)), **arrays)


def identity(meta: dict[str, Any]) -> dict[str, Any]:
    """What an overview must be of, from an engine's settings."""
    return {"gallery": meta.get("uuid"), "generation": meta["generation"]}


def make(engine: Engine, before: Overview | None = None, threads: int = 1) -> Overview:
    """The overview of a gallery as it is now; `before`: an earlier one of it."""
    begun = time.monotonic()
    meta = engine.meta()
    index, far, fingerprint = _read(engine, int(meta.get("dim", 0)))
    told: dict[str, Any] = identity(meta) | {"format": _FORMAT, "version": int(meta["version"])}
    told |= {"fingerprint": fingerprint, "images": len(index), "usual": far.usual}
    pairs = near_pairs(index, _contents(engine, index.keys), LEAST, MOST)
    if before is not None and not _another_map(before, fingerprint):
        ids, xy, method = before.ids, before.xy, str(before.told["method"])
    else:
        ids, xy, method = _map(index, before, threads)
    told |= {"method": method, "seconds": round(time.monotonic() - begun, 3)}
    some = slice(0, MOST)
    found = far.ids[some], far.objects[some], far.similarities[some]
    return Overview(told, ids, xy, pairs.ids, pairs.similarities, *found)


def _another_map(before: Overview, fingerprint: str) -> bool:
    """Whether the vectors are other ones, or could be laid out better now."""
    better = before.told["method"] != TSNE and have_tsne() and len(before.ids) > NEIGHBOURS
    return bool(before.told["fingerprint"] != fingerprint or better)


def _read(engine: Engine, dim: int) -> tuple[Index, Far, str]:
    """All vectors as an index, the outliers, and the vectors' fingerprint, in one pass."""
    flat, digest = new_flat(dim), hashlib.sha256()
    keys, groups = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]

    def blocks() -> Any:
        for ids, objects, vectors in engine.every_vector():
            digest.update(np.ascontiguousarray(ids).tobytes())
            digest.update(np.ascontiguousarray(vectors).tobytes())
            keys.append(ids)
            groups.append(objects)
            flat.add(unit(vectors))
            yield ids, objects, vectors

    far = outliers(engine.sums(), blocks())
    index = build(flat, np.concatenate(keys), np.concatenate(groups))
    return index, far, digest.hexdigest()


def _contents(engine: Engine, ids: Ints) -> Ints:
    """A number for each image (N,), equal where the same part of a file is shown; 0: none."""
    numbers: dict[tuple[str, Any], int] = {}
    found = dict[int, int]()
    for start in range(0, len(ids), 2000):
        for row in engine.rows(ids[start : start + 2000].tolist()):
            if row.content is not None:
                of = row.content, row.place.box if row.place is not None else None
                found[row.id] = numbers.setdefault(of, len(numbers) + 1)
    return np.array([found.get(id_, 0) for id_ in ids.tolist()], np.int64)


def _map(
    index: Index, before: Overview | None, threads: int
) -> tuple[Ints, NDArray[np.float32], str]:
    """Ids and positions of all images, or of an even sample, and how they were laid out."""
    at = np.unique(np.linspace(0, len(index) - 1, min(len(index), SHOWN)).astype(np.int64))
    whole = len(at) == len(index)
    rows, ids = index.rows[at], index.keys[at]
    shown = index if whole else build(new_flat(rows.shape[1], rows), ids, index.groups[at])
    near = np.zeros((len(at), min(NEIGHBOURS, max(0, len(at) - 1))), np.int64)
    alike = np.zeros(near.shape, np.float32)
    for start in range(0, len(at), 1024):
        asked = np.ascontiguousarray(rows[start : start + 1024])
        wide = near.shape[1] + 1
        found, places = shown.search(asked, wide)
        part, own = slice(start, start + len(asked)), np.arange(start, start + len(asked))
        alike[part], near[part] = _others(found[:, :wide], places[:, :wide], own)
    old = None
    if before is not None and len(before.ids):
        place = np.minimum(np.searchsorted(before.ids, ids), len(before.ids) - 1)
        old = np.where((before.ids[place] == ids)[:, None], before.xy[place], np.nan)
    xy, method = on_plane(rows, near, alike, old, threads)
    return ids, xy, method


def _others(
    similar: NDArray[np.float32], places: Ints, own: Ints
) -> tuple[NDArray[np.float32], Ints]:
    """Neighbours (n, k + 1) without the one that asks (or else the last), (n, k) each."""
    mine = places == own[:, None]
    mine[:, -1] |= ~mine.any(axis=1)
    order = np.argsort(mine, axis=1, kind="stable")[:, :-1]
    near = np.take_along_axis(places, order, 1)
    alike = np.take_along_axis(similar, order, 1)
    # A coarse index may find fewer; then the one that asks stands for them.
    lost = near < 0
    return np.where(lost, -1.0, alike).astype(np.float32), np.where(lost, own[:, None], near)


def make_in(folder: Path) -> bool:
    """Make and keep the overview of a gallery on disk; False where another process does.

    Raises UserError and OSError.
    """
    from resight.search.gallery import Gallery

    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    handle = os.open(place / "overview.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        with Gallery.open(folder) as gallery:
            engine = gallery.engine
            meta = engine.meta()
            before = load(folder, identity(meta))
            if before is None or before.told["version"] != meta["version"]:
                store(folder, make(engine, before))
        return True
    finally:
        os.close(handle)


def main() -> int:
    """The process itself."""
    import faiss

    os.nice(5)
    faiss.omp_set_num_threads(1)
    try:
        make_in(Path(sys.argv[1]))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
