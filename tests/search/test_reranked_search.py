"""A second look on the live gallery: against whole rows of scores, kept up to date, pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.spatial.scenes import scene, warped

import resight
from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.features.store import Features
from resight.graph.second import Rescored, prepare
from resight.search import reranking
from resight.search.gallery import Gallery
from resight.search.verifying import Photo
from resight.spatial.match import transfer

HOWS = (
    "aqe:n=3", "dba:n=2", "kreciprocal:k1=5,k2=3", "diffusion:k=4,n=4",
    "dba:n=2+aqe:n=2+diffusion:k=3", "aqe:n=2+kreciprocal:k1=4",
)  # fmt: skip


def features(vectors: np.ndarray, first: int = 0, **columns: list) -> Features:
    paths = [f"/g/{first + row}.png" for row in range(len(vectors))]
    table = normalise(pl.DataFrame({"path": paths} | columns, strict=False))
    vectors = np.asarray(vectors, np.float32)
    return Features(ImageSet(table, Path()), (vectors,), np.ones(len(vectors), bool))


def objects(n: int, seed: int, dim: int = 6) -> tuple[np.ndarray, list[str | None]]:
    random = np.random.default_rng(seed)
    names = random.integers(0, max(2, n // 4), n)
    centres = random.normal(size=(max(2, n // 4), dim))
    vectors = centres[names] + 0.6 * random.normal(size=(n, dim))
    return vectors.astype(np.float32), [f"o{o}" if o else None for o in names]


def wanted(gallery, queries, how, level, k, keep=None, own=None):
    """(shown key, score) of the k best, by whole rows of scores and a plain sort."""
    keys, groups, rows = gallery.views.get("image" if level == "image" else "object").everything()
    place = None if own is None else np.searchsorted(keys, own)
    answers = []
    for row in Rescored(prepare(rows, how), queries, place)[0 : len(queries)]:
        order = sorted(range(len(keys)), key=lambda j, row=row: (-row[j], keys[j]))
        found, seen = [], set()
        for j in order:
            name = int(groups[j]) or ("alone", j)
            out = keep is not None and not keep(int(keys[j]))
            if out or name in seen or (own is not None and keys[j] == own[len(answers)]):
                continue
            seen.add(name)
            found.append((int(keys[j]), float(row[j])))
        answers.append(found[:k])
    return answers


@given(
    n=st.integers(1, 40), seed=st.integers(0, 999), how=st.sampled_from(HOWS),
    level=st.sampled_from(["image", "object"]), k=st.sampled_from([1, 3, 50]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_names_give_what_whole_rows_give(n, seed, how, level, k):
    vectors, names = objects(n, seed)
    gallery = Gallery().add(features(vectors, object=names))
    queries = np.random.default_rng(seed).normal(size=(3, 6)).astype(np.float32)
    found = gallery.search_vectors(queries, k, level=level, rerank=how)
    for hits, line, query in zip(
        found, wanted(gallery, queries, how, level, k), queries, strict=True
    ):
        assert len(hits) == len(line)
        np.testing.assert_allclose([hit.score for hit in hits], [s for _, s in line], atol=1e-5)
        assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)
        if level == "image":
            assert [hit.image for hit in hits] == [key for key, _ in line]
            for hit in hits:  # shown is the cosine, whatever re-ranked
                own = vectors[int(Path(hit.path).stem)].astype(float)
                cosine = own @ query / np.linalg.norm(own) / np.linalg.norm(query)
                assert abs(hit.similarity - cosine) < 1e-6
        assert all(f"re-ranked by {how}" in hit.why for hit in hits)
    alone = [gallery.search_vectors(q[None], k, level=level, rerank=how)[0] for q in queries]
    assert [[h.image for h in hits] for hits in alone] == [
        [h.image for h in hits] for hits in found
    ]


@pytest.mark.parametrize("how", HOWS[2:4])
def test_filters_and_the_query_itself_leave_after_the_look(how):
    vectors, names = objects(40, 3)
    prices = list(range(40))
    gallery = Gallery().add(features(vectors, object=names, price=prices))
    found = gallery.search_vectors(
        vectors[:4], 9, rerank=how, where="price < 25", exclude=[f"/g/{i}.png" for i in range(4)]
    )
    ids = np.array(gallery.find([f"/g/{i}.png" for i in range(4)]))
    price = {int(id_): p for id_, p in zip(gallery.engine.ids(), prices, strict=True)}
    lines = wanted(gallery, vectors[:4], how, "image", 9, lambda key: price[key] < 25, ids)
    for hits, line in zip(found, lines, strict=True):
        assert [hit.image for hit in hits] == [key for key, _ in line]


def answers(gallery, queries, how):
    found = gallery.search_vectors(queries, 8, rerank=how)
    return [[(hit.path, round(hit.score, 4)) for hit in hits] for hits in found]


@pytest.mark.parametrize("how", ["diffusion:k=5", "kreciprocal:k1=6,k2=3", "dba:n=2+diffusion:k=4"])
def test_kept_beside_the_index_and_brought_up_to_date(tmp_path, monkeypatch, how):
    monkeypatch.setattr(reranking, "_LEAST", 1)
    vectors, names = objects(60, 5)
    queries = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    told: list[str] = []
    with Gallery.create(tmp_path / "g", tell=told.append) as gallery:
        gallery.add(features(vectors[:50], object=names[:50]))
        first = answers(gallery, queries, how)
        assert sum("made ready" in line for line in told) == 1
        assert answers(gallery, queries, how) == first
        assert sum("made ready" in line for line in told) == 1
    kept = sorted(path.name for path in (tmp_path / "g" / "index").glob("second-*"))
    assert len(kept) == 1
    told.clear()
    with Gallery.open(tmp_path / "g", tell=told.append) as gallery:
        assert answers(gallery, queries, how) == first and not told  # read, not made
        gallery.add(features(vectors[50:], 50, object=names[50:]))
        gallery.remove(gallery.engine.images_of("o3"))
        now = answers(gallery, queries, how)
        fresh = Gallery().add(features(vectors, object=names))
        fresh.remove(fresh.engine.images_of("o3"))
        assert now == answers(fresh, queries, how) != first
        assert len(told) == 1
        gallery.views.forget()
        assert not list((tmp_path / "g" / "index").glob("second-*"))
        assert answers(gallery, queries, how) == now
    for path in (tmp_path / "g" / "index").glob("*.npz"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Gallery.open(tmp_path / "g") as gallery:
        assert answers(gallery, queries, how) == now


def test_a_diffusion_bears_some_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(reranking, "_LEAST", 1)
    vectors, names = objects(100, 6)
    told: list[str] = []
    with Gallery.create(tmp_path / "g", tell=told.append) as gallery:
        gallery.add(features(vectors, object=names))
        how = "diffusion:k=8"
        answers(gallery, vectors[:1], how)
        twin = vectors[7:8] + 0.01
        gallery.add(features(twin, 200, object=["new"]))
        gallery.remove(["/g/11.png"])
        (hits,) = gallery.search_vectors(vectors[7:8], 3, rerank=how)
        assert "new" in [hit.object for hit in hits] and len(told) == 1
        assert "/g/11.png" not in [hit.path for hit in gallery.search_vectors(
            vectors[11:12], 100, rerank=how)[0]]  # fmt: skip
    with Gallery.open(tmp_path / "g", tell=told.append) as gallery:  # of what was built, as before
        (again,) = gallery.search_vectors(vectors[7:8], 3, rerank=how)
        assert [hit.image for hit in again] == [hit.image for hit in hits] and len(told) == 1
        gallery.add(features(vectors[:9] + 0.3, 300, object=["more"] * 9))
        gallery.search_vectors(vectors[7:8], 3, rerank=how)
        assert len(told) == 2


def test_calibrated_galleries_keep_their_word():
    vectors, names = objects(200, 8, dim=12)
    gallery = Gallery().add(features(vectors, object=[name or "o0" for name in names]))
    gallery.calibrate()
    query = np.random.default_rng(2).normal(size=(5, 12)).astype(np.float32)
    for plain, looked in zip(
        gallery.search_vectors(query, 5), gallery.search_vectors(query, 5, rerank="diffusion"),
        strict=True,
    ):  # fmt: skip
        assert looked.p_value >= plain.p_value - 1e-12 and looked.no_match is not None
        assert all(hit.probability is None for hit in looked)


def test_empty_and_wrong():
    assert not Gallery().search_vectors(np.ones((1, 3), np.float32), rerank="diffusion")[0]
    gallery = Gallery().add(features(np.eye(3), object=["a", "b", "c"]))
    assert gallery.search_vectors(np.ones((1, 3), np.float32), rerank="none")[0][0].score is None
    for how, said in (("magic", "no step here"), ("spatial", "needs the query's photos")):
        with pytest.raises(UserError, match=said):
            gallery.search_vectors(np.ones((1, 3), np.float32), rerank=how)


def test_pictures_that_agree_come_first_with_their_points(tmp_path):
    """The right one stands 4th by its vector; its points are those of the known homography."""
    turn = np.array([[0.9, -0.2, 40.0], [0.2, 0.9, 5.0], [0, 0, 1]])
    for number in range(6):
        scene(number, 640).save(tmp_path / f"{number}.png")
    warped(scene(3, 640), turn).save(tmp_path / "query.png")
    table = pl.DataFrame(
        {"path": [f"{tmp_path}/{i}.png" for i in range(6)], "object": list("abcdef")}
    )
    vectors = np.eye(6, dtype=np.float32)
    stored = Features(ImageSet(normalise(table), Path()), (vectors,), np.ones(6, bool))
    gallery = Gallery().add(stored)
    query = np.array([[6, 5, 4, 3, 2, 1.0]], np.float32)
    (plain,) = gallery.search_vectors(query, 6)
    photos = [[Photo(tmp_path / "query.png")]]
    (hits,) = gallery.search_vectors(query, 6, rerank="spatial:top=4", photos=photos)
    assert [hit.object for hit in plain] == list("abcdef")
    assert [hit.object for hit in hits] == list("dabcef")
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5, 6]
    first = hits[0]
    assert first.inliers >= 8 and hits[4].inliers is None
    assert first.similarity == plain[3].similarity and "spatial:top=4" in first.why
    lines = np.array(first.matches)
    back = transfer(turn, lines[:, 2:])
    assert len(lines) >= 8 and np.abs(back - lines[:, :2]).max() < 10  # px of the full pictures
    # Of a part of either, places are still those of the whole picture.
    content = io.BytesIO()
    warped(scene(3, 640), turn).save(content, "PNG")
    part = [[Photo(content.getvalue(), (50, 60, 600, 590))]]
    (hits,) = gallery.search_vectors(query, 2, rerank="spatial:top=4", photos=part)
    lines = np.array(hits[0].matches)
    assert hits[0].object == "d" and len(hits) == 2
    assert np.abs(transfer(turn, lines[:, 2:]) - lines[:, :2]).max() < 10
    gone = [[Photo(tmp_path / "nothing.png")]]
    (hits,) = gallery.search_vectors(query, 6, rerank="spatial", photos=gone)
    assert [hit.object for hit in hits] == list("abcdef")
    assert resight.Hit is type(hits[0])
