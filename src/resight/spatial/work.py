"""What the processes of the verifier do: read pictures, compare pairs. Light to import.

Every result is a function of its task alone, so it doesn't matter how many processes share them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from resight.data.decode import BadImage, decode
from resight.errors import UserError
from resight.spatial.local import LocalFeatures, SpatialOptions, local_features
from resight.spatial.match import count_inliers
from resight.spatial.store import read_features

Ints = NDArray[np.int64]
Share = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
_KEPT = 256  # pictures' features that a task keeps: 35 MB at 1,000 keypoints
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Reading:
    """Pictures to look for keypoints in."""

    paths: list[str]
    boxes: list[list[float] | None]
    options: SpatialOptions


@dataclass(frozen=True)
class Comparing:
    """Pairs (p, 2) of pictures to compare: rows of `places` (k, 5), whose features are stored."""

    folder: Path
    pieces: dict[int, str]
    places: Ints
    pairs: Ints
    options: SpatialOptions


def read(task: Reading) -> list[LocalFeatures | BadImage]:
    """The features of each picture, or why it has none."""
    found: list[LocalFeatures | BadImage] = []
    side = task.options.side
    for path, box in zip(task.paths, task.boxes, strict=True):
        try:
            picture = decode(path, box=box, target=(side, side))
        except BadImage as error:
            found.append(error)
        else:
            found.append(local_features(picture, task.options))
    return found


def compare(task: Comparing) -> NDArray[np.int16]:
    """The inliers of each pair, (p,) int16."""
    kept: OrderedDict[int, LocalFeatures] = OrderedDict()

    def features(row: int) -> LocalFeatures:
        if row in kept:
            kept.move_to_end(row)
            return kept[row]
        place = task.places[row]
        kept[row] = read_features(task.folder, task.pieces[int(place[0])], place)
        if len(kept) > _KEPT:
            kept.popitem(last=False)
        return kept[row]

    counts = [count_inliers(features(a), features(b), task.options) for a, b in task.pairs.tolist()]
    return np.array(counts, np.int16)


@contextmanager
def processes(count: int) -> Iterator[Share]:
    """A `map` that keeps the order and shares the tasks among `count` processes, 0: this one.

    Raises UserError when a process dies.
    """
    if count <= 1:
        yield lambda function, tasks: map(function, tasks)
        return
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read by the children's libraries as they load
    try:
        # Spawned, not forked: the caller may have threads (torch, OpenCV) that a fork would break.
        with ProcessPoolExecutor(count, get_context("spawn"), _one_thread) as pool:
            yield lambda function, tasks: pool.map(function, tasks)
    except BrokenProcessPool:
        raise UserError(
            f"one of {count} processes that compare pictures died, as it happens when memory runs "
            "out; run it again with fewer workers"
        ) from None
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def cores() -> int:
    """How many processes can work at once."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_thread() -> None:
    cv2.setNumThreads(1)
