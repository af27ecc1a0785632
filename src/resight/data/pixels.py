"""Pictures of an image set as bytes, read ahead by threads: for engines that do without torch.

Decoding and resizing let go of the interpreter's lock, so that threads do what a DataLoader's
processes do, without being started for seconds, and hand over without copying.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resight.data.decode import BadImage, content_of, decode
from resight.data.imageset import ImageSet
from resight.data.stores import READERS
from resight.data.transforms import Preprocess
from resight.errors import UserError

# What else is wanted of a file: its path, what it was decoded from (`content_of`), the picture.
Aside = Callable[[str, "str | Path | bytes", Image.Image], Any]
_MOST = 16  # threads
_AHEAD = 2**28  # bytes of pictures that are held ready
_Sample = tuple[int, "NDArray[np.uint8] | BadImage", Any]


@dataclass
class PixelBatch:
    """Pictures (n, H, W, 3) uint8 of the rows `rows`, and what could not be read.

    `aside`: what was wanted beside the picture, by row.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    bad: list[tuple[int, BadImage]] = field(default_factory=list)
    aside: dict[int, Any] = field(default_factory=dict)


class Pixels:
    """The rows of an image set, decoded and at their final size."""

    def __init__(self, images: ImageSet, preprocess: Preprocess, aside: Aside | None = None):
        self._paths = [str(path) for path in images.full_paths()]
        self._boxes = images.table["box"].to_list() if images.has("box") else None
        self._preprocess, self._aside = preprocess, aside
        self._threads = READERS if images.remote else min(_MOST, cores())

    def __getitem__(self, row: int) -> _Sample:
        """The row, its picture (H, W, 3) uint8 or what is wrong with it, and what stands aside."""
        path, box = self._paths[row], self._boxes[row] if self._boxes is not None else None
        try:
            content = content_of(path)
            picture = decode(content, name=path, box=box, target=self._preprocess.decode_target)
            aside = self._aside(path, content, picture) if self._aside is not None else None
        except BadImage as error:
            return row, error, None
        return row, np.asarray(self._preprocess.resized(picture)), aside

    def batches(
        self, batches: Sequence[Sequence[int]], threads: int | None = None
    ) -> Iterator[PixelBatch]:
        """The batches of rows in order, read ahead by `threads`; 0: by none.

        By default one a core, or, where there are addresses, 16 that wait for answers.
        """
        threads = self._threads if threads is None else threads
        if not threads:
            for rows in batches:
                yield _collated([self[row] for row in rows])
            return
        height, width = self._preprocess.size
        largest = 3 * height * width * max(map(len, batches), default=1)
        ahead = max(1, min(3, _AHEAD // largest))
        waiting: deque[list[Future[_Sample]]] = deque()
        pool = ThreadPoolExecutor(threads, "reading")
        try:
            for rows in batches:
                waiting.append([pool.submit(self.__getitem__, row) for row in rows])
                if len(waiting) > ahead:
                    yield _collated([one.result() for one in waiting.popleft()])
            while waiting:
                yield _collated([one.result() for one in waiting.popleft()])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _collated(samples: list[_Sample]) -> PixelBatch:
    good = [(row, x) for row, x, _ in samples if not isinstance(x, BadImage)]
    return PixelBatch(
        np.stack([x for _, x in good]) if good else np.empty((0, 1, 1, 3), np.uint8),
        np.array([row for row, _ in good], np.int64),
        [(row, x) for row, x, _ in samples if isinstance(x, BadImage)],
        {row: value for row, _, value in samples if value is not None},
    )


def cores() -> int:
    """The processor's cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def strict_stop(bad: BadImage) -> UserError:
    """The error of `--strict` for a bad image."""
    return UserError(f"{bad.path}: {bad.reason} (--strict stops at the first bad image)")
