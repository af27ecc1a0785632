"""Batches from an image set: what a DataLoader's workers run.

A bad image never ends a job. It comes back as a BadImage in the batch and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from resight import lightly
from resight.data.decode import BadImage, content_of, decode
from resight.data.imageset import ImageSet
from resight.data.pixels import Aside, cores
from resight.data.pixels import strict_stop as strict_stop
from resight.data.stores import READERS
from resight.data.transforms import Augment, Preprocess

_AHEAD = 2**28  # bytes that a worker may hold ready
Draw = tuple[int, int]  # a row, and the seed of its augmentation
Sample = tuple[int, "torch.Tensor | BadImage", Any]


@dataclass(frozen=True)
class Batch:
    """`images` (B, 3, H, W) float32 of the rows `rows` (B,), and what could not be read.

    `plain` (B, 3, H, W): the same pictures without augmentation, where both are asked for.
    `aside`: what was wanted beside the picture, by row.
    """

    images: torch.Tensor
    rows: torch.Tensor
    bad: list[tuple[int, BadImage]]
    plain: torch.Tensor | None = None
    aside: dict[int, Any] = field(default_factory=dict)


class Pictures(Dataset[Sample]):
    """The rows of an image set as tensors (3, H, W); index with (row, seed).

    With `both` as pairs (2, 3, H, W): augmented, and not. `aside` is called with the path and the
    decoded picture, where a worker has it at hand; what it returns comes along. Holds plain lists
    only: polars does not survive a fork.
    """

    def __init__(
        self,
        images: ImageSet,
        preprocess: Preprocess,
        augment: Augment | None = None,
        *,
        both: bool = False,
        aside: Aside | None = None,
    ):
        self._paths = [str(path) for path in images.full_paths()]
        self._boxes = images.table["box"].to_list() if images.has("box") else None
        self._preprocess, self._augment = preprocess, augment
        self.both, self._aside, self._remote = both, aside, images.remote
        if augment is not None:
            lightly.transforms()  # once, and not in each worker
        self.size, self._target = preprocess.size, preprocess.decode_target
        if augment is not None and augment.crop == "resized-crop":
            # The smallest crop must still hold the target, or it would be upsampled.
            grow = min(8.0, augment.scale[0] ** -0.5) if augment.scale[0] > 0 else 8.0
            self._target = (int(self._target[0] * grow), int(self._target[1] * grow))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitems__(self, draws: list[Draw]) -> list[Sample]:
        """A batch of them; what lies at addresses is waited for together."""
        if not self._remote:
            return [self[draw] for draw in draws]
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self.__getitem__, draws))

    def __getitem__(self, draw: Draw) -> Sample:
        row, seed = draw
        try:
            box = self._boxes[row] if self._boxes is not None else None
            path = self._paths[row]
            content = content_of(path)
            picture = decode(content, name=path, box=box, target=self._target)
            aside = self._aside(path, content, picture) if self._aside is not None else None
        except BadImage as error:
            return row, error, None
        if self._augment is None:
            return row, self._preprocess(picture), aside
        augmented = self._augment(picture, self._preprocess, seed)
        if self.both:
            return row, torch.stack([augmented, self._preprocess(picture)]), aside
        return row, augmented, aside


def collate(samples: list[Sample], both: bool = False) -> Batch:
    """Stack the good ones, list the bad ones; `both`: each is a pair, see `Pictures`."""
    good = [(row, x) for row, x, _ in samples if isinstance(x, torch.Tensor)]
    bad = [(row, x) for row, x, _ in samples if isinstance(x, BadImage)]
    aside = {row: value for row, _, value in samples if value is not None}
    none = torch.empty(0, 2, 3, 1, 1) if both else torch.empty(0, 3, 1, 1)
    images = torch.stack([x for _, x in good]) if good else none
    rows = torch.tensor([row for row, _ in good], dtype=torch.int64)
    if images.ndim == 5:
        return Batch(images[:, 0], rows, bad, images[:, 1], aside)
    return Batch(images, rows, bad, None, aside)


def loader(
    pictures: Pictures, batches: Sequence[Sequence[Draw]], workers: int | None = None
) -> Iterable[Batch]:
    """The batches in order, read ahead by `workers` processes (default: by the machine)."""
    workers = default_workers() if workers is None else workers
    return DataLoader(
        pictures,
        batch_sampler=batches,  # type: ignore[arg-type]  # any sequence of lists of indices
        num_workers=workers,
        collate_fn=partial(collate, both=pictures.both),
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=_ahead(pictures, batches) if workers else None,
        # A generator of its own: else every new loader would draw from the global one, and a
        # resumed run would go on with other random numbers.
        generator=torch.Generator(),
    )


def _ahead(pictures: Pictures, batches: Sequence[Sequence[Draw]]) -> int:
    """Batches that each worker reads ahead: up to 4, fewer when they are large."""
    height, width = pictures.size
    largest = 12 * height * width * max(map(len, batches), default=1) * (1 + pictures.both)
    return max(1, min(4, _AHEAD // largest))


def default_workers() -> int:
    """One process a core beyond the first, at most 16."""
    return max(0, min(16, cores() - 1))
