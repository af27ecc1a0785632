"""Error bars and p-values against plain loops, against simulation, and on the edges."""

from __future__ import annotations

import itertools
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from resight.evaluate.uncertainty import bootstrap, paired, sign_flip


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def loops(values, groups, resamples=4000, seed=5):
    """The interval of one metric, drawn group by group with other random numbers."""
    rng = np.random.default_rng(seed)
    members = {g: [v for v, h in zip(values, groups, strict=True) if h == g] for g in set(groups)}
    names = sorted(members)
    means = []
    for _ in range(resamples):
        drawn = [v for g in rng.choice(names, len(names)) for v in members[g] if not np.isnan(v)]
        if drawn:
            means.append(sum(drawn) / len(drawn))
    return np.quantile(means, [0.025, 0.975])


def clustered(rng, groups=40, most=9, spread=0.25):
    """Values in groups of unequal size, alike within a group."""
    group = np.repeat(np.arange(groups), rng.integers(1, most, groups))
    own = rng.normal(0.5, spread, groups)
    return own[group] + rng.normal(0, 0.1, len(group)), group


def test_intervals_are_those_of_plain_loops():
    rng = np.random.default_rng(0)
    first, group = clustered(rng)
    second = np.where(rng.random(len(group)) < 0.3, np.nan, rng.random(len(group)))
    made = bootstrap(np.array([first, second]), group, resamples=4000)
    for row, values in zip(made, (first, second), strict=True):
        expected = loops(values, group.tolist())
        width = expected[1] - expected[0]
        np.testing.assert_allclose(row, expected, atol=0.06 * width)


def test_without_groups_each_query_stands_for_itself():
    values = np.random.default_rng(1).random((2, 300))
    plain = bootstrap(values, None)
    np.testing.assert_array_equal(plain, bootstrap(values, np.arange(300)))
    error = values.std(axis=1) / 300**0.5
    np.testing.assert_allclose(plain[:, 1] - plain[:, 0], 2 * 1.96 * error, rtol=0.08)


def test_groups_that_are_alike_within_widen_the_interval():
    values = np.repeat(np.random.default_rng(2).random(50), 16)[None]
    group = np.repeat(np.arange(50), 16)
    (low, high), (below, above) = bootstrap(values, group)[0], bootstrap(values, None)[0]
    assert 3 < (high - low) / (above - below) < 5  # the square root of 16


def test_nineteen_of_twenty_intervals_cover_the_truth():
    rng = np.random.default_rng(3)
    cluster = plain = 0
    for _ in range(400):
        values, group = clustered(rng, groups=60)
        low, high = bootstrap(values[None], group, resamples=400)[0]
        cluster += low <= 0.5 <= high
        low, high = bootstrap(values[None], None, resamples=400)[0]
        plain += low <= 0.5 <= high
    assert 0.91 <= cluster / 400 <= 0.98, cluster / 400
    assert plain / 400 < 0.8, "queries of a group are not independent"


@given(
    values=arrays.arrays(
        float, (3, 30), elements=st.sampled_from([0.0, 0.25, 1 / 3, 0.7, 1.0, np.nan])
    ),
    groups=st.none() | arrays.arrays(np.int64, 30, elements=st.integers(-3, 8)),
    seed=st.integers(0, 2**32 - 1),
)
def test_order_and_numbering_do_not_matter(values, groups, seed):
    order = np.random.default_rng(seed).permutation(30)
    other = None if groups is None else 100 - 7 * groups[order]
    once = bootstrap(values, groups, resamples=50)
    np.testing.assert_array_equal(once, bootstrap(values[:, order], other, resamples=50))
    before = np.roll(values, 1, axis=0)
    a = paired(before, values, groups, resamples=20, flips=30)
    b = paired(before[:, order], values[:, order], other, resamples=20, flips=30)
    for name in ("mean", "interval", "p"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    known = ~np.isnan(once[:, 0])
    assert (once[known, 0] <= once[known, 1]).all()
    least, most = np.nanmin(values[known], axis=1), np.nanmax(values[known], axis=1)
    assert (once[known, 0] >= least - 1e-12).all() and (once[known, 1] <= most + 1e-12).all()
    assert ((a.p > 0) & (a.p <= 1)).all()


def test_another_metric_beside_it_changes_nothing():
    values = np.random.default_rng(4).random((2, 80))
    np.testing.assert_array_equal(bootstrap(values, None)[0], bootstrap(values[:1], None)[0])


def test_degenerate_values():
    nan = np.full((1, 2), np.nan)
    np.testing.assert_array_equal(bootstrap(np.array([[0.3]]), None), nan)  # one query
    np.testing.assert_array_equal(bootstrap(np.arange(9.0)[None], np.zeros(9, int)), nan)  # group
    np.testing.assert_array_equal(bootstrap(np.full((1, 9), np.nan), None), nan)
    np.testing.assert_array_equal(bootstrap(np.empty((1, 0)), None), nan)
    assert bootstrap(np.empty((0, 9)), None).shape == (0, 2)
    np.testing.assert_array_equal(bootstrap(np.full((1, 9), 0.1), None), [[0.1, 0.1]])
    half = np.array([[0.1, np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(bootstrap(half, None), nan)  # one query counts
    bootstrap(np.array([[0.1, 0.2] + 300 * [np.nan]]), None, resamples=1)  # none may be drawn


def test_degenerate_differences():
    same = np.random.default_rng(0).random((2, 20))
    made = paired(same, same, None)
    np.testing.assert_array_equal(made.mean, 0)
    np.testing.assert_array_equal(made.interval, 0)
    np.testing.assert_array_equal(made.p, 1)
    unknown = paired(np.full((1, 5), np.nan), np.ones((1, 5)), None)
    assert np.isnan(unknown.mean).all() and np.isnan(unknown.interval).all()
    assert unknown.p == 1
    single = paired(np.array([[0.2]]), np.array([[0.9]]), None)
    np.testing.assert_allclose(single.mean, 0.7)
    assert single.p == 1 and np.isnan(single.interval).all()
    empty = paired(np.empty((2, 0)), np.empty((2, 0)), None)
    assert np.isnan(empty.mean).all() and (empty.p == 1).all()


def test_p_by_hand():
    """+3, +1 and +1: of 8 patterns, + + + and - - - reach 5."""
    np.testing.assert_array_equal(sign_flip(np.array([[3.0], [1.0], [1.0]])), [2 / 8])
    # +3, -1, +1 gives 3; that reach 3: |3+1-1|, |3-1+1|, |3+1+1| and their mirrors.
    np.testing.assert_array_equal(sign_flip(np.array([[3.0], [-1.0], [1.0]])), [6 / 8])


@given(st.lists(st.sampled_from([-0.3, -0.1, 0.0, 0.1, 0.2, 0.5, 1 / 3]), min_size=1, max_size=9))
def test_p_is_that_of_all_patterns(differences):
    size = len(differences)
    patterns = itertools.product((1, -1), repeat=size)
    sums = [abs(sum(s * d for s, d in zip(p, differences, strict=True))) for p in patterns]
    expected = np.mean([s >= abs(sum(differences)) - 1e-12 for s in sums])
    assert sign_flip(np.array(differences)[:, None])[0] == expected


def test_sampled_p_is_near_that_of_all_patterns():
    rng = np.random.default_rng(6)
    own = rng.normal(0.3, 1, (17, 1))  # one more than are tried out
    signs = np.array(list(itertools.product((1, -1), repeat=17)))
    expected = np.mean(abs(signs @ own[:, 0]) >= abs(own.sum()))
    assert abs(sign_flip(own)[0] - expected) < 0.015
    clear = sign_flip(np.ones((60, 1)), flips=99)
    np.testing.assert_array_equal(clear, [1 / 100])


def test_p_flips_whole_groups():
    """Forty queries that differ alike are little evidence if they are of four objects."""
    before, group = np.zeros((1, 40)), np.arange(40) % 4
    assert paired(before, before + 0.1, group).p == 2 / 16
    assert paired(before, before + 0.1, None).p == 1 / 10_000


def test_p_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(8)
    found = np.concatenate([sign_flip(rng.normal(size=(30, 50)), flips=199) for _ in range(8)])
    for level in (0.05, 0.2, 0.5):
        assert abs(np.mean(found <= level) - level) < 0.06


def test_a_real_difference_is_found_and_measured():
    rng = np.random.default_rng(9)
    before, group = clustered(rng, groups=80)
    after = before + rng.normal(0.05, 0.1, len(group))
    made = paired(before[None], after[None], group)
    assert made.p < 0.001
    np.testing.assert_allclose(made.mean, np.mean(after - before))
    low, high = made.interval[0]
    assert 0 < low < made.mean[0] < high < 0.1
    back = paired(after[None], before[None], group)
    np.testing.assert_array_equal(back.mean, -made.mean)


def test_large_sets_take_no_time():
    rng = np.random.default_rng(0)
    for queries, groups in ((169_000, 500), (60_000, 11_000)):
        values, group = rng.random((7, queries)), rng.integers(0, groups, queries)
        start = time.process_time()
        bootstrap(values, group)
        assert time.process_time() - start < 2


def test_wrong_shapes_are_refused():
    values = np.ones((2, 5))
    for wrong, word in (
        (lambda: bootstrap(np.ones(5), None), "metrics, queries"),
        (lambda: bootstrap(values, np.zeros(4, int)), "groups have shape"),
        (lambda: bootstrap(values, None, resamples=0), "0 resamples"),
        (lambda: bootstrap(values, None, level=1), "level 1"),
        (lambda: paired(values, np.ones((2, 4)), None), "differ"),
        (lambda: sign_flip(np.ones(3)), "sums of shape"),
    ):
        with pytest.raises(ValueError, match=word):
            wrong()
