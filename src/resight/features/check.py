"""What is wrong with a features folder: damaged files, another embedder, collapsed vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from resight.checksums import differing
from resight.data.imageset import ImageSet, normalise
from resight.data.labels import Finding
from resight.errors import UserError
from resight.features.collapsed import NOTE, collapsed
from resight.features.store import (
    AGAIN,
    EMBEDDER,
    Features,
    open_shard,
    read_images,
    read_record,
    shard_name,
    shard_sums,
)


def check_features(folder: Path) -> tuple[list[Finding], ImageSet]:
    """Read all of a features folder and compare its checksums -> findings, and its image set.

    The set is empty where its table is damaged. Raises UserError when the folder's record can't be
    read: nothing can be said then.
    """
    info = read_record(folder)
    findings: list[Finding] = []
    try:
        images = read_images(folder, info)
    except UserError as fault:
        findings.append(Finding("damaged-table", "error", 1, str(fault), unit="files"))
        images = ImageSet(normalise(pl.DataFrame({"path": []})), folder, str(folder))
    findings += _embedder(folder, info)
    bad: list[str] = []
    if not info.get("complete"):
        text = f"not all images are embedded yet; {AGAIN}"
        findings.append(Finding("unfinished-features", "error", info["rows"], text))
    else:
        bad = _bad_shards(folder, info)
    if bad:
        text = f"not what was written, or gone; {AGAIN}: only their rows are embedded anew"
        names = [[name, _rows_of(name, info)] for name in bad]
        damaged = Finding("damaged-shard", "error", len(bad), text, unit="files", names=names)
        findings.append(damaged)
    if info.get("complete") and len(images) and not bad:
        findings += _vectors(folder)
    shards = range(info["shards"])
    unknown = info["shards"] - len(shard_sums(info, shards))
    if unknown:
        text = "made by a version that kept no checksums; only sizes were looked at"
        findings.append(Finding("no-checksums", "info", unknown, text, unit="files"))
    return findings, images


def _bad_shards(folder: Path, info: dict[str, Any]) -> list[str]:
    numbers = range(info["shards"])
    bad = set(differing(folder, shard_sums(info, numbers)))
    for number in numbers:
        try:
            open_shard(folder, number, info, info["rows"])
        except UserError:
            bad.add(shard_name(number))
    return sorted(bad)


def _rows_of(name: str, info: dict[str, Any]) -> str:
    number = int(name.removeprefix("shard-").removesuffix(".npy"))
    start = number * info["shard_rows"]
    return f"rows {start:,} to {min(start + info['shard_rows'], info['rows']) - 1:,}"


def _vectors(folder: Path) -> Iterator[Finding]:
    try:
        features = Features.load(folder)
    except UserError as fault:
        yield Finding("damaged-features", "error", 1, str(fault), unit="files")
        return
    usable = np.flatnonzero(features.valid)
    if collapsed(features, usable):
        yield Finding("collapsed", "error", len(usable), NOTE, unit="vectors")
    lost = np.flatnonzero(~features.valid).tolist()
    if lost:
        text = "the image could not be used when it was embedded, and has no vector"
        yield Finding("no-vector", "warning", len(lost), text, lost)


def _embedder(folder: Path, info: dict[str, Any]) -> Iterator[Finding]:
    from resight.models.embedder import Embedder

    try:
        found = Embedder.load(folder / EMBEDDER, "cpu").fingerprint()
    except UserError as fault:
        yield Finding("damaged-embedder", "error", 1, str(fault), unit="files")
        return
    if found != info["key"].get("embedder"):
        text = "the embedder beside them is not the one that made them; embed anew (--force)"
        yield Finding("other-embedder", "error", 1, text, unit="files")
