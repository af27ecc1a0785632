"""How sure a number is: error bars of means over queries, and the test of a difference.

Queries of one object are no independent draws: they share their positives. So whole groups of
queries (a group is an object, say) are resampled or flipped wherever groups are given; with one
query a group this is the ordinary bootstrap and the ordinary sign-flip test.

Outcomes don't depend on the order of the queries or on the numbering of the groups: groups are put
in an order of their own values before any is drawn. The same seed gives the same outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 2000
FLIPS = 9999
_EXACT = 16  # up to so many groups that differ, every pattern of signs is tried
_CELLS = 2**20  # numbers drawn at a time: bounds the memory


@dataclass(frozen=True)
class Paired:
    """Differences of M metrics between two runs, by query: mean (M,), interval (M, 2), p (M,)."""

    mean: Floats
    interval: Floats
    p: Floats


def bootstrap(
    values: Floats,
    groups: Ints | None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> Floats:
    """Percentile bootstrap intervals of the means of M metrics over Q queries, (M, 2) float64.

    values (M, Q): NaN where a query doesn't count for a metric. groups (Q,): the group of each
    query, any whole numbers; None where each stands for itself. G groups are drawn with
    replacement from the G there are, the same ones for all metrics; with S_g the sum of a metric
    over group g, N_g the queries that count, and w_g how often g was drawn, the resampled mean is

        sum_g w_g S_g / sum_g w_g N_g

    and the interval runs between the (1 - level) / 2 and (1 + level) / 2 quantiles of
    `resamples` of these (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter
    13; whole groups: Field & Welsh, "Bootstrapping clustered data", JRSS B 69, 2007). Below
    some twenty groups such intervals are known to be too narrow.

    A metric that fewer than two groups count for has the interval NaN, NaN. Of equal values both
    ends are that value. Time goes with resamples x G.

    Raises ValueError: shapes that don't fit, no resample, a level not between 0 and 1.
    """
    values = _checked(values, groups)
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"{resamples} resamples, level {level}: at least 1, and between 0 and 1")
    out = np.full((len(values), 2), np.nan)
    known = ~np.isnan(values).all(axis=1)
    if not known.any():
        return out
    # Measured from the least value: exact where all are equal.
    least = np.nanmin(values[known], axis=1)
    sums, counts = _by_group(values[known] - least[:, None], groups)
    means = np.concatenate(list(_resampled(sums, counts, resamples, seed)))
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    ends = np.full((len(least), 2), np.nan)
    for m in np.flatnonzero((counts > 0).sum(axis=0) > 1):
        column = means[:, m][~np.isnan(means[:, m])]
        if len(column):
            ends[m] = np.quantile(column, tails) + least[m]
    out[known] = ends
    return out


def paired(
    before: Floats,
    after: Floats,
    groups: Ints | None,
    *,
    resamples: int = RESAMPLES,
    flips: int = FLIPS,
    seed: int = 0,
    level: float = 0.95,
) -> Paired:
    """How two runs differ on the same queries: after - before, for M metrics over Q queries.

    before, after (M, Q): column q of both is the same query; it doesn't count for a metric where
    either is NaN. The interval is that of `bootstrap` on the differences. p is two-sided, of the
    hypothesis that the two runs could be swapped: the share of sign patterns, one sign a group
    (see `sign_flip`), whose difference is at least as large as the one found.

    A metric without any query has mean and interval NaN and p 1; runs that are equal have p 1.

    Raises ValueError: as `bootstrap`, or shapes of before and after that differ.
    """
    if before.shape != after.shape:
        raise ValueError(f"shapes {before.shape} and {after.shape} differ")
    differences = _checked(after - before, groups)
    interval = bootstrap(differences, groups, resamples=resamples, seed=seed, level=level)
    sums, counts = _by_group(differences, groups)
    total = counts.sum(axis=0)
    mean = np.full(len(differences), np.nan)
    np.divide(sums.sum(axis=0), total, out=mean, where=total > 0)
    return Paired(mean, interval, sign_flip(sums, flips=flips, seed=seed))


def sign_flip(sums: Floats, *, flips: int = FLIPS, seed: int = 0) -> Floats:
    """Two-sided p-values (M,) of the sums (G, M) of paired differences, one row a group.

    If the two runs could be swapped, each group's difference would be as likely with the other
    sign. p is the share of the 2^G patterns of signs s with |sum_g s_g D_g| >= |sum_g D_g|;
    groups without a difference change nothing and are left out. Where at most 16 are left all
    patterns are counted; else `flips` random ones, of which b are as large, give
    (b + 1) / (flips + 1), which is never 0 (Phipson & Smyth, "Permutation p-values should never
    be zero", 2010). What is equal but for rounding counts as equal.

    Raises ValueError: sums that are not (G, M), or no flips.
    """
    if sums.ndim != 2 or flips < 1:
        raise ValueError(f"sums of shape {sums.shape}, {flips} flips: (G, M) and at least 1")
    p = np.ones(sums.shape[1])
    differ = (sums != 0).sum(axis=0)
    for m in np.flatnonzero((differ > 0) & (differ <= _EXACT)):
        own = sums[sums[:, m] != 0, m][:, None]
        p[m] = np.mean(_as_large(_all_signs(len(own)) @ own, own))
    many = np.flatnonzero(differ > _EXACT)
    if len(many):
        own = sums[np.ix_((sums[:, many] != 0).any(axis=1), many)]
        found = np.zeros(len(many))
        for signs in _random_signs(len(own), flips, seed):
            found += _as_large(signs @ own, own).sum(axis=0)
        p[many] = (found + 1) / (flips + 1)
    return p


def _checked(values: Floats, groups: Ints | None) -> Floats:
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"values have shape {values.shape}, not (metrics, queries)")
    if groups is not None and groups.shape != values.shape[1:]:
        raise ValueError(f"groups have shape {groups.shape}, not ({values.shape[1]},)")
    return values


def _by_group(values: Floats, groups: Ints | None) -> tuple[Floats, Floats]:
    """Sums and counts (G, M) of the groups, in an order that only the values decide.

    The queries are ordered within a group first, so that rounding doesn't tell their order.
    """
    n_metrics, n_queries = values.shape
    if groups is None:
        group, size = np.arange(n_queries), n_queries
    else:
        names, group = np.unique(groups, return_inverse=True)
        size = len(names)
    if size < n_queries:
        order = np.lexsort((*values[::-1], group))
        values, group = values[:, order], group[order]
    known = ~np.isnan(values)
    sums, counts = np.empty((size, n_metrics)), np.empty((size, n_metrics))
    for m in range(n_metrics):
        counted = np.where(known[m], values[m], 0.0)
        sums[:, m] = np.bincount(group, counted, minlength=size)
        counts[:, m] = np.bincount(group, known[m], minlength=size)
    order = np.lexsort((*counts.T[::-1], *sums.T[::-1]))
    return sums[order], counts[order]


def _resampled(sums: Floats, counts: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    """The means of the resamples, (some, M) at a time; NaN where none counts."""
    rng = np.random.default_rng(seed)
    size, n_metrics = sums.shape
    whole = (counts == counts[:, :1]).all()  # the same queries count for all metrics
    table = np.hstack((sums, counts[:, :1] if whole else counts))
    at_a_time = max(1, _CELLS // size)
    for start in range(0, resamples, at_a_time):
        some = min(at_a_time, resamples - start)
        drawn = rng.integers(0, size, (some, size))
        drawn += size * np.arange(some)[:, None]
        times = np.bincount(drawn.ravel(), minlength=some * size).reshape(some, size)
        both = times.astype(np.float64) @ table
        total, number = both[:, :n_metrics], both[:, n_metrics:]
        number = np.broadcast_to(number, total.shape)
        yield np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


def _all_signs(size: int) -> Floats:
    """Every pattern of signs with a first +1, (2^(size - 1), size); the others mirror them."""
    bits = np.arange(2 ** (size - 1))[:, None] >> np.arange(size)
    signs: Floats = 1.0 - 2.0 * (bits & 1)[:, ::-1].astype(np.float64)
    return signs


def _random_signs(size: int, flips: int, seed: int) -> Iterator[Floats]:
    rng = np.random.default_rng(seed)
    width = -(-size // 8)
    at_a_time = max(1, _CELLS // size)
    for start in range(0, flips, at_a_time):
        some = min(at_a_time, flips - start)
        raw = np.frombuffer(rng.bytes(some * width), np.uint8).reshape(some, width)
        signs: Floats = 1.0 - 2.0 * np.unpackbits(raw, axis=1, count=size).astype(np.float64)
        yield signs


def _as_large(flipped: Floats, sums: Floats) -> NDArray[np.bool_]:
    slack = 1e-9 * np.abs(sums).sum(axis=0)
    large: NDArray[np.bool_] = np.abs(flipped) >= np.abs(sums.sum(axis=0)) - slack
    return large
