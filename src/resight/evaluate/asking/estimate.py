"""From answers about a sample to a difference over all photos, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resight.evaluate.uncertainty import Floats

Z = 1.959963984540054  # of a normal distribution, 95 % lie within so many deviations


@dataclass(frozen=True)
class Estimate:
    """A mean difference, from -1 to 1, and its 95 % interval."""

    value: float
    low: float
    high: float


def weighted_difference(
    difference: Floats, probability: Floats, asked: int, total: int
) -> Estimate:
    """The mean difference of `total` photos from those of a sample that were answered.

    difference (m,): 1 where only A's photo shows the same thing, -1 where only B's does, else 0.
    probability (m,): of being in the sample. asked: photos in the sample, of which m were
    answered; the others are taken for missing at random.

    The value is Hájek's: sum w d / sum w with w = 1 / probability (Hájek, 1971; Särndal, Swensson
    & Wretman, 1992, section 5.7). Over Horvitz and Thompson's sum w d / total, which is unbiased to
    the last digit, it has two advantages: it never leaves [-1, 1], and without some answers the
    weights of the rest need no other rule. Its bias is of the order of 1 / m times the spread of
    sum w, and `design.systematic` leaves next to no spread.

    The interval is that of Bonett and Price (2012) for differences of paired proportions, with
    weights: one made-up photo for A and one for B are added, of mean weight, and the linearised
    variance sum (1 - q) w² (d - centre)² / (sum w)² is taken, where q is the probability of being
    in the sample and answered; so it is never of no width because all answers were alike. Two
    things are added for samples that are most of the photos: the made-up ones move the centre
    only as far as photos are left, by the mean of 1 - q, and half a photo is put on each side, as
    the truth moves in steps. What was answered is known, so the ends are drawn in to what the
    other photos can still make of it: with all answered, value and ends are one.

    Raises ValueError: no answers, more than asked, or a probability that is not in (0, 1].
    """
    d = np.asarray(difference, np.float64)
    p = np.asarray(probability, np.float64)
    m = len(d)
    if not 0 < m <= asked <= total or p.shape != d.shape:
        raise ValueError(f"{m} answered of {asked} asked of {total}; {p.shape} probabilities")
    if not ((p > 0) & (p <= 1)).all():
        raise ValueError("a probability is in (0, 1]")
    w = 1 / p
    value = float(np.clip(w @ d / w.sum(), -1, 1))  # rounding
    left = 1 - p * (m / asked)
    some = float(left.mean())
    d2, w2, left2 = np.append(d, (1, -1)), np.append(w, [w.mean()] * 2), np.append(left, [some] * 2)
    shrunk = float(w2 @ d2 / w2.sum())
    variance = float(left2 @ (w2 * (d2 - shrunk)) ** 2) / w2.sum() ** 2
    half = Z * float(np.sqrt(variance)) + 0.5 / total
    centre = value + (shrunk - value) * some
    least, most = (d.sum() - (total - m)) / total, (d.sum() + (total - m)) / total
    low, high = (float(np.clip(end, least, most)) for end in (centre - half, centre + half))
    return Estimate(value, min(low, value), max(high, value))
