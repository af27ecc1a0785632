"""One pass over the files of an image set: what is wrong with each, and how each row looks.

Every file is read once: its bytes are hashed, its header noted, and its picture decoded to the
end of the data (a JPEG at 1/2, 1/4 or 1/8 of its size, which still reads all of it, so that a
file cut short is found). Only a few hundred bytes a row are kept.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from resight.data.addresses import Address, Place
from resight.data.decode import FORMATS, BadImage, content_of, decode, upright_size
from resight.data.duplicates import perceptual_hash
from resight.data.imageset import ImageSet
from resight.data.stores import GONE, READERS

Array = np.ndarray[Any, np.dtype[Any]]
Box = Sequence[float] | None
_Job = tuple[Place, list[int], list[Box]]  # a file, its rows and their boxes

# Codes of files that can't be used, and what to do about them; all are errors.
PROBLEMS = {
    "missing": "the file does not exist; correct the path or drop the row",
    "unreadable": "the file can't be decoded as an image; replace it or drop the row",
    "truncated": "the file ends before its picture does; fetch it again or drop the row",
    "over-pixel-limit": "the picture has more pixels than can be decoded safely; shrink it",
    "unreachable": "what lies at the address can't be had; mend the access or drop the row",
}
# Codes of what else can be said of a row: (severity, what it means and what to do).
TRAITS = {
    "box-outside": ("error", "the box lies outside the picture; correct it or drop the row"),
    "box-partly-outside": (
        "warning",
        "the box reaches over the picture's edge and is cut there; see whether boxes are meant "
        "in pixels of the upright picture",
    ),
    "blank": ("warning", "the picture is nearly of one colour; nothing can be recognised in it"),
    "tiny": ("warning", "the short side is below 32 pixels; expect little from such a picture"),
    "unusual-aspect": (
        "warning",
        "one side is more than 5 times the other; resizing to a fixed size distorts it badly",
    ),
    "animated": ("warning", "the file has several frames or pages; only the first is used"),
    "huge": ("info", "over 50 megapixels; decoding is slow, smaller copies would save time"),
    "wrong-extension": ("info", "the name says another format than the content; it is read anyway"),
    "cmyk": ("info", "CMYK colours are converted to RGB, without a colour profile"),
    "16-bit": ("info", "more than 8 bits a channel; reduced to 8"),
    "alpha": ("info", "the picture has transparency; it is laid on white"),
    "exif-rotated": ("info", "the camera's orientation mark is obeyed; boxes must be too"),
    "grayscale": ("info", "the picture has no colour; as a query among coloured ones it is harder"),
}
_BIT = {code: 1 << bit for bit, code in enumerate(TRAITS)}
_PROBLEM = {code: number for number, code in enumerate(PROBLEMS, start=1)}
TINY, ASPECT, HUGE = 32, 5.0, 50_000_000
_BLANK = 8  # grey levels between the darkest and the brightest of 32 x 32 averages
_GREY = 3  # levels between the channels, JPEG's own error allowed for
_CHUNK = 32  # files a task
_SPILL = 200_000  # rows beyond which the thumbnails lie in a temporary file (768 bytes a row)
_ENDINGS = {
    "JPEG": ".jpg .jpeg .jpe .jfif",
    "MPO": ".jpg .jpeg .jpe .jfif .mpo",
    "PNG": ".png .apng",
    "WEBP": ".webp",
    "BMP": ".bmp .dib",
    "GIF": ".gif",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm",
    "AVIF": ".avif",
    "JPEG2000": ".jp2 .j2k .jpx",
}
NAMES = tuple(_ENDINGS)
_KNOWN = frozenset(" ".join(_ENDINGS.values()).split())


@dataclass(frozen=True)
class Inspection:
    """What the pass found; every array has one entry a row of the image set.

    `problem` 0 is none, k the k-th of PROBLEMS; `traits` a bit for each of TRAITS; `size` width
    and height of the upright picture in pixels; `format` an index into NAMES, -1 unknown;
    `digest` the first 128 bits of SHA-256 over the file's bytes and the row's box; `look` a
    64-bit perceptual hash and `thumb` a 16 x 16 RGB thumbnail, both of the crop; `file` the
    same number for rows of the same path. `reasons` says more on rows with a problem.
    """

    problem: Array  # (n,) uint8
    traits: Array  # (n,) uint32
    size: Array  # (n, 2) int32
    format: Array  # (n,) int8
    digest: Array  # (n, 2) uint64
    look: Array  # (n,) uint64
    thumb: Array  # (n, 16, 16, 3) uint8
    file: Array  # (n,) int64
    reasons: dict[int, str]

    def rows_with_problem(self, code: str) -> Array:
        """Rows whose file has this problem, ascending."""
        rows: Array = np.flatnonzero(self.problem == _PROBLEM[code])
        return rows

    def rows_with_trait(self, code: str) -> Array:
        """Rows that have this trait, ascending."""
        rows: Array = np.flatnonzero(self.traits & _BIT[code])
        return rows

    def comparable(self) -> Array:
        """(n,) bool: rows that have a picture which is not blank."""
        unseen = _BIT["blank"] | _BIT["box-outside"]
        return np.asarray((self.problem == 0) & (self.traits & unseen == 0))


@dataclass
class _Row:
    traits: int = 0
    digest: bytes = bytes(16)
    thumb: Array | None = None  # (32, 32, 3) uint8


@dataclass
class _File:
    rows: list[int]
    entries: list[_Row]
    problem: str = ""
    reason: str = ""
    size: tuple[int, int] = (0, 0)
    format: str = ""


@dataclass
class _Chunk:
    files: list[_File]
    look: Array = field(default_factory=lambda: np.zeros(0, np.uint64))
    thumb: Array = field(default_factory=lambda: np.zeros((0, 16, 16, 3), np.uint8))
    seen: list[int] = field(default_factory=list)  # the rows that look and thumb belong to


def inspect(
    images: ImageSet,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Read every file of an image set once; `progress(done, total)` counts rows.

    Threads suffice: reading, hashing and decoding all release Python's lock. The result does
    not depend on `workers` (default: the processors this process may use, at most 16).
    """
    n = len(images)
    by_file = images.table.select("path", "box").with_row_index("row")
    by_file = by_file.group_by("path", maintain_order=True).agg("row", "box")
    out = _empty(n)
    jobs = ((images.at(path), rows, boxes) for path, rows, boxes in by_file.iter_rows())

    def task(batch: list[_Job]) -> _Chunk:
        return _finish([_inspect_file(*job) for job in batch])

    done = number = 0
    threads = workers or (READERS if images.remote else default_workers())
    for chunk in _in_order(task, _batches(jobs), threads):
        for file in chunk.files:
            _store(out, file, number)
            number += 1
            done += len(file.rows)
        out.look[chunk.seen], out.thumb[chunk.seen] = chunk.look, chunk.thumb
        if progress is not None:
            progress(done, n)
    return out


def thumbnail(path: Place, box: Box, side: int = 32) -> Array:
    """The crop of an image as (side, side, 3) uint8, averaged. Raises BadImage."""
    picture = decode(path, box=box, target=(2 * side, 2 * side))
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX))


def default_workers() -> int:
    """The processors this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


def _empty(n: int) -> Inspection:
    thumbs: Array
    if n > _SPILL:
        with tempfile.TemporaryFile(prefix="resight-") as file:
            thumbs = np.memmap(file, np.uint8, "w+", shape=(n, 16, 16, 3))
    else:
        thumbs = np.zeros((n, 16, 16, 3), np.uint8)
    return Inspection(
        problem=np.zeros(n, np.uint8),
        traits=np.zeros(n, np.uint32),
        size=np.zeros((n, 2), np.int32),
        format=np.full(n, -1, np.int8),
        digest=np.zeros((n, 2), np.uint64),
        look=np.zeros(n, np.uint64),
        thumb=thumbs,
        file=np.zeros(n, np.int64),
        reasons={},
    )


def _store(out: Inspection, file: _File, number: int) -> None:
    for row, entry in zip(file.rows, file.entries, strict=True):
        out.file[row] = number
        out.size[row] = file.size
        out.format[row] = NAMES.index(file.format) if file.format in NAMES else -1
        out.traits[row] = entry.traits
        out.digest[row] = np.frombuffer(entry.digest, np.uint64)
        if file.problem:
            out.problem[row] = _PROBLEM[file.problem]
            out.reasons[row] = file.reason


def _batches(jobs: Iterator[_Job]) -> Iterator[list[_Job]]:
    while batch := list(islice(jobs, _CHUNK)):
        yield batch


def _in_order(
    task: Callable[[list[_Job]], _Chunk], batches: Iterable[list[_Job]], workers: int
) -> Iterator[_Chunk]:
    """The results in the order of the batches, with only a few tasks under way at a time."""
    waiting: deque[Future[_Chunk]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="inspect")
    try:
        for batch in batches:
            waiting.append(pool.submit(task, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _inspect_file(path: Place, rows: list[int], boxes: list[Box]) -> _File:
    file = _File(rows, [_Row() for _ in rows])
    try:
        data = _bytes_of(path)
    except BadImage as error:
        file.problem = "missing" if error.reason == GONE else "unreachable"
        file.reason = error.reason
        return file
    except (FileNotFoundError, NotADirectoryError):
        file.problem, file.reason = "missing", "no such file"
        return file
    except OSError as error:
        file.problem, file.reason = "unreadable", (error.strerror or str(error)).lower()
        return file
    whole = hashlib.sha256(data)
    for entry, box in zip(file.entries, boxes, strict=True):
        digest = whole.copy()
        if box is not None:  # rows of one file with other boxes are other pictures
            digest.update(np.asarray(box, np.float64).tobytes())
        entry.digest = digest.digest()[:16]
    try:
        shared = _header(data, path, file)
        if data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data):
            raise BadImage(path, "truncated")  # a WebP; its decoder would not say why it fails
        picture = decode(data, target=_target(file.size, boxes))
        if file.format in ("JPEG", "MPO") and _ends_in_zeros(data):
            raise BadImage(path, "truncated: its end is filled with zeros")
    except BadImage as error:
        file.problem, file.reason = _kind(error.reason), error.reason
        return file
    for entry, box in zip(file.entries, boxes, strict=True):
        entry.traits |= shared
        _look_at(entry, picture, file.size, box)
    return file


def _bytes_of(path: Place) -> bytes:
    if not isinstance(path, Address):
        return path.read_bytes()
    content = content_of(path)
    assert isinstance(content, bytes)
    return content


def _kind(reason: str) -> str:
    if reason.startswith("truncated"):
        return "truncated"
    return "over-pixel-limit" if "more than" in reason and "pixels" in reason else "unreadable"


def _header(data: bytes, path: Place, file: _File) -> int:
    """Fill in the file's format and upright size; returns the traits that all its rows share."""
    if not data:
        raise BadImage(path, "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            file.format = image.format or ""
            several = file.format != "MPO" and bool(getattr(image, "is_animated", False))
            # A PNG without EXIF in its head would be decoded here only to look for it at its end.
            look = file.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(0x0112, 1) if look else 1
            file.size = upright_size(image) if look else image.size
            raw = image.tile[0].args if image.tile else ""
            raw = raw[0] if isinstance(raw, tuple) and raw else raw
            deep = image.mode[0] in "IF" or (isinstance(raw, str) and ";16" in raw)
            alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
            holds = {
                "animated": several,
                "cmyk": image.mode == "CMYK",
                "16-bit": deep,
                "alpha": alpha or "transparency" in image.info,
                "exif-rotated": orientation in range(2, 9),
                "huge": image.width * image.height > HUGE,
                "wrong-extension": _wrong_extension(path, file.format),
            }
    except BadImage:
        raise
    except Exception:  # decode() says in better words what is wrong, or reads it all the same
        return 0
    return sum(_BIT[code] for code, true in holds.items() if true)


def _wrong_extension(path: Place, content: str) -> bool:
    ending = path.suffix.lower()
    return ending in _KNOWN and ending not in _ENDINGS[content].split()


def _target(size: tuple[int, int], boxes: list[Box]) -> tuple[int, int]:
    """The (height, width) to decode at so that the smallest crop keeps about 64 pixels a side."""
    if all(box is None for box in boxes):
        return 64, 64
    part = [min(1.0, (b[2] - b[0]) / max(size[0], 1)) if b else 1.0 for b in boxes]
    tall = [min(1.0, (b[3] - b[1]) / max(size[1], 1)) if b else 1.0 for b in boxes]
    return round(64 / max(min(tall), 1e-3)), round(64 / max(min(part), 1e-3))


def _ends_in_zeros(jpeg: bytes) -> bool:
    """Whether a JPEG has zeros in place of its end, as a broken download of known length has."""
    return jpeg.endswith(bytes(16)) and b"\xff\xd9" not in jpeg[jpeg.rfind(b"\xff\xda") :]


def _look_at(entry: _Row, picture: Image.Image, size: tuple[int, int], box: Box) -> None:
    """Note the traits of one row's crop, and keep its thumbnail."""
    full_w, full_h = size if all(size) else picture.size
    crop: tuple[float, float, float, float] = (0, 0, full_w, full_h)
    if box is not None:
        crop = (max(box[0], 0), max(box[1], 0), min(box[2], full_w), min(box[3], full_h))
        if crop[2] <= crop[0] or crop[3] <= crop[1]:
            entry.traits |= _BIT["box-outside"]
            return
        # Half a pixel over the edge is rounding, not a mistake.
        if max(-box[0], -box[1], box[2] - full_w, box[3] - full_h) > 0.5:
            entry.traits |= _BIT["box-partly-outside"]
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    x, y = picture.width / full_w, picture.height / full_h
    region = (crop[0] * x, crop[1] * y, crop[2] * x, crop[3] * y)
    entry.thumb = np.asarray(picture.resize((32, 32), Image.Resampling.BOX, box=region))
    if min(width, height) < TINY:
        entry.traits |= _BIT["tiny"]
    if max(width, height) > ASPECT * min(width, height):
        entry.traits |= _BIT["unusual-aspect"]


def _finish(files: list[_File]) -> _Chunk:
    """Judge, hash and shrink the thumbnails of a chunk in one go."""
    kept = [
        (row, entry)
        for file in files
        for row, entry in zip(file.rows, file.entries, strict=True)
        if entry.thumb is not None
    ]
    if not kept:
        return _Chunk(files)
    thumbs = np.stack([entry.thumb for _, entry in kept if entry.thumb is not None])
    low, high = thumbs.min((1, 2)).astype(int), thumbs.max((1, 2)).astype(int)
    blank = (high - low).max(1) < _BLANK
    red, green, blue = np.moveaxis(thumbs.astype(np.int16), 3, 0)
    apart = np.maximum(np.abs(red - green), np.abs(blue - green)).max((1, 2))
    for number, (_, entry) in enumerate(kept):
        entry.thumb = None
        if blank[number]:
            entry.traits |= _BIT["blank"]
        elif apart[number] <= _GREY:
            entry.traits |= _BIT["grayscale"]
    quarters = thumbs.reshape(-1, 16, 2, 16, 2, 3).mean((2, 4), dtype=np.float32)
    small = np.round(quarters).astype(np.uint8)
    return _Chunk(files, perceptual_hash(thumbs), small, [row for row, _ in kept])
