"""Which photos are asked about, and what their answers say of all: known truth, many samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.evaluate.asking.design import inclusion, systematic
from resight.evaluate.asking.estimate import weighted_difference


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(1, 70), st.floats(0.1, 1))
def test_probabilities(useful: list[float], n: int, floor: float) -> None:
    size = np.array(useful)
    p = inclusion(size, n, floor)
    taken = min(n, len(size))
    assert p.sum() == pytest.approx(taken) and (p > 0).all() and (p <= 1 + 1e-12).all()
    assert (p >= min(1, floor * n / len(size)) - 1e-9).all()  # nothing is near 0
    assert (np.diff(p[np.argsort(size)]) >= -1e-9).all()  # the more useful, the likelier
    drawn = systematic(p, size, np.random.default_rng(n))
    assert len(drawn) == taken and len(set(drawn.tolist())) == taken


@pytest.mark.parametrize(("useful", "n"), [([-1.0, 2], 1), ([np.nan, 1], 1), ([1.0, 2], 0)])
def test_probabilities_need_sense(useful: list[float], n: int) -> None:
    with pytest.raises(ValueError, match=r"needed|at least"):
        inclusion(np.array(useful), n)


def test_each_photo_is_drawn_as_often_as_its_probability_says() -> None:
    useful = np.random.default_rng(0).uniform(0, 9, 23) ** 2
    p = inclusion(useful, 7)
    assert p.max() < 1 or (p == 1).sum() < 7
    random, times, draws = np.random.default_rng(1), np.zeros(23), 3000
    for _ in range(draws):
        times[systematic(p, useful, random)] += 1
    error = np.sqrt(p * (1 - p) / draws)
    assert (np.abs(times / draws - p) <= 4.5 * error + 1e-12).all()


def population(kind: str, m: int) -> tuple[np.ndarray, np.ndarray]:
    """How useful M answers are, and what they would be."""
    random = np.random.default_rng([m, len(kind)])
    useful = np.log2(random.integers(2, 66, m) * random.integers(2, 66, m))
    strong = (useful - useful.min()) / np.ptp(useful)
    d = {
        "any": random.choice([-1, 0, 1], m, p=[0.2, 0.5, 0.3]),
        "useful ones": random.random(m) < strong,
        "the others": random.random(m) < (1 - strong) / 2,
        "rare": random.random(m) < 0.04,
        "turning": np.where(strong > 0.5, 1, -1),
        "all": np.ones(m),
    }[kind]
    return useful, d.astype(float)


KINDS = ("any", "useful ones", "the others", "rare", "turning", "all")
CASES = [(kind, 812, 20) for kind in KINDS]
CASES += [("turning", 60, 15), *((kind, 25, 20) for kind in ("any", "useful ones", "rare"))]


@pytest.mark.parametrize(("kind", "m", "n"), CASES)
def test_a_thousand_samples_of_a_known_truth(kind: str, m: int, n: int) -> None:
    """No bias beyond 3 standard errors, and 95 % intervals that hold the truth; some can't say."""
    useful, d = population(kind, m)
    p, truth, random = inclusion(useful, n), d.mean(), np.random.default_rng(5)
    values, held, horvitz = [], 0, []
    for k in range(1000):
        rows = systematic(p, useful, random)
        horvitz.append((d[rows] / p[rows]).sum() / m)
        if k % 2:  # in every other sample about a tenth are not answered
            rows = rows[random.random(n) > 0.1]
        found = weighted_difference(d[rows], p[rows], n, m)
        assert -1 <= found.low <= found.value <= found.high <= 1
        values.append(found.value)
        held += found.low - 1e-12 <= truth <= found.high + 1e-12
    for means in (values, horvitz):
        error = np.std(means) / np.sqrt(len(means))
        assert abs(np.mean(means) - truth) <= 3 * error + 1e-9
    assert held >= 920, held


def test_equal_weights_are_bonett_and_price() -> None:
    """Of very many photos the interval is the published one, from the counts alone."""
    d = np.repeat([1.0, -1, 0], [9, 3, 12])
    n = len(d)
    found = weighted_difference(d, np.full(n, 1e-9), n, 10**9 * n)
    a, b = (9 + 1) / (n + 2), (3 + 1) / (n + 2)
    half = 1.959964 * np.sqrt((a + b - (a - b) ** 2) / (n + 2))
    assert found.value == pytest.approx(6 / n)
    assert (found.low, found.high) == pytest.approx((a - b - half, a - b + half), abs=1e-6)


def test_weights_count_as_so_many_photos() -> None:
    found = weighted_difference(np.array([1.0, -1, 0]), np.array([0.1, 0.5, 0.25]), 3, 100)
    assert found.value == pytest.approx((10 - 2) / (10 + 2 + 4))


def test_all_answered_is_known_and_one_answer_says_little() -> None:
    d = np.array([1.0, 0, 0, -1, 1])
    found = weighted_difference(d, np.ones(5), 5, 5)
    assert (found.low, found.value, found.high) == pytest.approx((0.2, 0.2, 0.2))
    one = weighted_difference(np.array([1.0]), np.array([0.1]), 1, 10)
    assert one.value == 1 and one.low < 0


def test_answers_all_alike_leave_doubt() -> None:
    found = weighted_difference(np.zeros(20), np.full(20, 0.02), 20, 1000)
    assert found.value == 0 and found.low < -0.1 and found.high > 0.1


@pytest.mark.parametrize(
    ("m", "asked", "total", "p"), [(0, 1, 2, 1.0), (3, 2, 5, 0.5), (2, 2, 1, 0.5), (1, 1, 1, 0.0)]
)
def test_what_makes_no_sense(m: int, asked: int, total: int, p: float) -> None:
    with pytest.raises(ValueError, match=r"answered|probability"):
        weighted_difference(np.zeros(m), np.full(m, p), asked, total)
