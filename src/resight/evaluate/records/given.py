"""Similarities that are given as a matrix, with their ground truth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.checksums import file_sum
from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.evaluate.protocols import Protocol
from resight.evaluate.records.job import Job, load_array, split_key


def read_similarity(
    job: Job, images: ImageSet | None
) -> tuple[ImageSet, Protocol | None, dict[str, NDArray[Any]], dict[str, Any]]:
    """The image set, its protocol if `truth` makes it, the matrices by name, and their origin.

    similarity: a .npy file, or a .npz file with one or more matrices, one of which FILE.npz:NAME
    picks. truth: a JSON file with, for each query, the list of its positives (columns of the
    matrix, from 0), or an object with "positives" and "junk". Of several matrices those that fit
    the truth are taken.

    Raises UserError: not such files, or no matrix that fits.
    """
    path, where, key = split_key(str(job.similarity))
    if not path.exists():
        raise UserError(f"{where}: not found")
    loaded = load_array(path, where)
    matrices = {path.stem: loaded} if isinstance(loaded, np.ndarray) else _members(loaded, where)
    if key:
        if key not in matrices:
            raise UserError(f"{where}: no array {key!r}; there are {', '.join(matrices)}")
        matrices = {key: matrices[key]}
    protocol = None
    origin: dict[str, Any] = {"similarity": {"fingerprint": file_sum(path)}}
    if job.truth is not None:
        positives, junk = _read_truth(Path(job.truth))
        origin["truth"] = {"fingerprint": file_sum(Path(job.truth))}
        highest = max((column for row in positives + junk for column in row), default=-1)
        fitting = {
            name: matrix
            for name, matrix in matrices.items()
            if matrix.ndim == 2 and len(matrix) == len(positives) and matrix.shape[1] > highest
        }
        shapes = {matrix.shape for matrix in fitting.values()}
        if len(shapes) != 1:
            sizes = [f"{name} {matrix.shape}" for name, matrix in matrices.items()]
            raise UserError(
                f"{where}: no matrix of {len(positives)} rows and more than {highest} columns, as"
                f" {job.truth} has it; there are {', '.join(sizes[:5])}"
            )
        images = _images_of_truth(positives, junk, shapes.pop()[1], str(path))
        protocol = Protocol(
            "query-gallery", positives=("positives",), junk=("junk",) if any(junk) else ()
        )
        matrices = fitting
    if images is None:
        raise UserError(f"{where}: the ground truth is missing: --truth FILE.json, or IMAGES")
    for name, matrix in matrices.items():
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
            raise UserError(f"{where}: {name} has shape {matrix.shape}, type {matrix.dtype}")
    # As protocols' names they name folders.
    named = {re.sub(r"[/\\\x00-\x1f]|^\.", "_", name): matrix for name, matrix in matrices.items()}
    return images, protocol, named, origin


def _members(archive: Any, where: str) -> dict[str, NDArray[Any]]:
    try:
        return {name: archive[name] for name in archive.files}
    except Exception as error:  # zip, zlib and format errors alike
        raise UserError(f"{where}: a damaged archive ({error})") from None


def _read_truth(path: Path) -> tuple[list[list[int]], list[list[int]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"--truth {path}: not found") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"--truth {path}: not valid JSON ({error})") from None
    plain = content if isinstance(content, dict) else {"positives": content}
    positives = plain.get("positives")
    n = len(positives) if isinstance(positives, list) else -1
    junk = plain.get("junk") or [[]] * n
    for name, lists in (("positives", positives), ("junk", junk)):
        if not isinstance(lists, list) or len(lists) != n:
            raise UserError(f"--truth {path}: {name} must be one list for each query")
        for row, values in enumerate(lists):
            whole = isinstance(values, list) and all(
                isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values
            )
            if not whole:
                raise UserError(f"--truth {path}: {name}, query {row}: not a list of columns")
    return list(positives or []), list(junk)


def _images_of_truth(
    positives: list[list[int]], junk: list[list[int]], columns: int, source: str
) -> ImageSet:
    """An image set without images: queries and references, with their lists."""
    lists = pl.List(pl.String)

    def named(rows: list[list[int]]) -> list[list[str] | None]:
        return [[str(column) for column in row] for row in rows] + [None] * columns

    n = len(positives)
    names = [f"query {i}" for i in range(n)] + [str(i) for i in range(columns)]
    table = pl.DataFrame(
        {
            "path": names[:n] + [f"reference {i}" for i in range(columns)],
            "name": names,
            "role": ["query"] * n + ["gallery"] * columns,
            "positives": pl.Series(named(positives), dtype=lists),
            "junk": pl.Series(named(junk), dtype=lists),
        }
    )
    return ImageSet(normalise(table), Path("."), source)
