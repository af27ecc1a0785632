"""The probability that a hit is right, from its similarity and its gap to the next object.

Rises with both. Two steps: a logistic regression of "right" on the two, with coefficients of 0 or
more, makes one score of them; isotonic regression makes the score a probability. The first only has
to say how much gap weighs against similarity; whatever shape the probability has, the second finds
it (as Platt's and isotonic calibration of classifiers: Zadrozny & Elkan, KDD 2002).

First hits and later ones have a map each: a gap means another thing to them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FORMAT = 1
_RIDGE = 1e-3  # keeps the slopes finite where right and wrong are perfectly told apart


def pool_adjacent(values: Floats, weights: Floats) -> Floats:
    """The rising values (N,) nearest to `values` (N,) in weighted squares.

    Pool adjacent violators (Ayer et al., 1955): neighbours that fall are replaced by their mean
    until none does; N steps in all.
    """
    means: list[float] = []
    masses: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, mass, length = value, weight, 1
        while means and means[-1] >= mean:
            before = masses.pop()
            mean = (means.pop() * before + mean * mass) / (before + mass)
            mass, length = mass + before, length + lengths.pop()
        means.append(mean)
        masses.append(mass)
        lengths.append(length)
    return np.repeat(np.array(means, np.float64), lengths)


@dataclass(frozen=True)
class RisingMap:
    """score = similarity_slope x similarity + gap_slope x gap; probability by linear steps.

    knots rise, as do values at them; below the first and above the last it is level.
    """

    similarity_slope: float
    gap_slope: float
    knots: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, similarity: Floats, gap: Floats) -> Floats:
        """Probabilities, of the shape of both; 0 where there is no hit (-inf)."""
        there = np.isfinite(similarity) & np.isfinite(gap)
        score = self.similarity_slope * np.where(there, similarity, 0.0)
        score = score + self.gap_slope * np.where(there, gap, 0.0)
        return np.where(there, np.interp(score, self.knots, self.values), 0.0)

    @staticmethod
    def fit(similarity: Floats, gap: Floats, right: Bools) -> RisingMap:
        """From hits (N,) that are known to be right or wrong, N at least 1."""
        slopes = rising_slopes(np.stack([similarity, gap], axis=1), right)
        score = slopes[0] * similarity + slopes[1] * gap
        points, place, counts = np.unique(score, return_inverse=True, return_counts=True)
        means = np.bincount(place, right.astype(np.float64)) / counts
        # One wrong hit above all and one right below all: no probability of 0 or 1 is learned
        # from a few. The best n, all right, have n / (n + 1), one class alone (n + 1) / (n + 2).
        fitted = pool_adjacent(np.r_[1.0, means, 0.0], np.r_[1.0, counts, 1.0])[1:-1]
        starts = np.flatnonzero(np.r_[True, np.diff(fitted) > 0])
        mass = np.add.reduceat(counts.astype(np.float64), starts)
        centres = np.add.reduceat(points * counts, starts) / mass
        first, second = slopes.tolist()
        return RisingMap(first, second, tuple(centres.tolist()), tuple(fitted[starts].tolist()))


@dataclass(frozen=True)
class HitProbability:
    """The probability of first hits and of later ones, given that the object is in the gallery."""

    first: RisingMap
    later: RisingMap

    def __call__(self, similarity: Floats, gap: Floats) -> Floats:
        """Probabilities (Q, k) of hits with these similarities (Q, k) and gaps (left_out.gaps).

        A gap of 0 or more is a first hit's. Never falls when either rises: a later hit is never
        more probable than a first one would be with no gap.
        """
        first = self.first(similarity, np.maximum(gap, 0.0))
        later = np.minimum(self.later(similarity, np.minimum(gap, 0.0)), first)
        return np.where(gap >= 0, first, later)

    @staticmethod
    def fit(similarity: Floats, gap: Floats, right: Bools, possible: Bools) -> HitProbability:
        """From the hits (N, k >= 2) of images left out (left_out.best_other, left_out.gaps).

        possible (N,): the queries that can find anything right. Raises UserError without any.
        """
        if not possible.any():
            raise UserError(
                "the probability of a hit is learned from objects with two images or more; "
                "there is none"
            )
        similarity, gap, right = similarity[possible], gap[possible], right[possible]
        first = RisingMap.fit(similarity[:, 0], gap[:, 0], right[:, 0])
        there = np.isfinite(similarity[:, 1:])
        if not there.any():  # one object: no later hits
            return HitProbability(first, first)
        later = (similarity[:, 1:][there], gap[:, 1:][there], right[:, 1:][there])
        return HitProbability(first, RisingMap.fit(*later))

    def to_dict(self) -> dict[str, Any]:
        """For JSON, exactly."""
        return {"format": FORMAT, "first": asdict(self.first), "later": asdict(self.later)}

    @staticmethod
    def from_dict(content: Any) -> HitProbability:
        """What `to_dict` gave. Raises UserError when it is damaged or of another format."""
        try:
            if content["format"] != FORMAT:
                raise ValueError("another format")
            return HitProbability(_map_of(content["first"]), _map_of(content["later"]))
        except (KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:100]
            raise UserError(f"damaged calibration ({reason}); calibrate again") from None


def rising_slopes(features: Floats, right: Bools, steps: int = 50) -> Floats:
    """Slopes (F,) of 0 or more of the logistic regression of `right` (N,) on features (N, F).

    Newton's method on standardised features; a slope that comes out below 0 is fixed at 0 and the
    others are fitted again (for two features that is the optimum of the convex problem).
    """
    scale = features.std(axis=0)
    scale = np.where(scale > 1e-12, scale, np.inf)
    scaled = (features - features.mean(axis=0)) / scale
    used = np.isfinite(scale)
    slopes = np.zeros(features.shape[1])
    while used.any():
        slopes[:] = 0
        slopes[used] = _logistic(scaled[:, used], right.astype(np.float64), steps)
        if (slopes[used] >= 0).all():
            break
        used &= slopes > slopes.min()
        slopes[~used] = 0
    return slopes / scale


def expected_calibration_error(probability: Floats, right: Bools, bins: int = 10) -> float:
    """The mean over hits (N,) of |share right - mean probability| of their bin of equal width.

    Naeini et al., AAAI 2015; Guo et al., ICML 2017. Even perfect probabilities have some, by
    chance: near sum over the bins of sqrt(2 / pi x variance of the bin's share) x share of hits.
    NaN for none.
    """
    if not len(probability):
        return float("nan")
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    difference = np.bincount(place, right.astype(np.float64) - probability, minlength=bins)
    return float(np.abs(difference).sum() / len(probability))


def _logistic(features: Floats, right: Floats, steps: int) -> Floats:
    """Slopes of a logistic regression with intercept, its squares held down by a small ridge."""
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    ridge = np.full(design.shape[1], _RIDGE * len(features))
    ridge[-1] = 1e-9 * len(features)
    share = (right.sum() + 0.5) / (len(right) + 1)
    weights = np.zeros(design.shape[1])
    weights[-1] = np.log(share / (1 - share))

    def loss(weights: Floats) -> float:
        score = design @ weights
        return float(np.logaddexp(0, score).sum() - right @ score + ridge @ weights**2 / 2)

    now = loss(weights)
    for _ in range(steps):
        chance = 0.5 + 0.5 * np.tanh(design @ weights / 2)
        slope = design.T @ (chance - right) + ridge * weights
        curve = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while (then := loss(weights - size * step)) > now and size > 1e-6:
            size /= 2
        if then >= now - 1e-10 * len(right):
            break
        weights, now = weights - size * step, then
    return np.asarray(weights[:-1])


def _map_of(content: Any) -> RisingMap:
    knots, values = (tuple(map(float, content[name])) for name in ("knots", "values"))
    slopes = float(content["similarity_slope"]), float(content["gap_slope"])
    rising = all((np.diff(numbers) >= 0).all() for numbers in (knots, values))
    if not knots or len(knots) != len(values) or not rising or min(slopes) < 0:
        raise ValueError("a map that does not rise")
    return RisingMap(*slopes, knots, values)
