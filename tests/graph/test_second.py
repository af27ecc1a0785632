"""Chains on arrays: against whole matrices, and what a mistake in a name is answered with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import reranking as oracle

import resight
from resight.errors import UserError
from resight.graph.diffusion import Diffused, diffuse
from resight.graph.graph import mutual
from resight.graph.neighbours import nearest
from resight.graph.outside import attached, from_neighbours
from resight.graph.rerank import Chain, parse
from resight.graph.second import Rescored, prepare
from resight.graph.unit import best_of, products, unit_rows


def objects(n: int, seed: int, dim: int = 8) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(1, n // 4), dim))
    return centres[random.integers(len(centres), size=n)] + 0.5 * random.normal(size=(n, dim))


def cosines(left, right) -> np.ndarray:
    return unit_rows(left).astype(float) @ unit_rows(right).astype(float).T


@given(n=st.integers(1, 40), k=st.integers(1, 12), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_diffusion_from_outside_is_one_product(n, k, seed):
    vectors = objects(n + 3, seed)
    gallery, queries = vectors[:n], vectors[n:]
    found = [part for part in nearest(gallery, 5)]
    f = diffuse(mutual(found[0][1], found[0][2]), top=7)
    asked = cosines(queries, gallery)
    ids, near = best_of(asked, k)
    rows = from_neighbours(f, ids, near).dense(n)
    np.testing.assert_allclose(
        rows, [oracle.diffused(f.dense(), row, k) for row in asked], atol=1e-6
    )
    assert rows.max(initial=0) <= 1 + 1e-6


def test_a_query_that_nothing_is_near_reaches_nothing():
    f = Diffused(np.full((3, 1), -1, np.int32), np.zeros((3, 1), np.float32))
    ids = np.array([[0, 1], [-1, -1]], np.int32)
    near = np.array([[-0.5, 0.0], [-2.0, -2.0]])
    assert not len(from_neighbours(f, ids, near).indices)
    assert from_neighbours(f, ids, np.array([[0.5, -1], [0, 0.0]])).dense(3)[0].tolist() == [
        1,
        0,
        0,
    ]


def test_what_came_since_stands_outside_the_graph():
    vectors = objects(43, 2)
    old = vectors[:40]
    found = [part for part in nearest(old, 6)]
    built = diffuse(mutual(found[0][1], found[0][2]), top=40)
    before = np.array([*range(3), -1, *range(3, 17), *range(18, 40), -1])  # one gone, two came
    rows = np.concatenate([old[:3], vectors[40:41], old[3:17], old[18:], vectors[41:42]])
    (part,) = nearest(rows, 6)
    now = attached(built, before, part[1], part[2], 4)
    full, stays = built.dense(), np.flatnonzero(before >= 0)
    dense = now.dense()
    np.testing.assert_allclose(
        dense[np.ix_(stays, stays)], full[np.ix_(before[stays], before[stays])], atol=1e-6
    )
    table = cosines(rows, rows)
    for new in np.flatnonzero(before < 0):
        near = [j for j in oracle.nearest(table[new], 6, new) if before[j] >= 0][:4]
        start = np.zeros(len(rows))
        start[near] = np.maximum(table[new, near], 0) ** 3
        row = (start / start.sum()) @ np.where(before >= 0, dense, 0)
        # rows of others hold the new ones, too: what they pass on to each other is not counted
        known = stays
        np.testing.assert_allclose(dense[new, known], row[known], atol=1e-5)
        np.testing.assert_allclose(dense[known, new], row[known], atol=1e-5)
    same = attached(built, np.arange(40), found[0][1], found[0][2])
    np.testing.assert_array_equal(same.neighbours, built.neighbours)


def wanted_scores(queries, gallery, how: str) -> np.ndarray:
    """By the definitions, for chains with default parameters beside those here."""
    base = cosines(queries, gallery)
    unit = unit_rows(gallery).astype(float)
    if "aqe" in how:
        turned = [oracle.expanded(q.astype(float), unit, 3, 2.0) for q in unit_rows(queries)]
        base = np.array(turned) @ unit.T
    if "kreciprocal" in how:
        table = cosines(gallery, gallery)
        shares = np.array([oracle.beside(table, row, 6, 3) for row in base])
        return 0.4 * base + 0.6 * shares
    if "diffusion" in how:
        found = [part for part in nearest(gallery, 4)]
        full = diffuse(mutual(found[0][1], found[0][2])).dense()
        return 0.01 * base + np.array([oracle.diffused(full, row, 5) for row in base])
    return base


HOWS = (
    "none", "aqe:n=3,alpha=2", "kreciprocal:k1=6,k2=3,weight=0.4", "diffusion:k=4,n=5,weight=0.01",
    "aqe:n=3,alpha=2+kreciprocal:k1=6,k2=3,weight=0.4",
    "aqe:n=3,alpha=2+diffusion:k=4,n=5,weight=0.01",
)  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("seed", range(3))
def test_chains_are_their_definitions(how, seed):
    vectors = objects(57, seed)
    gallery, queries = vectors[:50], vectors[50:]
    rows = Rescored(prepare(gallery, how), queries)
    scores = rows[0:7]
    np.testing.assert_allclose(scores, wanted_scores(queries, gallery, how), atol=2e-6)
    for at in range(7):  # whoever else asks, and however it is cut
        np.testing.assert_array_equal(rows[at : at + 1][0], scores[at])
    ids, best = resight.rerank(queries, gallery, how, 9)
    assert ids.shape == best.shape == (7, 9)
    for row in range(7):
        assert ids[row].tolist() == oracle.nearest(scores[row], 9)
        assert best[row].tolist() == scores[row, ids[row]].tolist()
    # What is looked up for a few is what stands in the whole row.
    prepared = prepare(gallery, how)
    if prepared.near and "aqe" not in how:
        base = products(unit_rows(queries), prepared.vectors)
        weight, added = prepared.looked(*best_of(base, prepared.near), lambda r, c: base[r, c])
        np.testing.assert_allclose(weight * base + added.dense(50), scores, atol=1e-12)


def test_augmented_galleries_are_searched_as_such():
    vectors = objects(40, 1)
    plain = resight.rerank(vectors[:5], vectors[5:], "none", 35)
    alone = resight.rerank(vectors[:5], vectors[5:], "dba:n=4,alpha=0", 35)
    unit = unit_rows(vectors[5:]).astype(float)
    table = unit @ unit.T
    turned = [unit[i] + unit[oracle.nearest(table[i], 4, i)].sum(axis=0) for i in range(35)]
    scores = cosines(vectors[:5], np.array(turned))
    assert alone[0].tolist() == [oracle.nearest(row, 35) for row in scores]
    assert alone[0].tolist() != plain[0].tolist()


def test_transductive_is_the_papers_form():
    vectors = objects(46, 4)
    gallery, queries = vectors[:40], vectors[40:]
    how = "kreciprocal:k1=8,k2=3,weight=0.3"
    rows = Rescored(prepare(gallery, how), queries, transductive=True)[0:6]
    table = cosines(vectors, vectors)
    _, mean = oracle.encoded(table, 8, 3)
    shares = oracle.shares(mean[40:], mean[:40])
    np.testing.assert_allclose(rows, 0.3 * table[40:, :40] + 0.7 * shares, atol=2e-6)
    # A query that is in the gallery too stands in the set once.
    own = np.arange(5)
    rows = Rescored(prepare(gallery, how), gallery[:5], own, transductive=True)[0:5]
    _, mean = oracle.encoded(table[:40, :40], 8, 3)
    wanted = 0.3 * table[:5, :40] + 0.7 * oracle.shares(mean[:5], mean)
    np.testing.assert_allclose(rows, wanted, atol=2e-6)
    rows = Rescored(prepare(gallery, "diffusion:k=4,weight=0"), queries, transductive=True)[0:6]
    found = [part for part in nearest(unit_rows(vectors), 4)]
    full = diffuse(mutual(found[0][1], found[0][2])).dense()
    np.testing.assert_allclose(rows, full[40:, :40], atol=1e-6)


def test_a_query_in_the_gallery_is_not_its_own_neighbour():
    gallery = objects(30, 7)
    own = np.arange(30)
    for how in ("aqe:n=3", "diffusion", "kreciprocal:k1=5"):
        with_own = Rescored(prepare(gallery, how), gallery, own)[0:30]
        assert not np.allclose(with_own, Rescored(prepare(gallery, how), gallery)[0:30])
    rows = Rescored(prepare(gallery, "aqe:n=2,alpha=0"), gallery, own)[0:30]
    unit = unit_rows(gallery).astype(float)
    table = unit @ unit.T
    turned = np.array([unit[i] + unit[oracle.nearest(table[i], 2, i)].sum(axis=0) for i in own])
    np.testing.assert_allclose(rows, cosines(turned, gallery), atol=1e-6)


def test_spatial_puts_verified_ones_in_front():
    gallery, queries = objects(30, 5), objects(4, 6)
    base = cosines(queries, gallery)
    order = np.array([oracle.nearest(row, 30) for row in base])
    seen = []

    def verify(query, place):
        seen.extend(zip(query.tolist(), place.tolist(), strict=True))
        return np.where(place == order[query, 3], 30, np.where(place == order[query, 4], 12, 5))

    rows = Rescored(prepare(gallery, "spatial:top=5"), queries, verify=verify)
    for row, wanted in zip(rows[0:4], order, strict=True):
        turned = [wanted[3], wanted[4], *wanted[:3], *wanted[5:]]
        assert oracle.nearest(row, 30) == turned
    assert sorted(set(seen)) == sorted((q, int(p)) for q in range(4) for p in order[q, :5])


def test_names_are_read_and_written():
    for text in (
        "none",
        "aqe",
        "kreciprocal:k1=30",
        "dba:n=5+aqe:alpha=0.0+diffusion+spatial:top=9",
    ):
        assert str(parse(text)) == text and parse(str(parse(text))) == parse(text)
    assert str(parse(" aqe : n = 10 + kreciprocal:weight=0.3 ")) == "aqe+kreciprocal"
    assert parse("none") == Chain() and not parse("none") and parse(parse("aqe")) == parse("aqe")
    assert parse("aqe:n=3+diffusion:k=7+spatial").derived == "diffusion:k=7"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kreciprocl", "did you mean kreciprocal"),
        ("magic", "there are none, aqe"),
        ("none+aqe", "none stands alone"),
        ("aqe:m=3", "no setting 'm'"),
        ("aqe:n=0", "n = 0"),
        ("aqe:n=many", "n = 'many'"),
        ("aqe:n", "not of the form name=value"),
        ("aqe:n=1,n=2", "n is given twice"),
        ("kreciprocal:weight=2", "weight = 2"),
        ("diffusion:alpha=1", "alpha = 1"),
        ("diffusion+aqe", "in this order"),
        ("kreciprocal+diffusion", "in this order"),
        ("aqe+aqe", "each step once"),
        ("aqe+", "is no step here"),
        ("spatial:detector=orb", "detector = 'orb'"),
        ("spatial:detector=aliked", "needs weights"),
    ],
)
def test_mistakes_are_told_in_a_line(text, said):
    with pytest.raises(UserError, match=said) as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_what_needs_more_than_vectors_says_so():
    gallery = objects(10, 0)
    with pytest.raises(UserError, match="compares pictures"):
        resight.rerank(gallery, gallery, "spatial")
    with pytest.raises(UserError, match="only kreciprocal and diffusion"):
        resight.rerank(gallery, gallery, "aqe", transductive=True)
    with pytest.raises(UserError, match="8 dimensions, the gallery 3"):
        resight.rerank(gallery, gallery[:, :3], "aqe")


def test_small_galleries():
    for n in (0, 1, 2):
        for how in HOWS:
            ids, scores = resight.rerank(objects(3, 0), objects(max(n, 1), 1)[:n], how)
            assert ids.shape == scores.shape == (3, max(1, min(100, n)) if n else 1)
