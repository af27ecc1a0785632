"""Searching a gallery: levels, filters, cameras, ties, a second look, against plain arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.features.store import Features
from resight.search.gallery import Gallery
from resight.search.view import Near


def features(vectors: np.ndarray, **columns: list) -> Features:
    paths = [f"/g/{row}.png" for row in range(len(vectors))]
    table = normalise(pl.DataFrame({"path": paths} | columns, strict=False))
    vectors = np.asarray(vectors, np.float32)
    return Features(ImageSet(table, Path()), (vectors,), np.ones(len(vectors), bool))


def unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, float)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@st.composite
def collections(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, 30))
    vectors = rng.normal(size=(count, 4)) * rng.uniform(0.5, 5, (count, 1))
    objects = [f"o{k}" for k in rng.integers(0, draw(st.integers(1, 6)), count)]
    cameras = [f"c{k}" for k in rng.integers(0, 3, count)]
    prices = rng.integers(0, 40, count).tolist()
    return vectors.astype(np.float32), objects, cameras, prices, rng.normal(size=(3, 4))


def kept(gallery_objects, mask):
    return sorted({o for o, keep in zip(gallery_objects, mask, strict=True) if keep})


@settings(max_examples=40, deadline=None)
@given(case=collections())
def test_filters_are_exact_at_every_level(case):
    vectors, objects, cameras, prices, queries = case
    gallery = Gallery().add(features(vectors, object=objects, camera=cameras, price=prices))
    mask = [price < 20 and camera != "c2" for price, camera in zip(prices, cameras, strict=True)]
    where = "price < 20 and camera != 'c2'"
    for level in ("image", "object", "both"):
        for hits in gallery.search_vectors(queries, 50, level=level, where=where):
            assert sorted(hit.object for hit in hits) == kept(objects, mask)
            if level == "image":
                assert all(mask[int(Path(hit.path).stem)] for hit in hits)


@settings(max_examples=40, deadline=None)
@given(case=collections())
def test_without_a_camera_a_centroid_is_that_of_the_others(case):
    vectors, objects, cameras, _, queries = case
    gallery = Gallery(level="object").add(features(vectors, object=objects, camera=cameras))
    left = np.array([camera != "c1" for camera in cameras])
    found = gallery.search_vectors(queries, 50, exclude_cameras=["c1"])
    for query, hits in zip(unit(queries), found, strict=True):
        expected = {}
        for name in kept(objects, left):
            rows = left & (np.array(objects) == name)
            expected[name] = float(unit(vectors[rows].astype(float).sum(0)) @ query)
        assert {hit.object: pytest.approx(hit.similarity, abs=1e-5) for hit in hits} == expected
        counts = {n: int((left & (np.array(objects) == n)).sum()) for n in expected}
        assert {hit.object: hit.images for hit in hits} == counts
    images = gallery.search_vectors(queries, 50, level="image", exclude_cameras=["c1", "c2"])
    for hits in images:
        assert {hit.camera for hit in hits} <= {"c0"}


@settings(max_examples=30, deadline=None)
@given(case=collections())
def test_both_finds_by_centroid_and_shows_the_best_image(case):
    vectors, objects, _, _, queries = case
    gallery = Gallery().add(features(vectors, object=objects))
    by_object = gallery.search_vectors(queries, 50, level="object")
    both = gallery.search_vectors(queries, 50, level="both")
    for query, one, other in zip(unit(queries), by_object, both, strict=True):
        assert [hit.object for hit in one] == [hit.object for hit in other]
        assert [hit.similarity for hit in one] == [hit.similarity for hit in other]
        for hit in other:
            rows = np.flatnonzero(np.array(objects) == hit.object)
            best = rows[np.argmax(unit(vectors[rows]) @ query)]
            assert hit.path == f"/g/{best}.png"


def test_ties_go_by_id_and_nothing_depends_on_the_batch():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 16)).astype(np.float32)
    gallery = Gallery().add(features(np.concatenate([base, base, 3 * base])))
    queries = rng.normal(size=(50, 16)).astype(np.float32)
    queries[0] = base[7]
    whole = gallery.search_vectors(queries, 9)
    assert [hit.image for hit in whole[0]][:3] == [8, 48, 88]
    assert whole == [gallery.search_vectors(query[None], 9)[0] for query in queries]
    assert whole[3:10] == gallery.search_vectors(queries[3:10], 9)


def test_small_galleries_are_searched_without_surprise():
    one = np.ones((2, 3), np.float32)
    for level in ("image", "object", "both"):
        empty = Gallery()
        assert [list(hits) for hits in empty.search_vectors(one, level=level)] == [[], []]
        single = Gallery().add(features(np.eye(3)[:1], object=["a"]))
        assert [hits[0].object for hits in single.search_vectors(one, level=level)] == ["a", "a"]
        lonely = Gallery().add(features(np.eye(3), object=["a"] * 3))
        assert [len(hits) for hits in lonely.search_vectors(one, level=level)] == [1, 1]
        unknown = Gallery().add(features(np.eye(3)))
        found = unknown.search_vectors(one, level=level)
        assert [[hit.object for hit in hits] for hits in found] == [[None] * 3] * 2
        assert sorted(hit.path for hit in found[0]) == ["/g/0.png", "/g/1.png", "/g/2.png"]
        nothing = single.search_vectors(one, level=level, where="object = 'b'")
        assert [len(hits) for hits in nothing] == [0, 0]


def test_a_second_look_enters_at_one_place():
    gallery = Gallery().add(features(np.eye(4), object=list("abcd")))
    seen = []

    def backwards(queries, found, view):
        seen.append((queries.shape, view.dim))
        return [Near(n.keys[::-1], n.groups[::-1], n.similarities[::-1]) for n in found]

    query = np.array([[4.0, 3, 2, 1]], np.float32)
    (plain,) = gallery.search_vectors(query, 4)
    (turned,) = gallery.search_vectors(query, 4, rerank=backwards)
    assert [hit.object for hit in plain] == list("abcd") and "re-ranked" not in plain[0].why
    assert [hit.object for hit in turned] == list("dcba") and "re-ranked" in turned[0].why
    assert seen == [((1, 4), 4)]


def test_wrong_filters_are_one_line():
    gallery = Gallery().add(features(np.eye(2), object=["a", "b"], price=[1, 2]))
    for where, text in (
        ("prize < 3", "no column 'prize'; did you mean 'price'"),
        ("price <", "filter"),
        ("box = 'a'", "column 'box'"),
    ):
        with pytest.raises(UserError, match=text) as error:
            gallery.search_vectors(np.ones((1, 2), np.float32), where=where)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="none of image, object, both"):
        gallery.search_vectors(np.ones((1, 2), np.float32), level="shelf")
