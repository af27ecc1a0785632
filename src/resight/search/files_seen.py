"""What a gallery wants to know of a file: content, size, state, a small picture."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from resight.checksums import file_sum
from resight.data.decode import BadImage, decode, shape_of
from resight.search.engines.contract import Box

Blob = bytes  # a field is called bytes, too
THUMBNAIL = 160  # pixels of the longer side


@dataclass(frozen=True)
class Seen:
    """Of a file: SHA-256 (hex), bytes, mtime (ns), upright width and height; JPEG of the box."""

    content: str
    bytes: int
    mtime: int
    width: int
    height: int
    thumbnail: Blob | None


def stamp(path: str | Path) -> tuple[int, int] | None:
    """(bytes, mtime in ns) of a file; None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def look(path: str, picture: Image.Image) -> Seen:
    """What is wanted of a file beside its decoded picture; run by the workers that decode.

    Raises BadImage when the file has gone in between.
    """
    found = stamp(path)
    try:
        content = file_sum(path)
    except OSError as error:
        raise BadImage(path, error.strerror or "can't be read") from None
    if found is None:
        raise BadImage(path, "no such file")
    height, width = shape_of(path)
    return Seen(content, *found, width, height, thumbnail(picture))


def thumbnail(picture: Image.Image) -> bytes:
    """A small JPEG of an RGB picture."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()


def look_at_all(
    paths: list[str], boxes: list[Box | None], threads: int = 4
) -> list[Seen | BadImage | None]:
    """The same for files whose vectors are there already; None where there is no file."""

    def one(at: int) -> Seen | BadImage:
        try:
            return look(paths[at], decode(paths[at], box=boxes[at], target=(THUMBNAIL, THUMBNAIL)))
        except BadImage as error:
            return error

    there = [at for at, path in enumerate(paths) if os.path.exists(path)]
    found: list[Seen | BadImage | None] = [None] * len(paths)
    if there:
        with ThreadPoolExecutor(threads) as pool:
            for at, seen in zip(there, pool.map(one, there), strict=True):
                found[at] = seen
    return found
