"""Writes a set of rendered photos and its index.csv.

    out/images/<object>/<camera>_<nn>.jpg
    out/index.csv       one row an image
    out/rendered.json   the settings; written last, so it stands for a finished set

While a run is under way its settings stand in `out/rendering.json`, by which an interrupted run
is told from a folder of somebody else's.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from resight.data.rendered.objects import place_of
from resight.data.rendered.scenes import camera_of, photograph
from resight.errors import UserError
from resight.files import read_json, write_json, write_text

COLUMNS = ("path", "object", "camera", "split", "role", "box", "kind")
DONE, UNDER_WAY = "rendered.json", "rendering.json"
_JPEG_END = b"\xff\xd9"
_BIGGEST = 100_000  # objects; beyond it the words on them would come twice


@dataclass(frozen=True)
class Settings:
    """All that the bytes depend on; `version` grows when the pictures change."""

    objects: int
    images: int
    size: int
    seed: int
    version: int = 1

    def check(self) -> None:
        """Raises UserError with one line if a value cannot be used."""
        for name, low, high in (
            ("objects", 1, _BIGGEST),
            ("images", 2, 1000),  # a test object needs a query and a gallery image
            ("size", 32, 2048),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name} must be from {low} to {high}, not {value}")


def render(
    out: Path,
    *,
    objects: int = 240,
    images: int = 8,
    size: int = 160,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = 1,
) -> Path:
    """Writes `images` photos, `size` px wide and high, of each of `objects` objects below `out`.

    Object k has the same pictures whatever `objects` is. A finished set of the same settings is
    left as it is; an interrupted one is completed. `progress` is called with (images done, images
    in all) after each object. `workers` is the number of processes, None for one a core; the
    files do not depend on it. Returns the path of index.csv. Raises UserError if a setting is out
    of range or if `out` holds anything else.
    """
    settings = Settings(objects, images, size, seed)
    settings.check()
    out = Path(out)
    if _claim(out, settings):
        total = objects * images
        for done, _ in enumerate(_draw_all(out, settings, workers), start=1):
            if progress is not None:
                progress(done * images, total)
        write_text(out / "index.csv", _index(settings))
        write_json(out / DONE, asdict(settings))
    (out / UNDER_WAY).unlink(missing_ok=True)
    return out / "index.csv"


def _claim(out: Path, settings: Settings) -> bool:
    """Marks `out` as ours; False if it already holds the finished set. Raises UserError."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; rendered photos need a folder")
    wanted = asdict(settings)
    for mark in (DONE, UNDER_WAY):
        if (out / mark).is_file():
            found = read_json(out / mark, "the settings of rendered photos")
            if found != wanted:
                raise UserError(
                    f"{out}: holds photos rendered with other settings "
                    f"({_difference(found, wanted)}); give another folder"
                )
            return not (mark == DONE and (out / "index.csv").is_file())
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: holds other files; give an empty or new folder")
    write_json(out / UNDER_WAY, wanted)
    return True


def _difference(found: object, wanted: dict[str, int]) -> str:
    there = found if isinstance(found, dict) else {}
    return ", ".join(
        f"{name} {there.get(name, 'unknown')} there, {value} asked for"
        for name, value in wanted.items()
        if there.get(name) != value
    )


def _draw_all(out: Path, settings: Settings, workers: int | None) -> Iterator[None]:
    """Draws what is missing, one object at a time; yields after each."""
    draw = partial(_draw_object, out, settings)
    numbers: Iterable[int] = range(settings.objects)
    count = min(workers or len(os.sched_getaffinity(0)), settings.objects)
    if count <= 1:
        for number in numbers:
            yield draw(number)
        return
    # Spawned, not forked: the caller may have threads (torch, OpenCV) that a fork would break.
    with ProcessPoolExecutor(count, get_context("spawn"), _one_thread) as pool:
        yield from pool.map(draw, numbers, chunksize=2)


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _draw_object(out: Path, settings: Settings, number: int) -> None:
    for image in range(settings.images):
        path = out / _path(number, image)
        if not _is_whole(path):
            picture, quality = photograph(settings.seed, number, image, settings.size)
            _save(path, _encode(picture, quality))


def _encode(picture: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes of an RGB picture."""
    turned = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError("OpenCV could not write a JPEG")
    return bytes(data)


def _save(path: Path, data: bytes) -> None:
    """Whole or not at all. Not flushed to disk (thousands of small files): `_is_whole` tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.read_bytes().endswith(_JPEG_END)


def _path(number: int, image: int) -> str:
    return f"images/{place_of(number).name}/{camera_of(number, image).name}_{image:02d}.jpg"


def _index(settings: Settings) -> str:
    """The text of index.csv, objects in order."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for number in range(settings.objects):
        place = place_of(number)
        for image in range(settings.images):
            table.writerow(
                (
                    _path(number, image),
                    place.name,
                    camera_of(number, image).name,
                    place.split,
                    _role(place.split, image, settings.images),
                    "",
                    place.kind,
                )
            )
    return text.getvalue()


def _role(split: str, image: int, images: int) -> str:
    """A quarter of a test object's images, the first ones, ask for the others.

    Neighbouring images are by different cameras, so the others always hold another camera's.
    """
    if split != "test":
        return ""
    return "query" if image < max(1, images // 4) else "gallery"
