"""Projections in closed form: linear layers fitted in seconds to features of a frozen network.

Whitening needs no labels: the main axes, evened out, so that what all images share counts for
less. Sources: Jegou and Chum, "Negative evidences and co-occurences in image retrieval: the
benefit of PCA and whitening", ECCV 2012; with the floor under small variances that probabilistic
PCA would put there.

The discriminant evens out how images of one object differ, then keeps the directions along which
objects lie apart: Fisher's linear discriminant analysis. The same matrix is known as the learned
whitening Lw (Mikolajczyk and Matas, "Improving descriptors for fast tree matching by optimal
linear projection", ICCV 2007; Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human
Annotation", TPAMI 2019), as WCCN with LDA in speaker recognition (Hatch et al., Interspeech 2006),
and as the latent space of PLDA (Ioffe, ECCV 2006). Without labels, pairs of mutual neighbours stand
in for images of one object.

All take sums (`models.moments`) and give weight (E, D), bias (E,) float32, for rows at unit
length, scaled so that the mean square of an output row is 1.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from resight.models.moments import Float, Moments, Spread

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]

DIMS = 256  # of a projection, where none are asked for
FLOOR = 0.3  # of the mean variance, added to each before it is evened out
SHRINK = 0.3  # of the covariance within objects, replaced by a round one
RANK = 1e-12  # of the largest variance: below it lies what float32 made of nothing
_SAME = "all vectors are the same: there is nothing to fit to"
_EVEN = 1e-9  # the same where the spread within objects is evened out to 1


def whitening(total: Moments, dims: int, *, floor: float = FLOOR) -> Pair:
    """The main axes, each divided by √(its variance + `floor` · their mean variance).

    Gives E <= `dims` rows: fewer where the rows differ in fewer directions.

    Raises ValueError: a value out of range, or rows that are all the same.
    """
    if floor < 0:
        raise ValueError(f"floor {floor}: not below 0")
    _require_difference(total)
    variances, axes = main_axes(total.covariance)
    dims = _checked(dims, len(variances))
    variances, axes = variances[:dims], axes[:, :dims]
    return _pair(axes / np.sqrt(variances + floor * variances.mean()), total)


def discriminant(
    total: Moments, found: Spread, dims: int, *, shrink: float = SHRINK, weigh: bool = True
) -> Pair:
    """The directions of the object means, once the spread within objects is evened out.

    `shrink` of the covariance within, from 0 to 1, is replaced by a round one of the same size:
    few images say little about directions in which they hardly differ. Where there are fewer
    objects than `dims`, the main directions of all rows follow those of the means. Gives E <=
    `dims` rows, as `whitening`.

    `weigh`: each direction is multiplied by b / (b + w), where b is the variance of the objects'
    places and w that of images around them: PLDA's estimate of the object's place from one image
    (Ioffe 2006, section 3). Directions that tell objects apart poorly then count for little, and
    cosines come near PLDA's own scores (docs/embedder.md).

    Raises ValueError: a value out of range, images of each object that are all the same.
    """
    lower = _root(total, found.within, shrink)
    rank = min(len(total.mean), total.count - 1)
    dims = _checked(dims, rank)
    means = _solve(lower, found.means - total.mean) / len(found.means) ** 0.5
    directions = _leading(means, min(dims, len(means) - 1))
    if directions.shape[1] < dims:
        rest = _evened(lower, total.covariance)
        rest -= directions @ (directions.T @ rest)
        rest -= (rest @ directions) @ directions.T
        more = _axes(rest, _EVEN)[1]
        directions = np.hstack([directions, more[:, : dims - directions.shape[1]]])
    axes = _back(lower, directions)
    return _pair(axes * _reliability(axes, total, found) if weigh else axes, total)


def _reliability(axes: Float, total: Moments, found: Spread) -> Float:
    """b / (b + w) of each direction (E,); of those beyond the objects' number half the median.

    The objects at hand say nothing of these; others will differ in some of them too.
    """
    known = axes[:, : len(found.means) - 1]
    images = np.maximum(np.einsum("de,dc,ce->e", known, found.within, known, optimize=True), 1e-30)
    places = (((found.means - total.mean) @ known) ** 2).mean(0) - images * found.noise
    places = np.maximum(places, 1e-3 * images)
    weights = np.full(axes.shape[1], 1.0)
    weights[: known.shape[1]] = places / (places + images)
    if known.shape[1]:
        weights[known.shape[1] :] = 0.5 * np.median(weights[: known.shape[1]])
    return weights


def pair_discriminant(total: Moments, within: Float, dims: int, *, shrink: float = SHRINK) -> Pair:
    """As `discriminant`, where it is only known what differs within pairs of images, (D, D).

    The directions are the leading ones of all rows.

    Raises ValueError as `discriminant`.
    """
    lower = _root(total, within, shrink)
    axes = _axes(_evened(lower, total.covariance), _EVEN)[1]
    return _pair(_back(lower, axes[:, : _checked(dims, axes.shape[1])]), total)


def project(vectors: NDArray[np.float32], pair: Pair | None) -> NDArray[np.float32]:
    """Rows (n, D), brought to unit length, through a projection: (n, E)."""
    rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if pair is None:
        return np.asarray(rows, np.float32)
    return np.asarray(rows @ pair[0].T + pair[1], np.float32)


def joined(first: Pair, second: Pair, total: Moments, dims: int) -> Pair:
    """Two projections of the same rows beside each other, turned onto their `dims` main axes."""
    weight = np.concatenate([first[0], second[0]]).astype(np.float64)
    _, axes = main_axes(weight @ total.covariance @ weight.T)
    return _pair(weight.T @ axes[:, :dims], total)


def main_axes(covariance: Float) -> tuple[Float, Float]:
    """Variances (r,) and axes (D, r), that of the largest first, without those that are rounding.

    Raises ValueError when no row differs from another.
    """
    values, axes = _axes(covariance, 0.0)
    if not len(values):
        raise ValueError(_SAME)
    return values, axes


def _axes(covariance: Float, least: float) -> tuple[Float, Float]:
    """As `main_axes`, also without variances up to `least`; there may be none left."""
    values, axes = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(covariance)))
    values, axes = values[::-1], axes[:, ::-1]
    known = values > max(RANK * values[0], least, 1e-30)
    return np.asarray(values[known]), np.asarray(axes[:, known])


def _require_difference(total: Moments) -> None:
    variance = float(np.trace(total.covariance))
    if variance <= RANK * (variance + float(total.mean @ total.mean)):
        raise ValueError(_SAME)


def _checked(dims: int, rank: int) -> int:
    if dims < 1:
        raise ValueError(f"dims {dims}: at least 1")
    return min(dims, rank)


def _root(total: Moments, within: Float, shrink: float) -> Float:
    """The lower triangle L with L Lᵀ = the shrunk covariance within objects."""
    if not 0 <= shrink <= 1:
        raise ValueError(f"shrink {shrink}: not from 0 to 1")
    _require_difference(total)
    size = float(np.trace(within))
    if size <= RANK * float(np.trace(total.covariance)):
        raise ValueError("the images of each object have equal vectors: nothing to learn from")
    # A trace of rounding's size on the diagonal: without it a singular one has no root.
    even = (shrink + 1e-9) * size / len(within)
    shrunk = (1 - shrink) * within + even * np.eye(len(within))
    return np.asarray(torch.linalg.cholesky(torch.from_numpy(shrunk)).numpy())


def _solve(lower: Float, rows: Float) -> Float:
    """Each row x -> L⁻¹ x."""
    right = torch.from_numpy(np.ascontiguousarray(rows.T))
    out = torch.linalg.solve_triangular(torch.from_numpy(lower), right, upper=False)
    return np.asarray(out.numpy().T)


def _back(lower: Float, directions: Float) -> Float:
    """Directions (D, E) after L⁻¹ -> L⁻ᵀ directions, which rows are multiplied with."""
    upper, right = torch.from_numpy(lower).T, torch.from_numpy(np.ascontiguousarray(directions))
    return np.asarray(torch.linalg.solve_triangular(upper, right, upper=True).numpy())


def _evened(lower: Float, covariance: Float) -> Float:
    """L⁻¹ C L⁻ᵀ, symmetric to the last digit."""
    out = _solve(lower, _solve(lower, covariance).T)
    return np.asarray((out + out.T) / 2)


def _leading(rows: Float, count: int) -> Float:
    """The `count` main directions (D, count) of rows (K, D) about 0, by the smaller product."""
    if len(rows) >= rows.shape[1]:
        return _axes(rows.T @ rows, _EVEN)[1][:, :count]
    values, axes = _axes(rows @ rows.T, _EVEN)
    return np.asarray(rows.T @ (axes[:, :count] / np.sqrt(values[:count])))


def _pair(axes: Float, total: Moments) -> Pair:
    """weight and bias that take off the mean and project on `axes` (D, E), each sign definite.

    Scaled to a mean square of 1: learning rates then mean the same for any number of dimensions.
    """
    power = float(np.einsum("de,dc,ce->", axes, total.covariance, axes, optimize=True))
    largest = axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])]
    weight = (axes * np.where(largest < 0, -1.0, 1.0)).T / max(power, 1e-30) ** 0.5
    return weight.astype(np.float32), (-weight @ total.mean).astype(np.float32)
