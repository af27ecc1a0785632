"""Moments in one pass: against all rows at once, whatever the blocks, the order and the lengths."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import closed_form as oracle

from resight.models.moments import Moments, difference_scatter, moments, spread


def rows(count: int, dims: int, seed: int = 0) -> np.ndarray:
    """Correlated vectors of any length around a mean that isn't 0."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dims, dims)) * np.geomspace(3, 0.1, dims)
    made = (rng.normal(size=(count, dims)) @ mix + 2) * rng.uniform(0.1, 50, (count, 1))
    return made.astype(np.float32)


def objects_of(count: int, seed: int = 0) -> np.ndarray:
    """Some unknown (-1), some of a single image, and two that surely have two."""
    names = np.random.default_rng(seed).integers(-1, max(2, count // 3), count)
    names[:4] = 100, 7, 7, 100
    return names


@given(st.integers(2, 60), st.integers(1, 9), st.integers(1, 70), st.integers(0, 99))
def test_mean_and_covariance_whatever_the_blocks(count, dims, block, seed):
    vectors = rows(count, dims, seed)
    unit = oracle.unit(vectors)
    found = moments(vectors, block=block)
    assert found.count == count
    np.testing.assert_allclose(found.mean, unit.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.covariance, oracle.covariance(unit), atol=1e-12)
    np.testing.assert_array_equal(found.covariance, found.covariance.T)


@given(st.integers(5, 60), st.integers(1, 70), st.integers(0, 99))
def test_order_length_and_unusable_rows_change_nothing(count, block, seed):
    vectors, objects = rows(count, 5, seed), objects_of(count, seed)
    rng = np.random.default_rng(seed)
    valid = rng.random(count) < 0.7
    valid[:4] = True
    expected = moments(vectors[valid])
    apart = spread(vectors[valid], objects[valid])
    order = rng.permutation(count)
    changed = (vectors * rng.choice([0.25, 1, 1024], (count, 1))).astype(np.float32)
    changed[~valid] = np.nan
    found = moments(changed[order], valid[order], block=block)
    assert found.count == expected.count == valid.sum()
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-12)
    again = spread(changed[order], objects[order], valid[order], block=block)
    np.testing.assert_allclose(again.within, apart.within, atol=1e-12)
    np.testing.assert_allclose(again.means, apart.means, atol=1e-12)


@settings(max_examples=50)
@given(st.integers(4, 40), st.integers(1, 50), st.integers(0, 99))
def test_the_spread_within_objects_is_that_of_their_pairs(count, block, seed):
    vectors, objects = rows(count, 4, seed), objects_of(count, seed)
    found = spread(vectors, objects, block=block)
    np.testing.assert_allclose(found.within, oracle.within(vectors, objects), atol=1e-12)
    np.testing.assert_allclose(found.means, oracle.object_means(vectors, objects), atol=1e-12)
    renamed = np.where(objects < 0, -1, 1000 - objects)
    np.testing.assert_allclose(spread(vectors, renamed).within, found.within, atol=1e-12)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 99))
def test_the_scatter_of_pairs_is_half_their_mean_square(count, block, seed):
    vectors = rows(20, 4, seed)
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 20, (2, count))
    found = difference_scatter(vectors, (first, second), block=block)
    expected = oracle.scatter(vectors, list(zip(first, second, strict=True)))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_pairs_of_an_object_have_the_spread_within_it():
    vectors, objects = rows(24, 5), np.arange(24) // 4
    pairs = [(i, j) for i, j in combinations(range(24), 2) if objects[i] == objects[j]]
    found = difference_scatter(vectors, tuple(np.array(pairs).T))
    np.testing.assert_allclose(found, spread(vectors, objects).within, atol=1e-12)


def test_an_object_larger_than_a_block_is_taken_whole():
    vectors, objects = rows(30, 4), np.r_[np.zeros(20, int), np.ones(2, int), 2, np.full(7, 3)]
    for block in (1, 2, 3, 19, 22, 23):
        found = spread(vectors, objects, block=block)
        np.testing.assert_allclose(found.within, oracle.within(vectors, objects), atol=1e-12)


def test_columns_are_the_moments_of_these_columns():
    """Of parts of equal length, so that each part alone is of unit length times a number."""
    first, second = (oracle.unit(rows(30, 3, seed)) for seed in (0, 1))
    both = np.hstack([first, second])  # of the length √2
    columns = np.array([4, 3, 5])
    total = moments(both).columns(columns, 2**0.5)
    alone = moments(second[:, [1, 0, 2]])
    assert total.count == alone.count == 30
    np.testing.assert_allclose(total.mean, alone.mean, atol=1e-12)
    np.testing.assert_allclose(total.covariance, alone.covariance, atol=1e-12)
    objects = np.arange(30) // 3
    apart = spread(both, objects).columns(columns, 2**0.5)
    expected = spread(second[:, [1, 0, 2]], objects)
    np.testing.assert_allclose(apart.within, expected.within, atol=1e-12)
    np.testing.assert_allclose(apart.means, expected.means, atol=1e-12)


def test_little_is_lost_where_all_rows_are_nearly_the_same():
    rng = np.random.default_rng(0)
    vectors = 1 + 1e-6 * rng.normal(size=(500, 4))
    found = moments(vectors, block=64)
    expected = oracle.covariance(oracle.unit(vectors))
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-6, atol=1e-20)
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-20


def test_half_precision_and_rows_of_zeros_are_taken_as_they_are():
    vectors = rows(12, 4).astype(np.float16)
    vectors[3] = 0
    found = moments(vectors)
    unit = oracle.unit(vectors)
    assert isinstance(found, Moments) and not unit[3].any()
    np.testing.assert_allclose(found.mean, unit.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.covariance, oracle.covariance(unit), atol=1e-12)


def test_the_vectors_given_are_left_as_they_were():
    for kind in (np.float32, np.float64):
        vectors = rows(20, 4).astype(kind)
        before, objects = vectors.copy(), np.arange(20) // 2
        moments(vectors)
        spread(vectors, objects)
        difference_scatter(vectors, ([0], [1]))
        np.testing.assert_array_equal(vectors, before)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: moments(rows(1, 3)), "usable vectors: 1; at least two"),
        (lambda: moments(rows(9, 3), np.zeros(9)), "usable vectors: 0;"),
        (lambda: moments(rows(9, 3), np.ones(8)), r"shape \(8,\) for 9 vectors"),
        (lambda: moments(np.full((9, 3), np.nan)), "not finite"),
        (lambda: moments(np.full((9, 3), np.inf)), "not finite"),
        (lambda: spread(rows(9, 3), np.arange(9)), "0 objects with two"),
        (lambda: spread(rows(9, 3), np.r_[0, 0, 1:8]), "1 objects with two"),
        (lambda: spread(rows(9, 3), np.full(9, -1)), "0 objects with two"),
        (lambda: spread(rows(9, 3), np.arange(9) // 2, np.arange(9) < 3), "1 objects with two"),
        (lambda: spread(rows(9, 3), np.zeros(8)), r"\(8,\) objects for 9"),
        (lambda: spread(np.full((8, 3), np.nan), np.arange(8) // 2), "not finite"),
        (lambda: difference_scatter(rows(9, 3), ([], [])), "no pairs"),
        (lambda: difference_scatter(np.full((9, 3), np.nan), ([0], [1])), "not finite"),
    ],
)  # fmt: skip
def test_nothing_to_learn_is_one_clear_sentence(make, text):
    with pytest.raises(ValueError, match=text):
        make()
