"""Closed forms: against the papers' formulas done slowly, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import closed_form as oracle

from resight.models.closed_form import (
    Pair,
    discriminant,
    joined,
    main_axes,
    pair_discriminant,
    project,
    whitening,
)
from resight.models.moments import difference_scatter, moments, spread


def labelled(count: int, dims: int, each: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Objects of `each` images that lie apart along the first axes and spread along the others."""
    rng = np.random.default_rng(seed)
    objects = np.arange(count) // each
    centres = rng.normal(size=(objects[-1] + 1, dims)) * np.geomspace(1, 0.05, dims)
    noise = rng.normal(size=(count, dims)) * np.geomspace(0.05, 1, dims)
    vectors = (centres[objects] + noise + 1) * rng.uniform(0.1, 50, (count, 1))
    return vectors.astype(np.float32), objects


def apply(pair: Pair, vectors: np.ndarray) -> np.ndarray:
    weight, bias = (part.astype(np.float64) for part in pair)
    return np.asarray(oracle.unit(vectors) @ weight.T + bias)


def same(pair: Pair, vectors: np.ndarray, expected: np.ndarray, close: float = 1e-6) -> None:
    """The projected rows are these but for signs, to `close` of the weights' size (float32)."""
    assert pair[0].dtype == pair[1].dtype == np.float32
    out = apply(pair, vectors)
    assert out.shape == expected.shape
    expected = expected * np.sign((out * expected).sum(0))
    room = close * max(1.0, float(np.abs(pair[0]).max()))
    np.testing.assert_allclose(out, expected, rtol=0, atol=room)


def gram(pair: Pair, vectors: np.ndarray) -> np.ndarray:
    """What rankings stand on: the same whatever the signs, and turns of equal variances."""
    out = apply(pair, vectors)
    return np.asarray(out @ out.T)


# --- against the formulas


@pytest.mark.parametrize("dims", [1, 5, 8])
@pytest.mark.parametrize("floor", [0.0, 0.3, 10.0])
def test_whitening_is_the_main_axes_evened_out(dims, floor):
    vectors, _ = labelled(200, 8)
    pair = whitening(moments(vectors, block=17), dims, floor=floor)
    same(pair, vectors, oracle.white(vectors, dims, floor))
    out = apply(pair, vectors)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose((out**2).sum(1).mean(), 1, rtol=1e-5)
    covariance = out.T @ out / len(out)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-6)
    variances = np.diag(covariance)
    assert (np.diff(variances) < 1e-6).all()  # the main axes first
    if not floor:
        np.testing.assert_allclose(variances, 1 / dims, rtol=1e-4)


@pytest.mark.parametrize("dims", [3, 8, 12])
@pytest.mark.parametrize("shrink", [0.0, 0.1, 0.3, 1.0])
def test_the_discriminant_is_fishers(dims, shrink):
    """With fewer objects than dimensions the main directions of all rows come after."""
    vectors, objects = labelled(90, 12, each=10)
    objects = np.where(np.arange(90) % 11 == 3, -1, objects)  # some unknown
    sums = moments(vectors), spread(vectors, objects)
    pair = discriminant(*sums, dims, shrink=shrink, weigh=False)
    same(pair, vectors, oracle.discriminant(vectors, objects, dims, shrink))
    np.testing.assert_allclose((apply(pair, vectors) ** 2).sum(1).mean(), 1, rtol=1e-5)
    if not shrink:  # the differences within objects are evened out
        weight = pair[0].astype(np.float64)
        inside = weight @ oracle.within(vectors, objects) @ weight.T
        np.testing.assert_allclose(inside / inside[0, 0], np.eye(dims), atol=1e-4)


@pytest.mark.parametrize("each", [4, 20])
def test_a_direction_weighs_as_much_as_it_tells_objects_apart(each):
    """b / (b + w), estimated row by row; of 6 objects there are 5 such directions."""
    vectors, objects = labelled(120, 8, each)
    sums = moments(vectors), spread(vectors, objects)
    plain, weighed = (apply(discriminant(*sums, 5, weigh=w), vectors) for w in (False, True))
    groups = [plain[objects == name] for name in sorted(set(objects.tolist()))]
    inside = sum(((rows - rows.mean(0)) ** 2).sum(0) for rows in groups)
    inside = inside / (len(plain) - len(groups))
    places = np.mean([rows.mean(0) ** 2 for rows in groups], 0)
    places = places - inside * np.mean([1 / len(rows) for rows in groups])
    expected = np.maximum(places / inside, 1e-3)
    expected = expected / (1 + expected)
    found = np.linalg.norm(weighed, axis=0) / np.linalg.norm(plain, axis=0)
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-4)
    assert (np.diff(found) < 1e-6).all()  # the first directions tell the most


@pytest.mark.parametrize("each", [2, 30])
def test_many_and_few_objects_beside_the_dimensions_are_the_same_formula(each):
    """The smaller product is taken of the means: of 60 objects in 9 dimensions, and of 4."""
    vectors, objects = labelled(120, 9, each)
    pair = discriminant(moments(vectors), spread(vectors, objects), 7, weigh=False)
    same(pair, vectors, oracle.discriminant(vectors, objects, 7, 0.3))


@pytest.mark.parametrize("shrink", [0.0, 0.3])
def test_the_discriminant_of_pairs_is_the_learned_whitening(shrink):
    vectors, _ = labelled(200, 8)
    pairs = [(k, k + 1) for k in range(0, 200, 2)]
    sides = tuple(np.array(pairs).T)
    pair = pair_discriminant(moments(vectors), difference_scatter(vectors, sides), 6, shrink=shrink)
    difference = oracle.scatter(vectors, pairs)
    same(pair, vectors, oracle.pair_discriminant(vectors, difference, 6, shrink))


def test_joined_projections_are_turned_onto_their_main_axes():
    vectors, objects = labelled(200, 8)
    total = moments(vectors)
    first, second = whitening(total, 5), discriminant(total, spread(vectors, objects), 4)
    for dims in (1, 3):
        both = oracle.joined(apply(first, vectors), apply(second, vectors), dims)
        same(joined(first, second, total, dims), vectors, both, close=3e-6)
    everything = joined(first, second, total, 99)
    assert everything[0].shape[0] <= 8  # no more directions than the rows have
    apart = gram(first, vectors) + gram(second, vectors)
    np.testing.assert_allclose(gram(everything, vectors) * 2, apart, atol=1e-5)


def test_projecting_is_unit_length_then_linear():
    vectors, _ = labelled(20, 5)
    vectors[3] = 0
    pair = whitening(moments(vectors), 3)
    out = project(vectors, pair)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, apply(pair, vectors), atol=1e-5)
    np.testing.assert_allclose(out[3], pair[1], atol=1e-7)
    plain = project(vectors, None)
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain, oracle.unit(vectors), atol=1e-6)


# --- against scikit-learn


def test_whitening_without_a_floor_is_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    vectors, _ = labelled(200, 8)
    found = decomposition.PCA(5, whiten=True, svd_solver="full")
    same(
        whitening(moments(vectors), 5, floor=0),
        vectors,
        oracle.scaled(found.fit_transform(oracle.unit(vectors))),
    )


def test_the_discriminant_without_shrinkage_is_scikit_learns():
    """Objects of equal size: then the covariances within differ by a factor alone.

    Shrinkage is not the same thing there: it replaces a share of the covariance between classes,
    too. So for that the generalised eigenvalue problem is solved with its shrunk covariance.
    """
    analysis = pytest.importorskip("sklearn.discriminant_analysis")
    from scipy.linalg import eigh
    from sklearn.covariance import shrunk_covariance

    vectors, objects = labelled(120, 8, each=4)
    unit, total = oracle.unit(vectors), moments(vectors)
    found = spread(vectors, objects)
    lda = analysis.LinearDiscriminantAnalysis(solver="eigen", n_components=6)
    expected = lda.fit(unit, objects).transform(unit)
    expected = oracle.scaled(expected - expected.mean(0))
    same(discriminant(total, found, 6, shrink=0, weigh=False), vectors, expected)
    means = np.stack([unit[objects == k].mean(0) for k in range(30)])
    inside = (unit - means[objects]).T @ (unit - means[objects]) / len(unit)
    between = np.cov(means.T, bias=True)
    for shrink in (0.1, 0.3):
        _, axes = eigh(between, shrunk_covariance(inside, shrink))
        expected = oracle.scaled((unit - unit.mean(0)) @ axes[:, ::-1][:, :6])
        same(discriminant(total, found, 6, shrink=shrink, weigh=False), vectors, expected)


# --- what must not matter


@settings(max_examples=40)
@given(st.integers(1, 70), st.integers(0, 99))
def test_blocks_order_lengths_and_unusable_rows_change_no_ranking(block, seed):
    vectors, objects = labelled(60, 6, each=3, seed=seed)
    rng = np.random.default_rng(seed)
    valid = rng.random(60) < 0.8
    valid[:6] = True
    order = rng.permutation(60)
    changed = (vectors * rng.choice([0.25, 1, 64], (60, 1))).astype(np.float32)
    changed[~valid] = np.nan
    changed, mask, names = changed[order], valid[order], objects[order]
    plain = moments(vectors[valid]), spread(vectors[valid], objects[valid])
    other = moments(changed, mask, block=block), spread(changed, names, mask, block=block)
    for fit in (
        lambda total, _: whitening(total, 6),
        lambda total, found: discriminant(total, found, 6),
        lambda total, found: pair_discriminant(total, found.within, 6),
        lambda total, found: joined(whitening(total, 4), discriminant(total, found, 4), total, 6),
    ):
        expected, found = gram(fit(*plain), vectors), gram(fit(*other), vectors)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_fewer_dimensions_are_the_first_of_more():
    """So that candidates that differ in their dimensions alone are fitted once, and cut off."""
    vectors, objects = labelled(60, 9, each=10)
    total, found = moments(vectors), spread(vectors, objects)
    many = discriminant(total, found, 9)[0]
    for dims in (1, 4, 5, 7):  # 5 directions of 6 means, then those of all rows
        few = discriminant(total, found, dims)[0]
        cut = many[:dims] * (np.linalg.norm(few[0]) / np.linalg.norm(many[0]))
        np.testing.assert_allclose(few, cut, rtol=1e-4, atol=1e-5)


def test_signs_are_definite():
    vectors, objects = labelled(60, 6)
    total, found = moments(vectors), spread(vectors, objects)
    for weight, _ in (whitening(total, 6), discriminant(total, found, 6)):
        largest = weight[np.arange(6), np.abs(weight).argmax(1)]
        assert (largest > 0).all()


# --- little to learn from


def test_no_more_dimensions_come_out_than_the_rows_have():
    """Of rows that differ in 3 directions, the others are rounding: none of them is kept."""
    rng = np.random.default_rng(0)
    objects = np.arange(60) // 6
    base = rng.normal(size=(3, 10))
    vectors = (rng.normal(size=(10, 3))[objects] + 0.3 * rng.normal(size=(60, 3))) @ base
    directions = moments(vectors), spread(vectors, objects)
    for pair in (
        whitening(directions[0], 9),
        discriminant(*directions, 9),
        pair_discriminant(directions[0], directions[1].within, 9),
        joined(whitening(directions[0], 9), discriminant(*directions, 9), directions[0], 9),
    ):
        assert pair[0].shape == (3, 10) and pair[1].shape == (3,)
        assert np.abs(apply(pair, vectors)).max() < 10
    few, names = labelled(6, 40, each=3)
    for pair in (
        whitening(moments(few), 40),
        discriminant(moments(few), spread(few, names), 40),
    ):
        assert pair[0].shape == (5, 40) and np.isfinite(pair[0]).all()


def test_objects_whose_means_are_equal_leave_the_directions_of_all_rows():
    rng = np.random.default_rng(1)
    half = oracle.unit(rng.normal(size=(5, 4)))
    vectors, objects = np.concatenate([half, half]), np.arange(10) // 5
    total, found = moments(vectors), spread(vectors, objects)
    pair = discriminant(total, found, 4, weigh=False)
    expected = pair_discriminant(total, found.within, 4)
    np.testing.assert_allclose(gram(pair, vectors), gram(expected, vectors), atol=1e-5)


def test_few_images_stay_finite_whatever_the_shrinkage():
    vectors, objects = labelled(12, 40, each=2)
    vectors[:, :3] = 5 * objects[:, None] * np.float32([1, 2, 3])  # hardly any spread within
    total, found = moments(vectors), spread(vectors, objects)
    for shrink in (0, 0.1, 1):
        for pair in (
            discriminant(total, found, 40, shrink=shrink),
            pair_discriminant(total, found.within, 40, shrink=shrink),
        ):
            assert all(np.isfinite(part).all() for part in pair)
            out = apply(pair, vectors)
            np.testing.assert_allclose((out**2).sum(1).mean(), 1, rtol=1e-3)


def test_labels_bring_unseen_objects_together_where_whitening_does_not():
    vectors, objects = labelled(400, 16, each=10, seed=3)
    test, names = labelled(400, 16, each=10, seed=4)

    def hits(out: np.ndarray) -> float:
        """R@1 by the cosine."""
        unit = oracle.unit(out)
        near = (unit @ unit.T - 9 * np.eye(len(unit))).argmax(1)
        return float(np.mean(names == names[near]))

    total = moments(vectors)
    white = hits(apply(whitening(total, 16), test))
    learned = hits(apply(discriminant(total, spread(vectors, objects), 16), test))
    assert learned > max(hits(test), white) + 0.1, (hits(test), white, learned)


def parallel() -> np.ndarray:
    """One direction at many lengths: only rounding tells the rows apart."""
    return np.outer(np.linspace(0.1, 7, 9), [1, 2.7, 0.3]).astype(np.float32)


PLAIN, NAMES = labelled(12, 3, each=3)
TWICE = PLAIN.repeat(2, 0)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: whitening(moments(PLAIN), 0), "dims 0: at least 1"),
        (lambda: whitening(moments(PLAIN), 2, floor=-1), "floor -1: not below 0"),
        (lambda: whitening(moments(np.ones((9, 3))), 2), "all vectors are the same"),
        (lambda: whitening(moments(np.zeros((9, 3))), 2), "all vectors are the same"),
        (lambda: whitening(moments(parallel()), 2), "all vectors are the same"),
        (
            lambda: discriminant(moments(parallel()), spread(parallel(), np.arange(9) // 3), 2),
            "all vectors are the same",
        ),
        (
            lambda: pair_discriminant(moments(np.ones((9, 3))), np.eye(3), 2),
            "all vectors are the same",
        ),
        (lambda: discriminant(moments(PLAIN), spread(PLAIN, NAMES), 0), "dims 0"),
        (lambda: discriminant(moments(PLAIN), spread(PLAIN, NAMES), 2, shrink=1.1), "shrink 1.1"),
        (lambda: pair_discriminant(moments(PLAIN), np.eye(3), 2, shrink=-0.1), "shrink -0.1"),
        (lambda: pair_discriminant(moments(PLAIN), np.eye(3), 0), "dims 0"),
        (
            lambda: discriminant(moments(TWICE), spread(TWICE, np.arange(24) // 2), 2),
            "the images of each object have equal vectors",
        ),
        (lambda: main_axes(np.zeros((3, 3))), "all vectors are the same"),
    ],
)  # fmt: skip
def test_nothing_to_learn_is_one_clear_sentence(make, text):
    with pytest.raises(ValueError, match=text):
        make()
