"""What a gallery wants to know of a file: content, size, state, a small picture."""

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from resight.checksums import file_sum
from resight.data.addresses import Address
from resight.data.decode import BadImage, content_of, decode, shape_of
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


def look(path: str, content: str | Path | bytes, picture: Image.Image) -> Seen:
    """What is wanted of a file beside its decoded picture; run by the workers that decode.

    `content`: what it was decoded from; the bytes at an address have no time.

    Raises BadImage when the file has gone in between.
    """
    if isinstance(content, bytes):
        height, width = shape_of(content, name=path)
        summed = hashlib.sha256(content).hexdigest()
        return Seen(summed, len(content), 0, width, height, thumbnail(picture))
    found = stamp(path)
    try:
        summed = file_sum(path)
    except OSError as error:
        raise BadImage(path, error.strerror or "can't be read") from None
    if found is None:
        raise BadImage(path, "no such file")
    height, width = shape_of(path)
    return Seen(summed, *found, width, height, thumbnail(picture))


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
    """The same for files whose vectors are there already; None where there is no file.

    Addresses are read, too: None for one that can't be.
    """

    def one(at: int) -> Seen | BadImage | None:
        path, box = paths[at], boxes[at]
        try:
            content = content_of(path)
        except BadImage:
            return None
        try:
            picture = decode(content, name=path, box=box, target=(THUMBNAIL, THUMBNAIL))
            return look(path, content, picture)
        except BadImage as error:
            return error

    there = [n for n, path in enumerate(paths) if isinstance(path, Address) or os.path.exists(path)]
    found: list[Seen | BadImage | None] = [None] * len(paths)
    if there:
        with ThreadPoolExecutor(threads) as pool:
            for at, seen in zip(there, pool.map(one, there), strict=True):
                found[at] = seen
    return found
