"""The nearest neighbours: against a plain sort, whatever the blocks, ties and broken rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import neighbours as oracle

from resight.errors import UserError
from resight.graph import neighbours as module
from resight.graph.neighbours import METHODS, NONE, nearest, open_search
from resight.graph.topk import keep_best

CLOSE = 2e-6  # of float32 sums over unit vectors


def rows(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(n, dim)) * 10 ** random.uniform(-3, 3, (n, 1))).astype(np.float32)


def found(vectors, k, **options) -> tuple[np.ndarray, np.ndarray]:
    parts = list(nearest(vectors, k, **options))
    starts = [start for start, _, _ in parts]
    assert starts == sorted(starts)
    return np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts])


def agrees(vectors, k, ids, similarities, valid=None) -> None:
    """As the oracle has it, where nearly equal similarities may change places."""
    assert ids.dtype == np.int32 and similarities.dtype == np.float32
    assert ids.shape == similarities.shape == (len(vectors), k)
    table = oracle.similarities(vectors)
    for row, wanted in enumerate(oracle.neighbours(vectors, k, valid)):
        own = ids[row, : len(wanted)]
        assert (ids[row, len(wanted) :] == -1).all()
        assert (similarities[row, len(wanted) :] == NONE).all()
        assert len(set(own.tolist())) == len(own) and row not in own and (own >= 0).all()
        if valid is not None:
            assert valid[own].all()
        truth = np.array([cosine for _, cosine in wanted])
        np.testing.assert_allclose(similarities[row, : len(wanted)], truth, atol=CLOSE)
        np.testing.assert_allclose(table[row, own], truth, atol=CLOSE)
        assert (np.diff(similarities[row]) <= 0).all()
        tied = np.diff(similarities[row, : len(wanted)]) == 0
        assert (np.diff(own)[tied] > 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 1), (2, 5), (7, 6), (130, 20), (300, 299)])
def test_against_a_plain_sort(method, n, k):
    vectors = rows(n)
    agrees(vectors, k, *found(vectors, k, method=method))


@given(
    n=st.integers(1, 40),
    k=st.integers(1, 45),
    levels=st.integers(1, 4),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=60)
def test_many_ties_and_broken_rows(n, k, levels, seed, share):
    """Few different vectors, some of them zero or not finite; which rows count is drawn too."""
    random = np.random.default_rng(seed)
    vectors = random.integers(-levels, levels + 1, (n, 3)).astype(np.float64)
    vectors[random.random(n) < share / 3] = np.nan
    vectors[random.random(n) < share / 3] = np.inf
    valid = random.random(n) >= share / 2
    for method in ("exact", "faiss"):
        with np.errstate(invalid="ignore"):
            agrees_up_to_ties(vectors, k, method, valid)


def agrees_up_to_ties(vectors, k, method, valid):
    ids, similarities = found(vectors, k, method=method, valid=valid)
    clean = np.where(np.isfinite(vectors).all(axis=1)[:, None], vectors, 0)
    agrees(clean, k, ids, similarities, valid & np.isfinite(vectors).all(axis=1))


def test_equal_vectors_come_by_row():
    """Even where the k-th place falls among them, and across tiles."""
    vectors = np.tile(rows(1, 24), (700, 1))
    ids, similarities = found(vectors, 5)
    assert ids[3].tolist() == [0, 1, 2, 4, 5] and ids[600].tolist() == [0, 1, 2, 3, 4]
    assert len(np.unique(similarities)) == 1
    search = open_search(vectors, 400, tile=64)
    assert search.ask(np.array([10]))[0][0].tolist() == [*range(10), *range(11, 401)]


def test_zero_vectors_are_at_right_angles_to_all():
    vectors = rows(6)
    vectors[2] = 0
    ids, similarities = found(vectors, 5)
    assert ids[2].tolist() == [0, 1, 3, 4, 5] and (similarities[2] == 0).all()


def test_huge_and_tiny_vectors():
    vectors = rows(20).astype(np.float64)
    ids, similarities = found(vectors, 5)
    for scale in (1e-200, 1e200):
        again, values = found(vectors * scale, 5)
        assert np.array_equal(again, ids)
        np.testing.assert_allclose(values, similarities, atol=CLOSE)


@given(st.integers(1, 300), st.integers(2000, 90_000))
@settings(max_examples=15)
def test_blocks_and_memory_do_not_matter(block, memory):
    """But for the last bit, and with it the order of equals: on some processors a product rounds a
    row by its place among the others. Rows that are made anew for each tile are those kept in
    memory."""
    vectors = np.repeat(rows(150, 8, seed=3), 2, axis=0)  # each twice: ties everywhere
    _, similarities = found(vectors, 9)
    unit = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    room, kept = module._ROOM, module._KEPT_BYTES
    module._ROOM, module._KEPT_BYTES = memory, 0
    try:
        search = open_search(vectors, 9)
        for start, some, values in module.blocks(search, range(300), block=block):
            part = slice(start, start + len(some))
            np.testing.assert_allclose(values, similarities[part], atol=CLOSE)
            exact = np.einsum("bkd,bd->bk", unit[some], unit[part])
            np.testing.assert_allclose(values, exact, atol=CLOSE)
            assert all(len(set(line)) == 9 for line in some.tolist())
    finally:
        module._ROOM, module._KEPT_BYTES = room, kept


@pytest.mark.parametrize("tile", [1, 64, 100, 256, 5000])
def test_tiles_do_not_matter(tile):
    vectors = np.repeat(rows(150, 8, seed=3), 2, axis=0)
    ids, similarities = open_search(vectors, 40, tile=tile).ask(np.arange(300))
    agrees(vectors, 40, ids, similarities)
    assert (ids[:, 0] == np.arange(300) ^ 1).all()  # its own twin


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_rows_does_not_matter(method):
    vectors, mixed = rows(200, 8), np.random.default_rng(5).permutation(200)
    ids, similarities = found(vectors, 10, method=method)
    again, values = found(vectors[mixed], 10, method=method)
    if method == "approximate":  # its lists are of other rows
        return
    assert np.array_equal(mixed[again], ids[mixed])
    np.testing.assert_allclose(values, similarities[mixed], atol=CLOSE)


@pytest.mark.parametrize("method", METHODS)
def test_some_rows_only(method):
    vectors, seen = rows(100), []
    ids, similarities = found(vectors, 4, method=method)
    parts = list(
        nearest(
            vectors,
            4,
            method=method,
            rows=range(37, 80),
            block=20,
            progress=lambda done, total: seen.append((done, total)),
        )
    )
    assert [(start, len(some)) for start, some, _ in parts] == [(37, 20), (57, 20), (77, 3)]
    assert seen == [(20, 43), (40, 43), (43, 43)]
    assert np.array_equal(np.concatenate([p[1] for p in parts]), ids[37:80])
    np.testing.assert_allclose(
        np.concatenate([p[2] for p in parts]), similarities[37:80], atol=CLOSE
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types(dtype):
    vectors = (rows(60) / 1000).astype(dtype)
    agrees(vectors, 7, *found(vectors, 7))


def test_the_recall_that_is_told_is_the_recall():
    """Noise in many dimensions, which lists serve badly; counted over all rows by the oracle."""
    vectors = rows(3000, 32, seed=2)
    search = open_search(vectors, 20, method="approximate")
    assert search.sample == 200 and 0.95 <= search.recall <= 1
    assert f"{search.recall:.1%}" in search.note
    ids, _ = found(vectors, 20)
    near, _ = search.ask(np.arange(3000))
    truth = np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(ids, near, strict=True)])
    assert truth == pytest.approx(search.recall, abs=0.02)
    assert truth < 1  # else this shows nothing


def test_nobody_is_usable():
    vectors = np.full((5, 4), np.nan, np.float32)
    for method in METHODS:
        ids, similarities = found(vectors, 2, method=method)
        assert (ids == -1).all() and (similarities == NONE).all()


def test_mistakes():
    with pytest.raises(UserError, match="method 'best' is none of exact, faiss, approximate"):
        open_search(rows(3), 1, method="best")
    with pytest.raises(UserError, match="k = 0"):
        open_search(rows(3), 0)
    with pytest.raises(ValueError, match="valid"):
        open_search(rows(3), 1, valid=np.ones(4, bool))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=60, unique=True), st.data())
def test_keep_best(values, data):
    k = data.draw(st.integers(1, len(values) - 1))
    keys = np.array(values, np.uint64)
    keep_best(keys, len(values), k)
    best = sorted(values, reverse=True)[:k]
    assert sorted(keys[:k].tolist(), reverse=True) == best and int(keys[k - 1]) == best[-1]
