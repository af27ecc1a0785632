"""The index on disk: derived, beside the gallery, found again by fingerprint.

index/image.json    what it is of: gallery, generation, version, vectors; files and their checksums
index/image-*.faiss flat: the unit vectors, mapped when opened; coarse: the cells or the graph
index/image-*.npz   keys and groups

A new one is written under new names, then the JSON is replaced, then the old files go: whoever has
them mapped keeps them.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from resight.checksums import differing, file_sum
from resight.errors import UserError
from resight.files import atomic_path, read_json, write_json
from resight.search.index import Index, set_effort
from resight.search.view import View

FOLDER = "index"
_CHEAP = 2**27  # bytes whose checksums are compared at opening


def load(folder: Path, name: str, of: dict[str, Any]) -> View | None:
    """The index kept for `of` (gallery, generation), at whatever version; None where none is
    usable."""
    try:
        record = read_json(folder / FOLDER / f"{name}.json", "an index")
        if any(record["of"].get(key) != value for key, value in of.items()):
            return None
        files = {kind: folder / FOLDER / file for kind, file in record["files"].items()}
        if any(path.stat().st_size != record["sizes"][k] for k, path in files.items()):
            return None
        if sum(record["sizes"].values()) <= _CHEAP and damaged(folder, name):
            return None
        with np.load(files["keys"], allow_pickle=False) as arrays:
            keys, groups = arrays["keys"], arrays["groups"]
        flat = faiss.read_index(str(files["flat"]), faiss.IO_FLAG_MMAP_IFC)
        if flat.ntotal != len(keys):
            return None
        index = Index(flat, keys, groups, None, record["info"])
        if "coarse" in files:
            index.coarse = faiss.read_index(str(files["coarse"]), faiss.IO_FLAG_MMAP_IFC)
            set_effort(index, index.info["effort"])
        return View(index, int(record["version"]))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, UserError):
        return None  # derived: it is made again


def damaged(folder: Path, name: str) -> list[str]:
    """Files of the index that are not what was written, or are gone. Reads them all."""
    path = folder / FOLDER / f"{name}.json"
    if not path.is_file():
        return []
    try:
        record = json.loads(path.read_text())
        sums = {record["files"][kind]: value for kind, value in record["sums"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [path.name]
    return differing(folder / FOLDER, sums)


def recorded(folder: Path, name: str) -> dict[str, Any]:
    """What the JSON says; empty where there is none."""
    try:
        found = json.loads((folder / FOLDER / f"{name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def store(
    folder: Path,
    name: str,
    of: dict[str, Any],
    view: View,
    tell: Callable[[str], None] = lambda line: None,
) -> View:
    """Write the index of a view; the view on what was written, mapped.

    Where it can't be written (disk full, read-only), `tell` hears of it and the view stays as
    it is.
    """
    place, index = folder / FOLDER, view.base
    stem = f"{name}-{of['generation']}-{view.version}"
    files = {"flat": f"{stem}.faiss", "keys": f"{stem}.npz"}
    if index.coarse is not None:
        files["coarse"] = f"{stem}.coarse.faiss"
    try:
        with atomic_path(place / files["flat"]) as temporary:
            faiss.write_index(index.flat, str(temporary))
        with atomic_path(place / files["keys"]) as temporary, open(temporary, "wb") as file:
            np.savez(file, keys=index.keys, groups=index.groups)
        if index.coarse is not None:
            with atomic_path(place / files["coarse"]) as temporary:
                faiss.write_index(index.coarse, str(temporary))
        sums = {kind: file_sum(place / file) for kind, file in files.items()}
        sizes = {kind: (place / file).stat().st_size for kind, file in files.items()}
        record = {"of": of, "version": view.version, "info": index.info, "files": files}
        write_json(place / f"{name}.json", record | {"sums": sums, "sizes": sizes})
    except (OSError, RuntimeError) as error:
        tell(f"the index was not kept ({error}); it is made again next time")
        with contextlib.suppress(OSError):
            for half in files.values():  # it only takes the room that is left
                (place / half).unlink(missing_ok=True)
        return view
    killed = time.time() - 3600  # whoever writes it still is quicker
    for old in place.glob(f"*{name}*"):
        with contextlib.suppress(OSError):
            dead = old.name.startswith(".") and old.stat().st_mtime < killed
            if dead or (old.name.startswith(f"{name}-") and old.name not in files.values()):
                old.unlink()
    return load(folder, name, of) or view


def drop(folder: Path) -> None:
    """Remove all that is derived; first what names the others, in case we are killed between."""
    files = sorted((folder / FOLDER).glob("*"), key=lambda path: path.suffix != ".json")
    for path in files:
        path.unlink(missing_ok=True)
