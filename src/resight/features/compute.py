"""Embed the rows of an image set: the loop that embedding, validation and indexing share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resight.data.decode import BadImage
from resight.data.imageset import ImageSet
from resight.data.pixels import Aside, Pixels, strict_stop
from resight.features.options import PLAIN
from resight.features.options import EmbedOptions as EmbedOptions
from resight.models.export.session import OnnxEmbedder

if TYPE_CHECKING:
    from resight.models.embedder import Embedder
    from resight.models.export.choose import Network

Progress = Callable[[int, int], None]
_FEW = 32  # images: starting helpers would take longer than reading them
# Rows, their vectors, rows that can't be read, and what stands aside, by row.
_Answer = tuple[NDArray[Any], NDArray[np.float32], list[tuple[int, BadImage]], dict[int, Any]]


@dataclass
class Block:
    """Embeddings of consecutive rows: vectors (n, D) float32, NaN in the rows of `bad`.

    `bad` names rows of the image set, in ascending order; `aside` what was wanted beside the
    pictures, by row.
    """

    start: int
    vectors: NDArray[np.float32]
    bad: list[tuple[int, BadImage]] = field(default_factory=list)
    aside: dict[int, Any] = field(default_factory=dict)


def embed_blocks(
    embedder: Network,
    images: ImageSet,
    block_rows: int,
    *,
    blocks: Sequence[int] | None = None,
    options: EmbedOptions = PLAIN,
    aside: Aside | None = None,
) -> Iterator[Block]:
    """Yield the blocks of `block_rows` rows with the numbers `blocks` (all, by default).

    `embedder`: what embeds them, torch's or a graph made for these options (`export.choose`).
    `aside`: called with the path and the decoded picture; what it returns comes along.

    Raises UserError at the first bad image when `options.strict`.
    """
    total = len(images)
    numbers = range(-(-total // block_rows)) if blocks is None else blocks
    size = options.batch_size or find_batch_size(embedder, options)
    if embedder.preprocess.resize == "fit":
        size = 1  # images of different shapes can't be stacked
    batches: list[range] = []
    ends: list[tuple[int, int, int]] = []  # start row, end row, batches up to here
    for number in numbers:
        start, end = number * block_rows, min((number + 1) * block_rows, total)
        for at in range(start, end, size):
            batches.append(range(at, min(at + size, end)))
        ends.append((start, end, len(batches)))
    stream = (
        _by_graph(embedder, images, batches, options, aside)
        if isinstance(embedder, OnnxEmbedder)
        else _by_torch(embedder, images, batches, options, aside)
    )
    done = 0
    for start, end, upto in ends:
        block = Block(start, np.full((end - start, embedder.dim), np.nan, np.float32))
        for _ in range(upto - done):
            rows, vectors, bad, beside = next(stream)
            block.bad += bad
            block.aside |= beside
            for row in rows[~np.isfinite(vectors).all(axis=1)].tolist():
                path = images.full_paths()[row]
                block.bad.append((row, BadImage(path, "its embedding is not finite")))
            block.vectors[rows - start] = vectors
            if options.strict and block.bad:
                raise strict_stop(block.bad[0][1])
        block.bad.sort(key=lambda entry: entry[0])
        block.vectors[[row - start for row, _ in block.bad]] = np.nan
        done = upto
        yield block


def _by_torch(
    embedder: Embedder,
    images: ImageSet,
    batches: Sequence[range],
    options: EmbedOptions,
    aside: Aside | None,
) -> Iterator[_Answer]:
    """Batch by batch, read ahead by a DataLoader's processes, which start only where that pays."""
    from resight.data.loading import Pictures, loader

    few = options.workers is None and sum(map(len, batches)) <= _FEW
    pictures = Pictures(images, embedder.preprocess, aside=aside)
    draws = [[(row, 0) for row in rows] for rows in batches]
    for batch in loader(pictures, draws, 0 if few else options.workers):
        vectors = np.empty((0, embedder.dim), np.float32)
        if len(batch.rows):
            tensor = embedder.embed_tensor(batch.images, flip=options.flip, scales=options.scales)
            vectors = tensor.cpu().numpy()
        yield batch.rows.numpy(), vectors, batch.bad, batch.aside


def _by_graph(
    embedder: OnnxEmbedder,
    images: ImageSet,
    batches: Sequence[range],
    options: EmbedOptions,
    aside: Aside | None,
) -> Iterator[_Answer]:
    """The same, read ahead by threads."""
    pixels = Pixels(images, embedder.preprocess, aside)
    for batch in pixels.batches(batches, options.workers):
        vectors = np.empty((0, embedder.dim), np.float32)
        if len(batch.rows):
            vectors = embedder.embed_pixels(batch.images)
        yield batch.rows, vectors, batch.bad, batch.aside


def embed_rows(
    embedder: Network,
    images: ImageSet,
    *,
    options: EmbedOptions = PLAIN,
    progress: Progress = lambda done, total: None,
) -> tuple[NDArray[np.float32], list[BadImage]]:
    """All embeddings in memory: (N, D) float32 un-normalised, NaN for the bad images returned."""
    vectors = np.empty((len(images), embedder.dim), np.float32)
    bad: list[BadImage] = []
    for block in embed_blocks(embedder, images, 256, options=options):
        vectors[block.start : block.start + len(block.vectors)] = block.vectors
        bad += [error for _, error in block.bad]
        progress(block.start + len(block.vectors), len(images))
    return vectors, bad


def find_batch_size(embedder: Network, options: EmbedOptions = PLAIN) -> int:
    """How many images to embed at once.

    On a GPU the smallest power of two beyond which a batch is hardly faster an image, or won't
    fit. On a CPU by the number of pixels: larger batches are no faster there, and the last digits
    of a vector, which depend on the batch, must not depend on how busy the machine is. An
    embedder whose images differ in shape ("fit") takes one at a time.
    """
    if embedder.preprocess.resize == "fit":
        return 1
    if isinstance(embedder, OnnxEmbedder) or embedder.device.type != "cuda":
        height, width = embedder.preprocess.size
        fitting = max(1, 32 * 224 * 224 // (height * width))
        return min(64, 1 << (fitting.bit_length() - 1))
    import torch

    best, best_rate, size = 1, 0.0, 8
    while size <= 1024:
        try:
            rate = _rate(embedder, size, options)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if rate < best_rate * 1.05:
            break
        best, best_rate, size = size, rate, size * 2
    return best


def _rate(embedder: Embedder, size: int, options: EmbedOptions) -> float:
    """Images a second at a batch of `size`: the better of two tries after one to warm up."""
    import torch

    images = torch.zeros(size, 3, *embedder.preprocess.size)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        embedder.embed_tensor(images, flip=options.flip, scales=options.scales).cpu()
        times.append(time.perf_counter() - start)
    return size / min(times[1:])
