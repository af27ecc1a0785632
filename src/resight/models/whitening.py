"""Whitening of embeddings, learned in closed form: without labels (PCA), or with them.

All work on rows brought to unit length, block by block, in float64; N may be large.
Sources: Jegou and Chum, "Negative evidences and co-occurences in image retrieval: the benefit of
PCA and whitening", ECCV 2012; Mikolajczyk and Matas, "Improving descriptors for fast tree matching
by optimal linear projection", ICCV 2007, in the form of Radenovic et al., "Fine-tuning CNN Image
Retrieval with No Human Annotation", TPAMI 2019. Shrinkage: Ledoit and Wolf, "A well-conditioned
estimator for large-dimensional covariance matrices", 2004.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from resight.errors import UserError
from resight.models.embedder import Embedder
from resight.models.heads import Whitening as Whitening

Float = NDArray[np.float64]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
Tell = Callable[[str], None]

BLOCK = 4096  # rows in memory at a time: 64 MB at 2048 dimensions
RANK = 1e-12  # of the largest variance: below it lies what float32 made of nothing
FLOOR = 1e-6  # of the mean variance: no direction is stretched more than a thousandfold


@dataclass(frozen=True)
class Moments:
    """`count` independent rows: their mean (D,), covariance (D, D), and the mean of |x - m|^4."""

    count: int
    mean: Float
    covariance: Float
    fourth: float

    def shrinkage(self) -> float:
        """Ledoit and Wolf's weight, from 0 to 1, of a round covariance of the same size."""
        covariance, dims = self.covariance, len(self.covariance)
        squares = float(np.einsum("ij,ij->", covariance, covariance))
        spread = squares - float(np.trace(covariance)) ** 2 / dims  # how far from round it is
        noise = (self.fourth - squares) / self.count
        return 1.0 if spread <= 0 else float(np.clip(noise / spread, 0, 1))

    def shrunk(self, amount: float | None) -> Float:
        """The covariance, `amount` of it (None: `shrinkage`) replaced by a round one."""
        amount = self.shrinkage() if amount is None else amount
        dims = len(self.covariance)
        even: Float = np.eye(dims) * (np.trace(self.covariance) / dims)
        return (1 - amount) * self.covariance + amount * even


def pca_whitening(
    vectors: Any,
    dims: int,
    *,
    power: float = 0.5,
    valid: ArrayLike | None = None,
    shrink: float | None = None,
    block: int = BLOCK,
    tell: Tell = lambda line: None,
) -> Pair:
    """The main axes of the unit rows, evened out: weight (E, D), bias (E,) float32, E <= `dims`.

    `vectors`: (N, D), of any kind that can be sliced; only the rows of `valid` (N,) bool count.
    Each axis is divided by its variance to the `power`: .5 makes all variances one, 0 only turns.
    `shrink`: 0 takes the variances as they are, 1 takes all for equal; None finds the amount that
    suits the number of rows. Where the rows have fewer axes than `dims`, these, and `tell` says so.

    Raises ValueError: a value out of range, rows that aren't finite, or that are all the same.
    """
    if not 0 <= power <= 1:
        raise ValueError(f"power {power}: not from 0 to 1")
    found = moments(vectors, valid, block=block)
    axes = _axes(found.covariance)
    dims = _fitting(dims, axes.shape[1], found.count, tell)
    axes = axes[:, :dims]
    variances = np.einsum("de,dc,ce->e", axes, found.shrunk(shrink), axes, optimize=True)
    return _pair(axes / variances**power, found.mean)


def learned_whitening(
    vectors: Any,
    objects: ArrayLike,
    dims: int,
    *,
    valid: ArrayLike | None = None,
    shrink: float | None = None,
    block: int = BLOCK,
    tell: Tell = lambda line: None,
) -> Pair:
    """What differs between images of one object evened out, then the main axes of all rows.

    `vectors`: as for `pca_whitening`, but arrays of row numbers must select from it too;
    `objects`: (N,) int, -1 where unknown (such rows count for the main axes only). Every image
    counts once: the pairs of an object of n images weigh 1 / n each, or few large objects would
    decide. weight (E, D), bias (E,) float32, E <= `dims`; in the new space the differences within
    objects have the covariance 1. `shrink`, `tell`: as for `pca_whitening`.

    Raises ValueError: fewer than two objects with two images, no differences between the images
    of an object, and as `pca_whitening`.
    """
    found = moments(vectors, valid, block=block)
    inside = within(vectors, objects, valid, block=block)
    if np.trace(inside.covariance) <= RANK * np.trace(found.covariance):
        raise ValueError("the images of each object have equal vectors: nothing to learn from")
    axes = _axes(found.covariance)  # where no row differs from another there is nothing to see
    dims = _fitting(dims, axes.shape[1], found.count, tell)
    values, turn = np.linalg.eigh(axes.T @ inside.shrunk(shrink) @ axes)
    even = axes @ (turn / np.sqrt(np.maximum(values, FLOOR * values.mean())))
    _, main = np.linalg.eigh(even.T @ found.covariance @ even)
    return _pair(even @ main[:, ::-1][:, :dims], found.mean)


def whitened(
    embedder: Embedder, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> Embedder:
    """A copy of the embedder that ends in this whitening: weight (E, D), bias (E,).

    Raises UserError when it is whitened already; ValueError when the shapes don't fit.
    """
    check_plain(embedder)
    dims, features = weight.shape
    if features != embedder.features_dim or bias.shape != (dims,) or dims > features:
        raise ValueError(
            f"weight {weight.shape} and bias {bias.shape} for {embedder.features_dim} dimensions"
        )
    new = copy.deepcopy(embedder)
    last = Whitening(features, dims)
    with torch.no_grad():
        last.linear.weight.copy_(torch.from_numpy(np.asarray(weight)))
        last.linear.bias.copy_(torch.from_numpy(np.asarray(bias)))
    new.whitening = last.to(embedder.device).train(embedder.training)
    new.config, new.dim = embedder.config.model_copy(update={"whiten": dims}), dims
    return new


def check_plain(embedder: Embedder) -> None:
    """Raises UserError when the embedder is whitened already: whitenings don't compose."""
    if embedder.config.whiten is not None:
        raise UserError(
            f"this embedder is whitened already (to {embedder.config.whiten} dimensions); "
            "whiten the one that it was made from"
        )


def kept_share(
    vectors: Any, weight: ArrayLike, *, valid: ArrayLike | None = None, block: int = BLOCK
) -> float:
    """The share of the unit rows' variance that lies in the space of `weight` (E, D): 0 to 1."""
    axes, _ = np.linalg.qr(np.asarray(weight, np.float64).T)
    shift: Float | None = None
    count, everything, kept = 0, 0.0, 0.0
    total, part = np.zeros(len(axes)), np.zeros(axes.shape[1])
    for rows in _unit_blocks(vectors, valid, block):
        shift = rows.mean(0) if shift is None else shift
        rows -= shift
        inside = rows @ axes
        count += len(rows)
        everything += float(np.einsum("nd,nd->", rows, rows))
        kept += float(np.einsum("ne,ne->", inside, inside))
        total += rows.sum(0)
        part += inside.sum(0)
    everything -= float(total @ total) / max(count, 1)
    kept -= float(part @ part) / max(count, 1)
    return kept / everything if everything > 0 else 1.0


def moments(vectors: Any, valid: ArrayLike | None = None, *, block: int = BLOCK) -> Moments:
    """Mean and covariance of the unit rows of `vectors` (N, D), in one pass.

    Raises ValueError: fewer than two rows, or rows that aren't finite.
    """
    dims = int(vectors.shape[1])
    shift: Float = np.zeros(dims)
    count, squares, quartic = 0, 0.0, 0.0
    total, cubic, products = np.zeros(dims), np.zeros(dims), np.zeros((dims, dims))
    for rows in _unit_blocks(vectors, valid, block):
        if not count:  # near the mean, so that little is lost when the mean's square is taken off
            shift = rows.mean(0)
        rows -= shift
        length = np.einsum("nd,nd->n", rows, rows)
        count += len(rows)
        total += rows.sum(0)
        products += rows.T @ rows
        squares += float(length.sum())
        quartic += float(length @ length)
        cubic += length @ rows
    if count < 2:
        raise ValueError(f"usable vectors: {count}; at least two are needed")
    off = total / count  # the mean, seen from the shift
    e = float(off @ off)
    # |y - off|^4 = (|y|^2 - 2 y off + |off|^2)^2, summed over the rows y
    fourth = quartic - 4 * float(cubic @ off) + 4 * float(off @ products @ off) + 2 * e * squares
    fourth += -4 * e * float(total @ off) + count * e * e
    covariance = products / count - np.outer(off, off)
    return Moments(count, shift + off, covariance, max(fourth / count, 0.0))


def within(
    vectors: Any, objects: ArrayLike, valid: ArrayLike | None = None, *, block: int = BLOCK
) -> Moments:
    """The spread of the unit rows around the mean of their object, about a mean of 0.

    `count` is the number of independent differences: rows less objects, of the objects (-1 for
    unknown) with two rows or more. In memory is a block, or the largest object.

    Raises ValueError: fewer than two such objects, rows that aren't finite, another length.
    """
    labels = np.asarray(objects)
    if labels.shape != (len(vectors),):
        raise ValueError(f"{labels.shape} objects for {len(vectors):,} vectors")
    rows = np.flatnonzero((labels >= 0) & _mask(valid, len(vectors)))
    _, group, sizes = np.unique(labels[rows], return_inverse=True, return_counts=True)
    rows, group = rows[sizes[group] > 1], group[sizes[group] > 1]
    sizes = sizes[sizes > 1]
    if len(sizes) < 2:
        raise ValueError(
            f"{len(sizes)} objects with two images or more: at least two are needed to learn "
            "what differs between images of one object"
        )
    rows = rows[np.argsort(group, kind="stable")]
    dims = int(vectors.shape[1])
    products, fourth = np.zeros((dims, dims)), 0.0
    ends = np.cumsum(sizes)
    first, begin = 0, 0
    while first < len(sizes):
        last = max(first + 1, int(np.searchsorted(ends, begin + block, "right")))
        size = sizes[first:last]
        part = _unit(vectors[rows[begin : ends[last - 1]]])
        part -= np.repeat(np.add.reduceat(part, np.cumsum(size) - size) / size[:, None], size, 0)
        products += part.T @ part
        # Around the mean of few rows they spread less: n / (n - 1) makes up for it.
        length = np.einsum("nd,nd->n", part, part) * np.repeat(size / (size - 1), size)
        fourth += float(length @ length)
        first, begin = last, int(ends[last - 1])
    count = len(rows) - len(sizes)
    return Moments(count, np.zeros(dims), products / count, fourth / len(rows))


def _axes(covariance: Float) -> Float:
    """The main axes (D, r), that of the largest variance first, without those that are rounding."""
    values, axes = np.linalg.eigh(covariance)
    values, axes = values[::-1], axes[:, ::-1]
    known = values > max(RANK * values[0], 1e-30)
    if not known.any():
        raise ValueError("all vectors are the same: there is nothing to whiten")
    return np.asarray(axes[:, known])


def _fitting(dims: int, rank: int, count: int, tell: Tell) -> int:
    if dims < 1:
        raise ValueError(f"dims {dims}: at least 1")
    if dims > rank:
        tell(f"{rank} dimensions instead of {dims}: {count:,} vectors differ in no more directions")
    return min(dims, rank)


def _pair(axes: Float, mean: Float) -> Pair:
    """weight and bias that take off the mean and project on `axes` (D, E), each sign definite."""
    largest = axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])]
    weight = (axes * np.where(largest < 0, -1.0, 1.0)).T
    return weight.astype(np.float32), (-weight @ mean).astype(np.float32)


def _mask(valid: ArrayLike | None, count: int) -> NDArray[np.bool_]:
    mask = np.ones(count, bool) if valid is None else np.asarray(valid, bool)
    if mask.shape != (count,):
        raise ValueError(f"valid has the shape {mask.shape} for {count:,} vectors")
    return mask


def _unit_blocks(vectors: Any, valid: ArrayLike | None, block: int) -> Iterator[Float]:
    """The valid rows at unit length, float64, a block at a time; blocks without rows are left out.

    The arrays are the caller's own.
    """
    mask = _mask(valid, len(vectors))
    for start in range(0, len(vectors), block):
        keep = mask[start : start + block]
        if keep.any():
            yield _unit(np.asarray(vectors[start : start + block])[keep])


def _unit(rows: ArrayLike) -> Float:
    """A copy at unit length, as torch's `normalize` has it. Raises ValueError if not finite."""
    out = np.array(rows, np.float64)
    length = np.sqrt(np.einsum("nd,nd->n", out, out))
    if not np.isfinite(length).all():
        raise ValueError("a vector is not finite; leave it out (valid)")
    out /= np.maximum(length, 1e-12)[:, None]
    return out
