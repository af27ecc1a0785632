"""k-reciprocal encoding and its relatives against their dense definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import reranking as oracle

from resight.errors import UserError
from resight.graph.expand import augment, expand
from resight.graph.reciprocal import encode
from resight.graph.sparse import Sparse, joined, overlaps, weighted
from resight.graph.unit import best_of, products, unit_rows

CLOSE = 1e-6


def objects(n: int, seed: int, dim: int = 8, spread: float = 0.6) -> np.ndarray:
    """Some vectors an object, of uneven length."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(1, n // 4), dim))
    rows = centres[random.integers(len(centres), size=n)] + spread * random.normal(size=(n, dim))
    return rows * 10 ** random.uniform(-2, 2, (n, 1))


def ties(n: int, seed: int) -> np.ndarray:
    """Unit rows whose cosines are exact quarters: most of them tie."""
    random = np.random.default_rng(seed)
    rows = np.zeros((n, 8))
    for row in rows:
        row[random.choice(8, 4, replace=False)] = random.choice([-0.5, 0.5], 4)
    return rows


def cosines(left: np.ndarray, right: np.ndarray | None = None) -> np.ndarray:
    unit = unit_rows(left).astype(float)
    return unit @ (unit if right is None else unit_rows(right).astype(float)).T


drawn = given(
    n=st.integers(1, 45),
    k1=st.integers(1, 25),
    k2=st.integers(1, 8),
    seed=st.integers(0, 10_000),
    make=st.sampled_from([objects, ties]),
)


@drawn
@settings(max_examples=60, deadline=None)
def test_encoding_equals_the_definition(n, k1, k2, seed, make):
    vectors = make(n, seed)
    own, mean = oracle.encoded(cosines(vectors), k1, k2)
    found = encode(vectors, k1, k2)
    np.testing.assert_allclose(found.own.dense(n), own, atol=CLOSE)
    np.testing.assert_allclose(found.mean.dense(n), mean, atol=CLOSE)
    everyone = np.arange(n)
    some = everyone[::2]
    table = found.among(some, everyone).dense(n)
    np.testing.assert_allclose(table, oracle.shares(mean[some], mean), atol=CLOSE)


@drawn
@settings(max_examples=60, deadline=None)
def test_a_query_alone_equals_the_definition(n, k1, k2, seed, make):
    vectors = make(n + 3, seed)
    gallery, queries = vectors[:n], vectors[n:]
    asked = cosines(queries, gallery)
    found = encode(gallery, k1, k2)
    ids, near = best_of(asked, max(k1, k2 - 1))
    rows = found.beside(ids, near, lambda r, c: asked[r, c], found.inverted()).dense(n)
    among = cosines(gallery)
    wanted = [oracle.beside(among, row, k1, k2) for row in asked]
    np.testing.assert_allclose(rows, wanted, atol=CLOSE)
    for at in range(3):  # whoever else asks
        one = found.beside(
            ids[at : at + 1], near[at : at + 1], lambda r, c, at=at: asked[r + at, c],
            found.inverted(),
        )  # fmt: skip
        np.testing.assert_array_equal(one.dense(n)[0], rows[at])


def test_the_order_of_rows_does_not_matter():
    vectors = objects(60, 3)
    order = np.random.default_rng(0).permutation(60)
    plain = encode(vectors).among(np.arange(60), np.arange(60)).dense(60)
    turned = encode(vectors[order]).among(np.arange(60), np.arange(60)).dense(60)
    np.testing.assert_allclose(turned, plain[order][:, order], atol=CLOSE)
    np.testing.assert_allclose(plain, plain.T, atol=CLOSE)
    np.testing.assert_allclose(np.diag(plain), 1, atol=CLOSE)


@given(n=st.integers(1, 40), k=st.integers(1, 12), seed=st.integers(0, 999),
       alpha=st.sampled_from([0.0, 1.0, 3.0]), make=st.sampled_from([objects, ties]))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_expansion_equals_the_definition(n, k, seed, alpha, make):
    vectors = make(n + 2, seed)
    unit = unit_rows(vectors)
    gallery, queries = unit[:n], unit[n:]
    ids, near = best_of(products(queries, gallery), k)
    found = expand(queries, gallery, ids, near, alpha)
    wide = gallery.astype(float)
    wanted = [oracle.expanded(q.astype(float), wide, k, alpha) for q in queries]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    # Each vector of a gallery is expanded by the others, not by itself.
    table = wide @ wide.T
    for i, row in enumerate(augment(vectors[:n], k, alpha)):
        total = wide[i].copy()
        for j in oracle.nearest(table[i], k, i):
            total += max(table[i, j], 0) ** alpha * wide[j]
        np.testing.assert_allclose(row, total / (np.linalg.norm(total) or 1), atol=1e-6)


@given(n=st.integers(1, 30), k=st.integers(1, 35), levels=st.integers(1, 3),
       seed=st.integers(0, 999))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_best_of_rows(n, k, levels, seed):
    random = np.random.default_rng(seed)
    scores = random.integers(-levels, levels + 1, (4, n)) / levels
    without = random.integers(-1, n, 4)
    ids, values = best_of(scores, k, without)
    for row in range(4):
        wanted = oracle.nearest(scores[row], k, int(without[row]))
        assert ids[row].tolist() == wanted + [-1] * (k - len(wanted))
        assert values[row, : len(wanted)].tolist() == scores[row, wanted].tolist()


def sparse(random, rows: int, columns: int) -> tuple[Sparse, np.ndarray]:
    full = np.where(random.random((rows, columns)) < 0.3, random.random((rows, columns)), 0)
    full = full.astype(np.float32)
    row, column = np.nonzero(full)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))])
    return Sparse(indptr.astype(np.int64), column.astype(np.int32), full[row, column]), full


@given(seed=st.integers(0, 999), rows=st.integers(0, 9), columns=st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_sparse_rows_are_the_dense_ones(seed, rows, columns):
    random = np.random.default_rng(seed)
    some, full = sparse(random, rows, columns)
    np.testing.assert_array_equal(some.dense(columns), full)
    np.testing.assert_array_equal(some.turned(columns).dense(rows), full.T)
    picked = random.integers(0, max(rows, 1), 5 if rows else 0)
    np.testing.assert_array_equal(some.take(picked).dense(columns), full[picked])
    np.testing.assert_array_equal(joined([some, some]).dense(columns), np.r_[full, full])
    other, full_other = sparse(random, columns, columns)
    members = random.integers(-1, columns, (rows, 3)).astype(np.int32)
    weights = random.random((rows, 4)).astype(np.float32)
    total = weighted(members, weights, other, columns, diagonal=2.0, first=some)
    wanted = weights[:, 3:] * full
    for c in range(3):
        there = (members[:, c] >= 0)[:, None]
        wanted = wanted + there * weights[:, c : c + 1] * (
            full_other[members[:, c]] + 2 * np.eye(columns)[members[:, c]]
        )
    np.testing.assert_allclose(total.dense(columns), wanted, atol=1e-5)
    least = np.minimum(full[:, None], full_other[None]).sum(axis=2).reshape(rows, columns)
    shared = overlaps(some, other.turned(columns), columns)
    np.testing.assert_allclose(shared.dense(columns), least, atol=1e-5)


def test_no_neighbour_is_asked_for():
    with pytest.raises(UserError, match="k = 0"):
        encode(objects(5, 0), 0, 0)
