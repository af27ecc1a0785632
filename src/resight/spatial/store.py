"""Local features and pair counts on disk: written in pieces, each whole or absent.

FOLDER/features-<key>/<piece>.points.npy        (n, 2) float32, all pictures of the piece in a row
                      <piece>.descriptors.npy   (n, 128) uint8 or int8
                      <piece>.bad.json          which of its pictures can't be used, and why
                      <piece>.pictures.npy      (k, 5) int64: row, first, last + 1, width, height;
                                                written last, it says that the piece is there
FOLDER/counts-<key>/<piece>.npy                 row * rows + other row, inliers

A piece has a random name: two processes that use one folder do some work twice, and no harm.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.data.decode import BadImage
from resight.errors import UserError
from resight.files import atomic_open, read_json, write_json
from resight.spatial.local import LocalFeatures

Ints = NDArray[np.int64]
COUNT = np.dtype([("pair", "<i8"), ("inliers", "<i2")])
_PIECES = 64  # of counts, before they are made one
_PICTURES = ".pictures.npy"


@dataclass
class Index:
    """Where the features of `rows` pictures lie.

    `places` (rows, 5) int64: piece (-1 where there is none yet), first and last + 1 keypoint in
    it, width, height. `bad`: row -> the picture that can't be used; it has no keypoints.
    """

    places: Ints
    pieces: list[str] = field(default_factory=list)
    bad: dict[int, BadImage] = field(default_factory=dict)


def read_index(folder: Path, rows: int) -> Index:
    """What there is in a folder, which need not exist. Raises UserError on a damaged file."""
    index = Index(np.tile(np.array([-1, 0, 0, 0, 0], np.int64), (rows, 1)))
    for path in sorted(folder.glob("*" + _PICTURES)):
        _take_in(index, folder, path.name.removesuffix(_PICTURES))
    return index


def _take_in(index: Index, folder: Path, piece: str) -> None:
    pictures = _load(folder / (piece + _PICTURES))
    if pictures is None:
        return
    index.places[pictures[:, 0], 0] = len(index.pieces)
    index.places[pictures[:, 0], 1:] = pictures[:, 1:]
    index.pieces.append(piece)
    for entry in read_json(folder / (piece + ".bad.json"), "the list of unusable pictures"):
        index.bad[int(entry["row"])] = BadImage(entry["path"], entry["reason"])


def write_piece(
    folder: Path, index: Index, rows: Sequence[int], found: Sequence[LocalFeatures | BadImage]
) -> None:
    """Write what was found in the pictures `rows` as one piece, and enter it in the index."""
    piece = secrets.token_hex(8)
    pictures, first = [], 0
    good = [features for features in found if isinstance(features, LocalFeatures)]
    for row, one in zip(rows, found, strict=True):
        number = len(one) if isinstance(one, LocalFeatures) else 0
        size = one.size if isinstance(one, LocalFeatures) else (0, 0)
        pictures.append((row, first, first + number, *size))
        first += number
    none = np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8)
    full = [one for one in good if len(one)]  # an empty one may be of another type
    _save(folder / f"{piece}.points.npy", [one.points for one in full] or [none[0]])
    _save(folder / f"{piece}.descriptors.npy", [one.descriptors for one in full] or [none[1]])
    bad = [
        {"row": row, "path": one.path, "reason": one.reason}
        for row, one in zip(rows, found, strict=True)
        if isinstance(one, BadImage)
    ]
    write_json(folder / f"{piece}.bad.json", bad)
    _save(folder / (piece + _PICTURES), [np.array(pictures, np.int64).reshape(-1, 5)])
    _take_in(index, folder, piece)


def read_features(folder: Path, piece: str, place: Ints) -> LocalFeatures:
    """The features of one picture; `place` is its row of `Index.places`."""
    first, last, width, height = place[1:].tolist()
    points = _part(folder / f"{piece}.points.npy", first, last)
    descriptors = _part(folder / f"{piece}.descriptors.npy", first, last)
    return LocalFeatures(points, descriptors, (width, height))


def read_counts(folder: Path) -> NDArray[Any]:
    """All counts of a folder, (n,) of `COUNT`, ascending and each pair once."""
    paths = sorted(folder.glob("*.npy"))
    parts = [part for part in map(_load, paths) if part is not None]
    counts = merge(parts)
    if len(paths) > _PIECES:
        write_counts(folder, counts)
        for path in paths:  # those of the pieces that are in the new one
            path.unlink(missing_ok=True)
    return counts


def write_counts(folder: Path, counts: NDArray[Any]) -> None:
    """Add counts, (n,) of `COUNT`, as a piece."""
    _save(folder / f"{secrets.token_hex(8)}.npy", [counts])


def merge(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The counts of several pieces as one: ascending, each pair once."""
    together = np.concatenate([np.zeros(0, COUNT), *parts])
    _, first = np.unique(together["pair"], return_index=True)
    return np.asarray(together[first])


def _save(path: Path, parts: Sequence[NDArray[Any]]) -> None:
    with atomic_open(path) as file:
        np.save(file, np.concatenate(parts), allow_pickle=False)


def _load(path: Path) -> NDArray[Any] | None:
    """An array, or None where another process has just put it together with others."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except FileNotFoundError:
        return None
    except (ValueError, EOFError) as error:
        raise _damaged(path, error) from None


def _part(path: Path, first: int, last: int) -> NDArray[Any]:
    """Rows of a file, read and closed again: a large set has more files than may be open."""
    try:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, error) from None
    return np.array(whole[first:last])


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged ({error}); delete the folder {path.parent} and run it again")
