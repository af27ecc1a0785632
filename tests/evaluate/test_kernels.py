"""The compiled loops and the routes into them: unit rows, tables, blocks, matrices, devices."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from itertools import pairwise
from math import isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import ranking

from resight.evaluate import ranks as ranks_module
from resight.evaluate.ranking import units
from resight.evaluate.ranking.csr import Csr
from resight.evaluate.ranking.result import GivenTruth, Ranks, join
from resight.evaluate.ranking.units import (
    UnitRows,
    exact_similarities,
    multiply_on,
    product,
    unit_rows,
)
from resight.evaluate.ranks import matrix_ranks, positive_ranks, rank_blocks

TIES = ("by-id", "optimistic", "pessimistic")
TORCH = "cpu:0"  # any name but "cpu" goes through torch


def some_truth(rng: np.random.Generator, queries: int, gallery: int) -> GivenTruth:
    """Random positives and junk, in any order within a query; at times none, or nothing else."""
    lists: tuple[list, list] = ([], [])
    for _ in range(queries):
        kind = rng.choice(3, gallery, p=rng.dirichlet([0.5, 0.5, 0.5]))
        for k, rows in enumerate(lists, start=1):
            rows.append(rng.permutation(np.flatnonzero(kind == k)).tolist())
    return GivenTruth(*(Csr.from_lists(rows) for rows in lists))


def as_lists(csr: Csr) -> list[list[int]]:
    return [csr[q].tolist() for q in range(len(csr))]


def assert_same(found: Ranks, expected: Ranks) -> None:
    """To the last bit, and of the same types."""
    for name in (field.name for field in fields(Ranks)):
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype, name


def check(found: Ranks, matrix: np.ndarray, truth: GivenTruth, ties: str) -> None:
    """Ranks and best negatives against a full sort and a loop."""
    positives, junk = as_lists(truth.positives), as_lists(truth.junk)
    expected = ranking.ranks(matrix, positives, junk, ties)
    assert found.counts().tolist() == [len(row) for row in expected]
    triples = zip(found.rank.tolist(), found.index.tolist(), found.similarity.tolist(), strict=True)
    assert list(triples) == [one for row in expected for one in row]
    for q, row in enumerate(matrix):
        best, similarity = -1, np.nan
        for g in range(len(row)):
            if g in positives[q] or g in junk[q]:
                continue
            if best < 0 or row[g] > similarity:  # of equal ones the first stays
                best, similarity = g, row[g]
        assert found.negative[q] == best
        np.testing.assert_array_equal(found.negative_similarity[q], similarity)
        assert found.n_gallery[q] == len(row) - len(junk[q])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 6),
    gallery=st.integers(1, 30),
    dimensions=st.integers(1, 4),
    block_bytes=st.sampled_from([1, 50, 400, 5000, 2**29]),
    ties=st.sampled_from(TIES),
    whole=st.booleans(),
)
def test_best_negatives_and_ranks_equal_a_loop(
    seed, queries, gallery, dimensions, block_bytes, ties, whole
):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(queries + gallery, dimensions))
    if whole:
        rows = rng.integers(-1, 2, rows.shape).astype(float)
    truth = some_truth(rng, queries, gallery)
    found = positive_ranks(
        rows[:queries], rows[queries:], truth.positives, truth.junk,
        block_bytes=block_bytes, ties=ties,
    )  # fmt: skip
    check(found, ranking.similarities(rows[:queries], rows[queries:]), truth, ties)


def test_the_best_negative_among_copies_is_the_first():
    """Equal and nearly equal: the exact similarity decides, then the lower row."""
    near = np.float32([1, 5e-4])  # nearer than float32 can tell
    gallery = np.float32([[0, 1], near, [1, 0], [1, 0], [2, 0], near])
    lists = [[], [2], [2, 3], [0], [2, 3, 4]], [[], [], [], [2], []]
    found = positive_ranks(
        np.float32([[1, 0]] * 5), gallery, *(Csr.from_lists(part) for part in lists)
    )
    assert found.negative.tolist() == [2, 3, 4, 3, 1]
    assert (
        found.negative_similarity[:4].tolist() == [1] * 4 > found.negative_similarity[4:].tolist()
    )


@pytest.mark.parametrize("ties", TIES)
def test_every_block_size_joins_to_the_same_digits(ties):
    """Tiles of one pair, two pairs, and so on to all; from a query a block to all."""
    rng = np.random.default_rng(TIES.index(ties))
    rows = rng.integers(-2, 3, (38, 3)).astype(np.float32)
    truth = some_truth(rng, 8, 30)
    expected = positive_ranks(rows[:8], rows[8:], truth.positives, truth.junk, ties=ties)
    pieces = set()
    for block_bytes in [1, 12, *range(32, 32 * 250, 32 * 5), 2**20]:
        blocks = list(rank_blocks(rows[:8], rows[8:], truth, block_bytes=block_bytes, ties=ties))
        pieces.add(len(blocks))
        assert sum(len(block) for block in blocks) == 8
        assert_same(join(iter(blocks)), expected)
    assert {1, 8} <= pieces


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    ties=st.sampled_from(TIES),
    tile=st.tuples(st.integers(1, 9), st.integers(1, 70)),
    threaded=st.integers(1, 9),
)
def test_every_shape_of_tile_gives_the_same_digits(seed, ties, tile, threaded):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (74, 3)).astype(np.float32)
    truth = some_truth(rng, 8, 66)
    expected = positive_ranks(rows[:8], rows[8:], truth.positives, truth.junk, ties=ties)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks_module, "_tile", lambda *_: tile)
        patch.setattr(units, "_cores", lambda: threaded)
        again = positive_ranks(rows[:8], rows[8:], truth.positives, truth.junk, ties=ties)
    assert_same(again, expected)
    check(expected, ranking.similarities(rows[:8], rows[8:]), truth, ties)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    ties=st.sampled_from(TIES),
    images=st.integers(1, 70),
    tile=st.integers(1, 40),
    threaded=st.integers(1, 5),
    values=st.integers(1, 400),
)
def test_where_the_gallery_asks_half_of_the_product_does(
    seed, ties, images, tile, threaded, values
):
    """The same object twice: tiles are turned. Also where right goes one way only."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-values, values + 1, (images, 3)).astype(np.float32)
    truth = some_truth(rng, images, images)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks_module, "_MUTUAL", tile)
        patch.setattr(units, "_cores", lambda: threaded)
        patch.setattr(
            ranks_module, "product", lambda *args: (made.append(args[2].size), product(*args))
        )
        found = positive_ranks(rows, rows, truth.positives, truth.junk, ties=ties)
    squares = [min(tile, images - start) for start in range(0, images, tile)]
    assert sum(made) == (images**2 + sum(side**2 for side in squares)) / 2
    assert_same(found, positive_ranks(rows, rows[:], truth.positives, truth.junk, ties=ties))
    check(found, ranking.similarities(rows, rows), truth, ties)


def test_a_block_of_queries_is_that_of_any_other_range():
    """A query's ranks do not depend on the queries beside it."""
    rng = np.random.default_rng(1)
    rows = rng.integers(-1, 2, (60, 3)).astype(np.float32)
    truth = some_truth(rng, 20, 40)
    expected = positive_ranks(rows[:20], rows[20:], truth.positives, truth.junk)
    for cuts in ([0, 20], [0, 7, 13, 20], list(range(21))):
        parts = [
            positive_ranks(rows[a:b], rows[20:], *truth.lists(a, b)) for a, b in pairwise(cuts)
        ]
        assert_same(join(iter(parts)), expected)


def test_nothing_to_join_has_the_types_of_something():
    rows = np.eye(3, dtype=np.float32)
    some = positive_ranks(rows, rows, Csr.from_lists([[1], [2], []]), Csr.empty(3))
    none = join(iter(()))
    assert len(none) == 0 and none.indptr.tolist() == [0]
    for field in fields(Ranks):
        assert getattr(none, field.name).dtype == getattr(some, field.name).dtype, field.name
    assert_same(join(iter([none, some, none])), some)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 6),
    gallery=st.integers(1, 40),
    kind=st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint16]),
    values=st.sampled_from(["few", "many", "huge", "near"]),
    ties=st.sampled_from(TIES),
)
def test_given_similarities_equal_a_full_sort(seed, queries, gallery, kind, values, ties):
    rng = np.random.default_rng(seed)
    shape = (queries, gallery)
    if values == "few":
        matrix = rng.integers(0, 3, shape).astype(kind)
    elif np.issubdtype(kind, np.integer):
        matrix = rng.integers(0, np.iinfo(kind).max // 2**11 + 2, shape).astype(kind)
    elif values == "huge":
        matrix = (rng.normal(size=shape) * (float(np.finfo(kind).max) / 8)).astype(kind)
    elif values == "near":  # neighbours on the number line, and zeros of both signs
        matrix = np.nextafter(kind(1), kind(2)) * rng.choice([0, -0.0, 1, 1 - 1e-3], shape)
        matrix = matrix.astype(kind)
    else:
        matrix = rng.normal(size=shape).astype(kind)
    truth = some_truth(rng, queries, gallery)
    before = matrix.copy()
    found = join(matrix_ranks(matrix, truth, ties=ties))
    check(found, matrix.astype(np.float64), truth, ties)
    np.testing.assert_array_equal(matrix, before)  # the caller's matrix stays as it is


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("ties", TIES)
def test_the_exact_similarities_give_the_ranks_of_the_features(kind, ties):
    """float64 holds them; in float32, on entries of few values, equal stays equal."""
    rng = np.random.default_rng(2)
    rows = rng.integers(-1, 2, (50, 3)).astype(np.float32)
    if kind is np.float64:
        rows += 1e-6 * rng.normal(size=rows.shape).astype(np.float32)
    truth = some_truth(rng, 12, 38)
    expected = positive_ranks(rows[:12], rows[12:], truth.positives, truth.junk, ties=ties)
    matrix = exact_similarities(unit_rows(rows[:12]), unit_rows(rows[12:]))
    np.testing.assert_array_equal(matrix, ranking.similarities(rows[:12], rows[12:]))
    found = join(matrix_ranks(matrix.astype(kind), truth, ties=ties))
    np.testing.assert_array_equal(found.rank, expected.rank)
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_array_equal(found.negative, expected.negative)
    np.testing.assert_array_equal(found.similarity, expected.similarity.astype(kind))
    if kind is np.float64:
        assert_same(found, expected)


def test_more_given_queries_than_one_block():
    rng = np.random.default_rng(3)
    matrix = rng.integers(0, 4, (2100, 7)).astype(np.float32)
    truth = some_truth(rng, 2100, 7)
    blocks = list(matrix_ranks(matrix, truth))
    assert len(blocks) > 1 and sum(len(block) for block in blocks) == 2100
    check(join(iter(blocks)), matrix.astype(np.float64), truth, "by-id")
    with pytest.raises(ValueError, match="row for every query"):
        next(matrix_ranks(matrix[1:], truth))


SPREADS = ["few", "equal", "cluster", "outliers", "tiny", "vast", "finite"]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("ties", TIES)
def test_hundreds_of_positives(kind, spread, ties):
    """The table that finds a place among many: even or crowded values, one value, the extremes."""
    rng = np.random.default_rng(SPREADS.index(spread))
    most = float(np.finfo(kind).max)
    shape = (3, 700)
    matrix = {
        "few": lambda: rng.integers(0, 6, shape) / 7,
        "equal": lambda: np.full(shape, 0.3),
        "cluster": lambda: 0.5 + 1e-6 * rng.normal(size=shape),
        "outliers": lambda: np.where(rng.random(shape) < 0.01, -1.0, 1e-3 * rng.normal(size=shape)),
        "tiny": lambda: rng.integers(-3, 4, shape) * 1e-36,
        "vast": lambda: rng.choice([-most / 4, -1.0, 0.0, 1.0, most / 4], shape),
        "finite": lambda: rng.choice([-most, -most / 2, -1.0, 0.0, 1.0, most / 2, most], shape),
    }[spread]().astype(kind)
    for most_positives in (4, 5, 300, 650):
        lists: tuple[list, list] = ([], [])
        for n in (most_positives, most_positives // 2, 0):
            mixed = rng.permutation(700)
            lists[0].append(mixed[:n].tolist())
            lists[1].append(mixed[n : n + 20].tolist())
        truth = GivenTruth(*(Csr.from_lists(rows) for rows in lists))
        check(join(matrix_ranks(matrix, truth, ties=ties)), matrix.astype(float), truth, ties)


@pytest.mark.parametrize("ties", TIES)
def test_hundreds_of_positives_from_features(ties):
    """Copies, near copies and others: undecided in float32, in one bucket of the table."""
    rng = np.random.default_rng(4)
    base = rng.normal(size=(1, 6)).astype(np.float32)
    near = base + 1e-6 * rng.normal(size=(250, 6)).astype(np.float32)
    gallery = np.concatenate((np.repeat(base, 150, axis=0), near, rng.normal(size=(100, 6))))
    gallery = rng.permutation(gallery)
    queries = np.concatenate((base, near[:1], -base))
    kind = rng.choice(3, (3, len(gallery)), p=[0.3, 0.6, 0.1])
    truth = GivenTruth(
        *(Csr.from_lists([np.flatnonzero(row == k).tolist() for row in kind]) for k in (1, 2))
    )
    matrix = ranking.similarities(queries, gallery)
    for block_bytes in (20_000, 2**29):
        found = positive_ranks(
            queries, gallery, truth.positives, truth.junk, ties=ties, block_bytes=block_bytes
        )
        check(found, matrix, truth, ties)


def exact_unit(row: np.ndarray) -> list[float]:
    """A row L2-normalised in whole numbers, rounded to 2**-26, then to float32."""
    values = [Fraction(float(value)) for value in row]
    common = 1
    for value in values:
        common = max(common, value.denominator)  # powers of two all
    whole = [int(value * common) for value in values]
    square = sum(value * value for value in whole)
    if square == 0:
        return [0.0] * len(whole)
    norm = Fraction(isqrt(square << 200), 2**100)  # to 2**-100 of the last place
    return [float(np.float32(float(Fraction(round(v * 2**26 / norm), 2**26)))) for v in whole]


@pytest.mark.parametrize("dimensions", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 100])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_unit_rows_equal_whole_numbers(kind, dimensions):
    """Rows of every size that the type holds, with zeros among them, and zero rows."""
    rng = np.random.default_rng(dimensions)
    info = np.finfo(kind)
    rows = rng.normal(size=(6, dimensions))
    rows[::3, ::2] = 0
    rows[5] = 0
    powers = np.linspace(info.minexp - info.nmant, info.maxexp - 4, 17).astype(int)
    rows = np.concatenate([np.ldexp(rows, power) for power in [0, *powers]]).astype(kind)
    assert np.isfinite(rows).all()
    expected = [exact_unit(row) for row in rows]
    found = unit_rows(rows)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found * 2**26, np.rint(found.astype(float) * 2**26))
    np.testing.assert_array_equal(
        ranking.similarities(rows[:1], rows[:1])[0, 0],
        exact_similarities(found[:1], found[:1])[0, 0],
    )


@settings(max_examples=60, deadline=None)
@given(
    row=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12),
    sign=st.sampled_from([1, -1]),
)
def test_unit_rows_of_any_numbers(row, sign):
    rows = np.array([row]) * sign
    np.testing.assert_array_equal(unit_rows(rows), [exact_unit(rows[0])])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int64, np.bool_])
def test_unit_rows_of_whole_numbers(kind):
    rows = np.array([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).astype(kind)
    expected = [exact_unit(row) for row in rows.astype(float)]
    np.testing.assert_array_equal(unit_rows(rows), expected)


def test_unit_rows_do_not_depend_on_the_block_or_the_layout():
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(units._CHUNK + 40, 11)).astype(np.float32)
    expected = unit_rows(rows)
    np.testing.assert_array_equal(unit_rows(np.asfortranarray(rows)), expected)
    np.testing.assert_array_equal(unit_rows(rows[::-1])[::-1], expected)
    for block in (1, 7, 64, len(rows), 10 * len(rows)):
        source = UnitRows(rows, block)
        for _ in range(2):  # the second time some are kept
            starts, parts = zip(*source.blocks(), strict=True)
            np.testing.assert_array_equal(np.concatenate(parts), expected)
            assert list(starts) == list(range(0, len(rows), min(block, len(rows))))
    assert unit_rows(rows[:0]).shape == (0, 11) and list(UnitRows(rows[:0], 5).blocks()) == []


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("dimensions", [3, 1030])
def test_another_device_gives_the_same_digits(ties, dimensions):
    """Through torch, with tied and with undecided pairs, in blocks and whole."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(dimensions)
    rows = rng.integers(-1, 2, (40, dimensions)).astype(np.float32)
    near = rows[:1] + 1e-6 * rng.normal(size=rows.shape).astype(np.float32)
    for features in (rows, near):
        truth = some_truth(rng, 10, 30)
        expected = positive_ranks(
            features[:10], features[10:], truth.positives, truth.junk, ties=ties
        )
        for block_bytes in (2000, 100_000, 2**29):
            found = positive_ranks(
                features[:10], features[10:], truth.positives, truth.junk,
                ties=ties, block_bytes=block_bytes, device=TORCH,
            )  # fmt: skip
            assert_same(found, expected)


def test_the_other_device_really_multiplies():
    """Its products are within the bound, also where rows change in place of others."""
    torch = pytest.importorskip("torch")
    calls = []
    plain = torch.tensor

    def counted(*values, **named):
        calls.append(named["device"])
        return plain(*values, **named)

    rng = np.random.default_rng(6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "tensor", counted)
        multiply = multiply_on(TORCH)
        for n in (5, 5, 9):
            left, right = (unit_rows(rng.normal(size=(n, 1100))) for _ in range(2))
            out, spare = np.empty((2, n, n), dtype=np.float32)
            for _ in range(2):
                product(left, right, out, spare, multiply)
                error = np.abs(out - exact_similarities(left, right)).max()
                assert 0 < error <= units.product_error(1100)
    assert calls and set(calls) == {TORCH}
