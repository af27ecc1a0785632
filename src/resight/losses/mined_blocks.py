"""Similarities to many vectors of a memory, block by block, for the losses over mined images.

Vectors are float16 and go through one float32 buffer that stays in the processor's cache: it is
small, as a product with 64 images is fastest when its other side is still near.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

BLOCK, BLOCK_GPU = 256, 16384  # vectors at once
Pairs = tuple[torch.Tensor, torch.Tensor]


def walk(
    views: Sequence[torch.Tensor], excluded: Pairs | None, like: torch.Tensor, block: int | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Views (c, D) laid end to end, in blocks -> vectors (b, D), excluded (E',) of each.

    The vectors are of the type and on the device of `like` (B, D); the next block overwrites
    them. `excluded`: image (E,) and column (E,) int64 of all; of a block their places in its
    flattened (b, B) similarities.
    """
    block = block or default_block(like)
    pieces = [view[at : at + block] for view in views for at in range(0, len(view), block)]
    sizes = [len(piece) for piece in pieces]
    image, column = (part.long().cpu() for part in excluded) if excluded else (torch.zeros(0),) * 2
    inside(image, len(like), "images")
    inside(column, sum(sizes), "columns")
    places = column.long() * len(like) + image.long()
    places = places.sort().values
    starts = torch.tensor([0, *sizes]).cumsum(0) * len(like)
    bounds = torch.searchsorted(places, starts).tolist()
    places = places.to(like.device)
    buffer = like.new_empty(max(sizes, default=0), like.shape[1])
    for piece, start, first, last in zip(pieces, starts.tolist(), bounds, bounds[1:], strict=False):
        yield into(buffer, piece), places[first:last] - start


def listed(
    directions: torch.Tensor,
    vectors: torch.Tensor,
    image: torch.Tensor,
    index: torch.Tensor,
    block: int | None = None,
) -> torch.Tensor:
    """Similarities (P,) of directions[image], of (B, D), and vectors[index], of (U, D) of any type.

    image and index (P,) int64. Differentiable by the directions, for which the vectors are read
    again: they must not change before. Beyond them it takes memory for `block` vectors.
    """
    image, index = image.long().cpu(), index.long().cpu()
    inside(image, len(directions), "images")
    inside(index, len(vectors), "vectors")
    result: torch.Tensor = _Listed.apply(directions, vectors, image, index, block)
    return result


class _Listed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        directions: torch.Tensor,
        vectors: torch.Tensor,
        image: torch.Tensor,
        index: torch.Tensor,
        block: int | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(directions, vectors, image, index)
        ctx.block = block
        found = directions.new_zeros(len(image))
        for some, pairs, at, here in by_block(directions, vectors, image, index, block):
            found[pairs] = (here @ directions[some].T)[at]
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        directions, vectors, image, index = ctx.saved_tensors
        slope = torch.zeros_like(directions)
        for some, pairs, at, here in by_block(directions, vectors, image, index, ctx.block):
            add_block(slope, some, at, upstream[pairs], here)
        return slope, None, None, None, None


def by_block(
    like: torch.Tensor,
    vectors: torch.Tensor,
    image: torch.Tensor,
    index: torch.Tensor,
    block: int | None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, Pairs, torch.Tensor]]:
    """Listed pairs, a block of vectors (b, D) after the other: image and index (P,) on the CPU.

    -> the images concerned (i,), which pairs (p,), where those stand in (b, i), and the vectors,
    as with `walk`. In the order of the first image that asks for them: those of one tuple come
    together, so that a block is compared with few images.
    """
    block = block or default_block(like)
    count, device = len(like), like.device
    distinct, column = torch.unique(index, return_inverse=True)
    asked = torch.full((len(distinct),), count).scatter_reduce(0, column, image, "amin")
    order = asked.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    column, pairs = place[column].sort(stable=True)
    image = image[pairs]
    starts = torch.arange(0, len(order) + block, block)
    bounds = torch.searchsorted(column, starts).tolist()
    buffer = like.new_empty(min(block, len(order)), like.shape[1])
    for start, first, last in zip(starts.tolist(), bounds, bounds[1:], strict=False):
        chosen = distinct[order[start : start + block]].to(vectors.device)
        some, local = torch.unique(image[first:last], return_inverse=True)
        at = ((column[first:last] - start).to(device), local.to(device))
        here = into(buffer, vectors.index_select(0, chosen))
        yield some.to(device), pairs[first:last].to(device), at, here


def add_block(
    slope: torch.Tensor,
    some: torch.Tensor,
    at: Pairs,
    weights: torch.Tensor,
    vectors: torch.Tensor,
) -> None:
    """Add to slope (B, D), for the images `some`, vectors (b, D) by the weights of pairs `at`."""
    weight = vectors.new_zeros(len(vectors), len(some))
    weight.index_put_(at, weights, accumulate=True)
    slope[some] += weight.T @ vectors


def places(mask: torch.Tensor) -> torch.Tensor:
    """Where a contiguous tensor isn't zero, flattened (n,) int64, rising."""
    if mask.device.type == "cpu":  # several times faster where little is found
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.view(-1).nonzero().squeeze(1)


def into(buffer: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (c, D) in the buffer's type and on its device; float16 crosses over as such."""
    here = buffer[: len(vectors)]
    return here.copy_(vectors.to(buffer.device))


def default_block(like: torch.Tensor) -> int:
    """Vectors at once, for products with `like`."""
    return BLOCK if like.device.type == "cpu" else BLOCK_GPU


def inside(numbers: torch.Tensor, count: int, what: str) -> None:
    """Raises ValueError where a number isn't one of `count`."""
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < count:
        raise ValueError(f"{what} {int(numbers.min())} to {int(numbers.max())} of {count}")
