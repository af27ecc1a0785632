"""Queries that are gallery rows themselves: half of the product gives the ranks of the whole."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import ranking

from resight.data.imageset import ImageSet, normalise
from resight.evaluate import ranks as ranks_module
from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking import counter, counting, mutual
from resight.evaluate.ranking.csr import Csr
from resight.evaluate.ranks import GivenTruth, Ranks, join, rank_blocks
from resight.evaluate.rules.truth import matches
from resight.evaluate.scores import evaluate

TIES = ["by-id", "optimistic", "pessimistic"]


def assert_same(found: Ranks, expected: Ranks) -> None:
    for field in fields(Ranks):
        one, two = getattr(found, field.name), getattr(expected, field.name)
        if two is not None:
            np.testing.assert_array_equal(one, two, field.name)


def mutual_lists(rng, n: int, objects: int, cameras: int) -> tuple[list, list]:
    """Same object is right, by another camera where there are any; itself is junk."""
    object_, camera = rng.integers(0, objects, n), rng.integers(0, cameras, n)
    same = object_[:, None] == object_
    junk = same & (camera[:, None] == camera) if cameras > 1 else np.eye(n, dtype=bool)
    right = same & ~junk
    return tuple([np.flatnonzero(row).tolist() for row in mask] for mask in (right, junk))


def features(rng, n: int, dimensions: int, kind: str) -> np.ndarray:
    if kind == "few":  # copies, zero rows, exact ties
        return rng.integers(-1, 2, (n, dimensions)).astype(np.float32)
    rows = rng.normal(size=(n, dimensions)).astype(np.float32)
    if kind == "near":  # nearly every pair is undecided at first
        rows = rows[:1] + 1e-6 * rows
    return rows


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles, on the diagonal and off it, of few rows; few elements at once."""

    def use(rows: int, columns: int) -> None:
        monkeypatch.setattr(mutual, "TILE", (rows, columns))
        monkeypatch.setattr(counter, "_PRODUCT", (4, 8))

    return use


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 90),
    share=st.sampled_from([1.0, 0.6, 0.1]),
    objects=st.sampled_from([1, 2, 9, 40]),
    cameras=st.sampled_from([1, 3]),
    kind=st.sampled_from(["any", "few", "near"]),
    tile=st.sampled_from([(4, 4), (8, 12), (32, 16), (64, 128), (2048, 2048)]),
    ties=st.sampled_from(TIES),
)
def test_equals_the_full_sort(seed, n, share, objects, cameras, kind, tile, ties):
    rng = np.random.default_rng(seed)
    rows = features(rng, n, int(rng.integers(1, 6)), kind)
    right, junk = mutual_lists(rng, n, objects, cameras)
    asking = np.flatnonzero(rng.random(n) < share)
    lists = [[some[q] for q in asking] for some in (right, junk)]
    truth = GivenTruth(*(Csr.from_lists(some) for some in lists), same=asking)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mutual, "TILE", tile)
        patch.setattr(mutual, "_SAMPLE", 2)
        patch.setattr(counter, "_PRODUCT", (4, 8))
        blocks = list(rank_blocks(rows[asking], rows, truth, ties=ties))
    assert all(block.queries is not None for block in blocks)
    found = join(iter(blocks))
    assert_same(found, join(rank_blocks(rows[asking], rows, replace(truth, same=None), ties=ties)))
    matrix = ranking.similarities(rows[asking], rows)
    triples = list(
        zip(found.rank.tolist(), found.index.tolist(), found.similarity.tolist(), strict=True)
    )
    ends = zip(found.indptr[:-1], found.indptr[1:], strict=True)
    assert [triples[a:b] for a, b in ends] == ranking.ranks(matrix, *lists, ties)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("kind", ["any", "few", "near"])
@pytest.mark.parametrize("dimensions", [3, 300])
def test_hundreds_of_positives(small_tiles, kind, ties, dimensions):
    """Placed one by one, in tiles of which some are turned; scale made from few."""
    rng = np.random.default_rng(dimensions)
    rows = features(rng, 700, dimensions, kind)
    right, junk = mutual_lists(rng, 700, 3, 1)
    truth = GivenTruth(Csr.from_lists(right), Csr.from_lists(junk), same=np.arange(700))
    expected = join(rank_blocks(rows, rows, replace(truth, same=None), ties=ties))
    small_tiles(128, 64)
    assert_same(join(rank_blocks(rows, rows, truth, ties=ties)), expected)
    matrix = ranking.similarities(rows[:5], rows)
    by_hand = ranking.ranks(matrix, right[:5], junk[:5], ties)
    ranks = [rank for row in by_hand for rank, _, _ in row]
    assert expected.rank[: len(ranks)].tolist() == ranks


def test_a_place_of_more_than_two_bytes(small_tiles):
    """The positives' places are kept in as few bytes as hold them."""
    small_tiles(64, 64)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 4)).astype(np.float32)
    right, junk = mutual_lists(rng, 200, 5, 1)
    truth = GivenTruth(Csr.from_lists(right), Csr.from_lists(junk), same=np.arange(200))
    plain = truth.mutual()
    assert plain.kind() == np.uint16 and replace(plain, most=2**16 + 1).kind() == np.int32
    expected = join(rank_blocks(rows, rows, truth))

    class Wide(GivenTruth):
        def mutual(self):
            return replace(plain, most=2**16 + 1)

        def take(self, queries):
            return truth.take(queries)

    assert_same(join(rank_blocks(rows, rows, Wide(truth.positives, truth.junk))), expected)


def table(rng, n: int) -> pl.DataFrame:
    objects = [None if one == 0 else f"o{one}" for one in rng.integers(0, 12, n)]
    cameras = [None if one == 0 else f"c{one}" for one in rng.integers(0, 4, n)]
    columns = {"path": [f"{i}.jpg" for i in range(n)], "object": objects, "camera": cameras}
    return pl.DataFrame(columns, schema_overrides={"object": pl.String, "camera": pl.String})


@pytest.mark.parametrize("cross_camera", [False, True])
def test_an_evaluation_has_the_same_digits_with_and_without(cross_camera, monkeypatch):
    """Unknown objects and cameras, lone ones: in little memory it goes block by block."""
    rng = np.random.default_rng(4)
    images = ImageSet(normalise(table(rng, 150)), "")
    rows = rng.normal(size=(150, 6)).astype(np.float32)
    protocol = Protocol("leave-one-out", cross_camera=cross_camera)
    found = matches(images.table, protocol)
    same = found.truth.mutual()
    np.testing.assert_array_equal(found.gallery[same.rows], found.queries)
    for q in range(len(found.queries)):  # all that is right for it can be named from its start
        right = found.truth.lists(q, q + 1)[0].indices
        assert set(right) <= set(same.order[same.start[q] : same.start[q] + same.most])
    used = []
    original = mutual.mutual_blocks
    monkeypatch.setattr(mutual, "mutual_blocks", lambda *a: used.append(1) or original(*a))
    whole = evaluate(rows, images, protocol=protocol)
    assert used
    parts = evaluate(rows, images, protocol=protocol, block_bytes=4000)
    assert len(used) == 1
    assert whole.per_query.equals(parts.per_query)


def test_queries_outside_the_gallery_are_not_mutual():
    plain = table(np.random.default_rng(5), 40)
    roles = pl.Series("role", ["query"] * 10 + ["gallery"] * 30)
    images = normalise(plain.with_columns(roles))
    assert matches(images, Protocol("query-gallery")).truth.mutual() is None
    half = normalise(plain.with_columns(pl.Series("role", ["query"] + ["both"] * 39)))
    assert matches(half, Protocol("query-gallery")).truth.mutual() is None


def test_levels_never_fall_and_hold_what_is_hidden_apart():
    rng = np.random.default_rng(6)
    values = np.sort(np.concatenate([rng.normal(size=4000) * 0.3, [-1.0, 1.0, 0.2, 0.2 + 1e-7]]))
    for base, top in ((-0.5, 1.0), (0.2, 0.2), (0.999, 1.0), (-1.01, 1.01)):
        for kind in (np.float32, np.float64):
            out = np.empty(len(values), np.uint16)
            scale = counter.scale_of(-1.01, base, top, kind)
            counting.levels_of(values.astype(kind), scale[0], out)
            assert out.min() >= 1 and (np.diff(out.astype(int)) >= 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (64, 200), (130, 129)])
def test_columns_are_turned_rows(shape):
    rng = np.random.default_rng(7)
    levels = counter.new_levels(*shape)
    levels[:] = rng.integers(0, 2**16, levels.shape)
    strip = counting.STRIP
    for begin in range(0, shape[1], strip):
        width = min(strip, shape[1] - begin)
        turned = np.zeros((strip, levels.shape[0] + strip), np.uint16)
        fours = (width + 3) // 4, (shape[0] + 3) // 4
        counting._turn(levels.view(np.uint64), begin // 4, *fours, turned.view(np.uint64))
        np.testing.assert_array_equal(
            turned[:width, : shape[0]], levels[: shape[0], begin : begin + width].T
        )


def test_progress_counts_every_query_once(small_tiles):
    small_tiles(64, 32)
    rng = np.random.default_rng(8)
    rows = rng.normal(size=(230, 4)).astype(np.float32)
    right, junk = mutual_lists(rng, 230, 5, 1)
    for asking in (np.arange(230), np.arange(0, 230, 3)):
        lists = [Csr.from_lists([some[q] for q in asking]) for some in (right, junk)]
        done: list[float] = []
        truth = GivenTruth(*lists, same=asking)
        list(rank_blocks(rows[asking], rows, truth, tick=done.append))
        assert sum(done) == pytest.approx(len(asking))


def test_memory_decides_by_what_is_needed():
    need = mutual.bytes_needed(
        truth := GivenTruth(Csr.from_lists([[1], [0]]), Csr.empty(2), same=np.arange(2)),
        truth.mutual(), 2, 3,
    )  # fmt: skip
    rows = np.eye(2, 3, dtype=np.float32)
    for memory, queries in ((need, True), (need - 1, False)):
        (block,) = rank_blocks(rows, rows, truth, block_bytes=memory)
        assert (block.queries is not None) == queries
    assert ranks_module.BLOCK_BYTES < 10**9
