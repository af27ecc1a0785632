"""Metrics on a list worked by hand, and on the edges."""

from __future__ import annotations

import numpy as np
import pytest

from resight.evaluate import metrics
from resight.evaluate.csr import offsets
from resight.evaluate.ranks import Ranks


def ranks_of(*lists: list[int]) -> Ranks:
    counts = np.array([len(row) for row in lists])
    rank = np.array([r for row in lists for r in row], dtype=np.int64)
    n = len(lists)
    return Ranks(
        offsets(counts), rank, np.zeros_like(rank), np.zeros(len(rank)), np.full(n, 20),
        np.full(n, -1), np.full(n, np.nan),
    )  # fmt: skip


def test_the_list_worked_by_hand():
    """Positives at ranks 2, 3, 7, 11, 12 (papers.md, table D).

    rectangular: (1/2 + 2/3 + 3/7 + 4/11 + 5/12) / 5 = .4752
    trapezoidal: each precision is averaged with the one just before, 0/1, 1/2, 2/6, 3/10, 4/11
    """
    ranks = ranks_of([2, 3, 7, 11, 12])
    rectangular = (1 / 2 + 2 / 3 + 3 / 7 + 4 / 11 + 5 / 12) / 5
    before = (0 / 1 + 1 / 2 + 2 / 6 + 3 / 10 + 4 / 11) / 5
    np.testing.assert_allclose(metrics.average_precision(ranks), [rectangular], rtol=1e-15)
    trapezoidal = metrics.average_precision(ranks, "trapezoidal")
    np.testing.assert_allclose(trapezoidal, [(rectangular + before) / 2], rtol=1e-15)
    assert round(rectangular, 3) == 0.475 and trapezoidal.round(3) == 0.387
    assert metrics.hit_at(ranks, 1) == 0 and metrics.hit_at(ranks, 2) == 1
    np.testing.assert_allclose(metrics.inverse_negative_penalty(ranks), 5 / 12)
    assert metrics.first_ranks(ranks) == 2


def test_a_perfect_list_is_one_everywhere():
    ranks = ranks_of([1, 2, 3])
    for kind in ("rectangular", "trapezoidal"):
        assert metrics.average_precision(ranks, kind) == 1
    assert metrics.inverse_negative_penalty(ranks) == 1


def test_queries_without_a_positive_are_left_out_of_the_mean():
    ranks = ranks_of([], [2], [], [1, 4], [])
    ap = metrics.average_precision(ranks)
    np.testing.assert_allclose(ap, [np.nan, 0.5, np.nan, (1 + 2 / 4) / 2, np.nan])
    assert metrics.mean(ap) == (0.5 + 0.75) / 2
    np.testing.assert_allclose(metrics.cmc(ranks, 4), [0.5, 1, 1, 1])
    assert metrics.mean(metrics.hit_at(ranks, 1)) == 0.5


def test_the_curve_is_recall_at_every_cutoff():
    rng = np.random.default_rng(0)
    ranks = ranks_of(*(sorted(rng.choice(20, 3, replace=False) + 1) for _ in range(50)))
    curve = metrics.cmc(ranks, 15)
    assert curve.tolist() == [metrics.mean(metrics.hit_at(ranks, k)) for k in range(1, 16)]


def test_nothing_to_average():
    ranks = ranks_of([], [])
    assert np.isnan(metrics.mean(metrics.average_precision(ranks)))
    assert np.isnan(metrics.cmc(ranks, 3)).all()


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="rectangular"):
        metrics.average_precision(ranks_of([1]), "interpolated")  # type: ignore[arg-type]
