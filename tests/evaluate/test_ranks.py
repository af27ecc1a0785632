"""The core against its slow twin: ties, junk, block sizes, kinds of input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import ranking
from tests.oracles.sliced import OnlySlices

from resight.evaluate.ranking.csr import Csr
from resight.evaluate.ranking.kernels import dot
from resight.evaluate.ranking.result import Ranks
from resight.evaluate.ranking.units import product, product_error, unit_rows
from resight.evaluate.ranks import positive_ranks


def as_lists(result: Ranks) -> list[list[tuple[int, int, float]]]:
    triples = list(
        zip(result.rank.tolist(), result.index.tolist(), result.similarity.tolist(), strict=True)
    )
    return [triples[a:b] for a, b in zip(result.indptr[:-1], result.indptr[1:], strict=True)]


def random_lists(rng: np.random.Generator, queries: int, gallery: int) -> tuple[list, list]:
    """Positives and junk of each query: random, disjoint, sometimes empty."""
    positives, junk = [], []
    for _ in range(queries):
        kind = rng.choice(3, gallery, p=rng.dirichlet([1, 1, 1]))
        positives.append(rng.permutation(np.flatnonzero(kind == 1)).tolist())
        junk.append(np.flatnonzero(kind == 2).tolist())
    return positives, junk


def check(queries, gallery, positives, junk, **settings) -> Ranks:
    result = positive_ranks(
        queries, gallery, Csr.from_lists(positives), Csr.from_lists(junk), **settings
    )
    matrix = ranking.similarities(queries, gallery)
    expected = ranking.ranks(matrix, positives, junk, settings.get("ties", "by-id"))
    assert as_lists(result) == expected
    assert result.n_gallery.tolist() == [len(gallery) - len(row) for row in junk]
    return result


TIES = ["by-id", "optimistic", "pessimistic"]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 7),
    gallery=st.integers(1, 30),
    dimensions=st.integers(1, 5),
    block_bytes=st.sampled_from([1, 100, 1000, 10_000, 2**29]),
    ties=st.sampled_from(TIES),
    whole=st.booleans(),
)
def test_equals_the_full_sort(seed, queries, gallery, dimensions, block_bytes, ties, whole):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(queries + gallery, dimensions)).astype(np.float32)
    if whole:  # few values: duplicates, zero rows, exact ties
        rows = rng.integers(-1, 2, rows.shape).astype(np.float32)
    check(
        rows[:queries], rows[queries:], *random_lists(rng, queries, gallery),
        block_bytes=block_bytes, ties=ties,
    )  # fmt: skip


@pytest.mark.parametrize("dimensions", [1, 2, 511, 512, 513, 1100])
def test_long_vectors_with_near_ties(dimensions):
    """Rows that differ by a few float32 roundings: nearly every pair is undecided at first."""
    rng = np.random.default_rng(dimensions)
    base = rng.normal(size=dimensions).astype(np.float32)
    rows = base + 1e-6 * rng.normal(size=(30, dimensions)).astype(np.float32)
    check(rows[:6], rows[6:], *random_lists(rng, 6, 24))


def test_every_block_size_gives_the_same_digits():
    rng = np.random.default_rng(5)
    rows = rng.integers(0, 3, (60, 7)).astype(np.float32)
    positives, junk = random_lists(rng, 20, 40)
    lists = Csr.from_lists(positives), Csr.from_lists(junk)
    expected = check(rows[:20], rows[20:], positives, junk)
    for elements in range(1, 41 * 20, 7):
        result = positive_ranks(rows[:20], rows[20:], *lists, block_bytes=elements * 7 * 16)
        np.testing.assert_array_equal(result.rank, expected.rank)
        np.testing.assert_array_equal(result.similarity, expected.similarity)


@pytest.mark.parametrize("ties", ["optimistic", "pessimistic"])
def test_ranks_do_not_depend_on_the_order_of_the_gallery(ties):
    rng = np.random.default_rng(6)
    queries = rng.integers(0, 3, (15, 3)).astype(np.float32)
    gallery = rng.integers(0, 3, (50, 3)).astype(np.float32)
    positives, junk = random_lists(rng, 15, 50)
    first = check(queries, gallery, positives, junk, ties=ties)
    order = rng.permutation(50)
    place = np.argsort(order)
    moved = check(
        queries, gallery[order], [place[p].tolist() for p in positives],
        [place[j].tolist() for j in junk], ties=ties,
    )  # fmt: skip
    np.testing.assert_array_equal(first.rank, moved.rank)


def test_optimistic_and_pessimistic_enclose_by_id():
    rng = np.random.default_rng(7)
    rows = rng.integers(0, 2, (60, 4)).astype(np.float32)
    lists = random_lists(rng, 20, 40)
    best, middle, worst = (
        check(rows[:20], rows[20:], *lists, ties=ties).rank
        for ties in ("optimistic", "by-id", "pessimistic")
    )
    # Tied positives change places among themselves, so compare in rank order: as returned.
    assert (best <= middle).all() and (middle <= worst).all() and (best < worst).any()


def test_edges():
    """No positives; all junk; a single query; an empty gallery; no queries."""
    rows = np.eye(4, dtype=np.float32)
    check(rows[:1], rows, [[]], [[]])
    check(rows[:1], rows, [[]], [[0, 1, 2, 3]])
    check(rows[:1], rows, [[3]], [[0, 1, 2]])
    check(rows, rows[:0], [[]] * 4, [[]] * 4)
    check(rows[:0], rows, [], [])


def test_zero_rows_have_similarity_zero_to_all():
    rows = np.array([[0, 0], [1, 0], [0, 0], [-1, 0]], dtype=np.float32)
    result = check(rows, rows, [[2, 3]] * 4, [[]] * 4)
    assert result.rank.tolist() == [3, 4, 3, 4, 3, 4, 1, 3]


def test_identical_features_stay_within_bounded_memory():
    """Every pair is tied with every positive: 4 million near pairs, 20 positives each."""
    import tracemalloc

    rows = np.tile(np.linspace(-1, 1, 8, dtype=np.float32), (2000, 1))
    objects = np.arange(2000) % 100
    positives = [[i for i in range(q % 100, 2000, 100) if i != q] for q in range(2000)]
    tracemalloc.start()
    result = positive_ranks(
        rows, rows, Csr.from_lists(positives), Csr.from_lists([[q] for q in range(2000)]),
        block_bytes=2**24,
    )  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20
    by_hand = [[i + 1 - (i > q) for i in positives[q]] for q in range(2000)]
    assert result.rank.tolist() == [rank for row in by_hand for rank in row]
    assert len(objects) == 2000


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_memory_maps_of_any_type(tmp_path, kind):
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(40, 6)).astype(kind)
    rows.tofile(tmp_path / "rows.bin")
    mapped = np.memmap(tmp_path / "rows.bin", dtype=kind, mode="r", shape=rows.shape)
    check(mapped[:9], mapped[9:], *random_lists(rng, 9, 31), block_bytes=2000)


def test_anything_that_can_be_sliced():
    rng = np.random.default_rng(9)
    rows = rng.normal(size=(40, 6)).astype(np.float32)
    lists = tuple(Csr.from_lists(part) for part in random_lists(rng, 9, 31))
    one = positive_ranks(rows[:9], rows[9:], *lists)
    two = positive_ranks(OnlySlices(rows[:9]), OnlySlices(rows[9:]), *lists, block_bytes=500)
    np.testing.assert_array_equal(one.rank, two.rank)


def test_positive_rows_take_the_place_of_the_gallery_rows():
    """Each query's own column is replaced by a vector of its own: a loop says the same."""
    rng = np.random.default_rng(10)
    queries, gallery = rng.normal(size=(12, 5)), rng.normal(size=(9, 5))
    own = rng.normal(size=(12, 5))
    column = rng.integers(0, 9, 12)
    result = positive_ranks(
        queries, gallery, Csr.from_lists([[c] for c in column.tolist()]), Csr.empty(12),
        positive_rows=own, block_bytes=400,
    )  # fmt: skip
    for q in range(12):
        replaced = gallery.copy()
        replaced[column[q]] = own[q]
        matrix = ranking.similarities(queries[q : q + 1], replaced)
        assert as_lists(result)[q] == ranking.ranks(matrix, [[column[q]]], [[]])[0]


def test_huge_and_tiny_values():
    rows = np.array([[3e38, 4e38], [3, 4], [3e-320, 4e-320], [3e200, 4e200]])
    np.testing.assert_array_equal(unit_rows(rows), np.tile(np.float32([0.6, 0.8]), (4, 1)).round(9))


@pytest.mark.parametrize("dimensions", [3, 64, 700, 2048])
def test_the_product_keeps_its_error_bound(dimensions):
    """Constant rows are the worst case: every rounding falls to the same side."""
    rng = np.random.default_rng(dimensions)
    random = rng.normal(size=(40, dimensions))
    rows = unit_rows(np.concatenate((random, np.ones((1, dimensions)), np.abs(random))))
    n = len(rows)
    out, spare = np.empty((2, n, n), dtype=np.float32)
    product(rows, rows, out, spare)
    exact = np.array([[dot(x, y) for y in rows] for x in rows])
    np.testing.assert_array_equal(exact, rows.astype(float) @ rows.astype(float).T)
    assert np.abs(out - exact).max() <= product_error(dimensions)


def test_what_does_not_fit_is_refused():
    rows = np.eye(3, dtype=np.float32)
    none = Csr.empty(3)
    with pytest.raises(ValueError, match="ties"):
        positive_ranks(rows, rows, none, none, ties="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same D"):
        positive_ranks(rows, rows[:, :2], none, none)
    with pytest.raises(ValueError, match="row for every query"):
        positive_ranks(rows[:2], rows, none, none)
    with pytest.raises(ValueError, match="outside"):
        positive_ranks(rows, rows, Csr.from_lists([[3], [], []]), none)
    with pytest.raises(ValueError, match="every positive"):
        positive_ranks(rows, rows, none, none, positive_rows=rows)
    with pytest.raises(ValueError, match="indptr"):
        Csr(np.array([0, 2]), np.array([1]))
    with pytest.raises(ValueError, match="fall"):
        Csr(np.array([0, 2, 1]), np.array([1]))
