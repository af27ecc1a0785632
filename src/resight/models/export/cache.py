"""Graphs that were made before: beside their embedder, or in the user's cache.

    EMBEDDER/onnx/plain-0123456789abcdef.onnx     the graph
    EMBEDDER/onnx/plain-0123456789abcdef.json     of which embedder, by which versions, checksum

Where the embedder's folder can't be written to, or there is none, the same lies in
RESIGHT_CACHE, else in XDG_CACHE_HOME/resight, else in ~/.cache/resight. All of it may be deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from resight.files import atomic_path, write_bytes, write_json

FORMAT = 1
FOLDER = "onnx"


@dataclass(frozen=True)
class Kept:
    """A graph (the bytes of its file), and its record."""

    graph: bytes
    record: dict[str, Any]
    path: Path


def beside(folder: Path) -> Path:
    """Where the graphs of an embedder's folder lie."""
    return folder / FOLDER


def user_folder() -> Path:
    """Where the graphs lie of embedders that are in no folder, or in one that is not ours."""
    own = os.environ.get("RESIGHT_CACHE")
    if own:
        return Path(own) / FOLDER
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "resight" / FOLDER


def versions() -> dict[str, Any]:
    """What a graph is made with and run by: another of these, and it is made anew."""
    found: dict[str, Any] = {"format": FORMAT}
    for package in ("torch", "onnxruntime"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def name_of(fingerprint: str, variant: str) -> str:
    """The name of a graph's files, without ending."""
    return f"{variant}-{fingerprint[:16]}"


def find(fingerprint: str, variant: str, places: Sequence[Path]) -> Kept | None:
    """The graph of an embedder in the first of these places that has it, whole.

    Found further back it is brought to the first place too, for whoever looks there only.
    """
    name = name_of(fingerprint, variant)
    for number, place in enumerate(places):
        try:
            record = json.loads((place / f"{name}.json").read_text(encoding="utf-8"))
            graph = (place / f"{name}.onnx").read_bytes()
        except (OSError, ValueError):
            continue
        if not isinstance(record, dict) or record.get("fingerprint") != fingerprint:
            continue
        if record.get("versions") != versions():
            continue
        if record.get("sha256") != hashlib.sha256(graph).hexdigest():
            continue
        if number:
            with contextlib.suppress(OSError):
                _link(place / f"{name}.onnx", places[0] / f"{name}.onnx")
                write_json(places[0] / f"{name}.json", record)
        return Kept(graph, record, place / f"{name}.onnx")
    return None


def keep(
    fingerprint: str, variant: str, graph: bytes, about: dict[str, Any], places: Sequence[Path]
) -> Kept:
    """Write a graph into the first of these places that can be written to.

    Where none can, it is of use now and made again next time.
    """
    name = name_of(fingerprint, variant)
    record = {"fingerprint": fingerprint, "variant": variant, "versions": versions()}
    record |= {"sha256": hashlib.sha256(graph).hexdigest()} | about
    for place in places:
        with contextlib.suppress(OSError):
            write_bytes(place / f"{name}.onnx", graph)
            write_json(place / f"{name}.json", record)  # last: now it is there
            return Kept(graph, record, place / f"{name}.onnx")
    return Kept(graph, record, Path(f"{name}.onnx"))


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where that can't be."""
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            temporary.write_bytes(source.read_bytes())
