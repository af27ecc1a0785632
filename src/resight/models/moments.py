"""Means and covariances of feature rows, block by block in float64: what closed forms stand on.

All work on rows brought to unit length; N may be large, in memory are a block and (D, D) sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
BLOCK = 4096  # rows in memory at a time: 64 MB at 2048 dimensions


@dataclass(frozen=True)
class Moments:
    """Of `count` rows: their mean (D,) and covariance (D, D)."""

    count: int
    mean: Float
    covariance: Float

    def columns(self, columns: NDArray[np.int64], times: float = 1.0) -> Moments:
        """The moments of these columns alone, the rows multiplied by `times`."""
        inner = np.ix_(columns, columns)
        return Moments(self.count, self.mean[columns] * times, self.covariance[inner] * times**2)


@dataclass(frozen=True)
class Spread:
    """How the images of one object differ, and where objects lie.

    `within` (D, D): covariance around the mean of the own object, of the objects with two images
    or more, divided by the number of independent differences (rows less objects). `means` (K, D):
    of all K objects, of a single image too. `noise`: the mean of 1 / images over the objects, the
    share of the spread within that is left in a mean.
    """

    within: Float
    means: Float
    noise: float

    def columns(self, columns: NDArray[np.int64], times: float = 1.0) -> Spread:
        """The same of these columns alone, the rows multiplied by `times`."""
        inner = np.ix_(columns, columns)
        means = self.means[:, columns] * times
        return Spread(self.within[inner] * times**2, means, self.noise)


def moments(vectors: Any, valid: ArrayLike | None = None, *, block: int = BLOCK) -> Moments:
    """Mean and covariance of the unit rows of `vectors` (N, D), in one pass.

    Raises ValueError: fewer than two rows, or rows that aren't finite.
    """
    dims = int(vectors.shape[1])
    shift: Float = np.zeros(dims)
    count = 0
    total, products = np.zeros(dims), np.zeros((dims, dims))
    for rows in _unit_blocks(vectors, valid, block):
        if not count:  # near the mean, so that little is lost when the mean's square is taken off
            shift = rows.mean(0)
        rows -= shift
        count += len(rows)
        total += rows.sum(0)
        products += rows.T @ rows
    if count < 2:
        raise ValueError(f"usable vectors: {count}; at least two are needed")
    off = total / count  # the mean, seen from the shift
    covariance = products / count - np.outer(off, off)
    return Moments(count, shift + off, covariance)


def spread(
    vectors: Any, objects: ArrayLike, valid: ArrayLike | None = None, *, block: int = BLOCK
) -> Spread:
    """How the unit rows of `vectors` (N, D) differ inside objects, and the objects' means.

    `objects`: (N,) int, -1 where unknown (such rows are left out); arrays of row numbers must
    select from `vectors`. Rows are read object by object, so that one pass is enough; in memory is
    a block, or the largest object, and one mean an object.

    Raises ValueError: fewer than two objects with two rows, rows that aren't finite, another
    length.
    """
    labels = np.asarray(objects)
    if labels.shape != (len(vectors),):
        raise ValueError(f"{labels.shape} objects for {len(vectors):,} vectors")
    rows = np.flatnonzero((labels >= 0) & _mask(valid, len(vectors)))
    _, group, sizes = np.unique(labels[rows], return_inverse=True, return_counts=True)
    several = int((sizes > 1).sum())
    if several < 2:
        raise ValueError(
            f"{several} objects with two images or more: at least two are needed to learn "
            "what differs between images of one object"
        )
    rows = rows[np.argsort(group, kind="stable")]
    dims = int(vectors.shape[1])
    products, means = np.zeros((dims, dims)), np.zeros((len(sizes), dims))
    ends = np.cumsum(sizes)
    first, begin = 0, 0
    while first < len(sizes):
        last = max(first + 1, int(np.searchsorted(ends, begin + block, "right")))
        size = sizes[first:last]
        part = _unit(vectors[rows[begin : ends[last - 1]]])
        means[first:last] = np.add.reduceat(part, np.cumsum(size) - size) / size[:, None]
        part -= np.repeat(means[first:last], size, 0)
        products += part.T @ part
        first, begin = last, int(ends[last - 1])
    count = int(sizes[sizes > 1].sum()) - several
    return Spread(products / count, means, float((1 / sizes).mean()))


def difference_scatter(
    vectors: Any, pairs: tuple[ArrayLike, ArrayLike], *, block: int = BLOCK
) -> Float:
    """Half the mean outer product of x_i - x_j over pairs of rows (i, j) of the unit rows: (D, D).

    For all pairs of one object it is the covariance around the object's mean.

    Raises ValueError: no pairs, or rows that aren't finite.
    """
    first, second = (np.asarray(side, np.int64) for side in pairs)
    if not len(first):
        raise ValueError("no pairs: nothing to learn from")
    dims = int(vectors.shape[1])
    products = np.zeros((dims, dims))
    for start in range(0, len(first), block):
        part = _unit(vectors[first[start : start + block]])
        part -= _unit(vectors[second[start : start + block]])
        products += part.T @ part
    return products / (2 * len(first))


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
