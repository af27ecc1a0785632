"""The gallery at both levels against a full sort; adding, saving, damage."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.data.decode import BadImage
from resight.data.imageset import ImageSet, normalise
from resight.data.sources import load_images
from resight.errors import UserError
from resight.features.store import Features
from resight.models.embedder import Embedder
from resight.search.gallery import Gallery, Hit
from resight.search.sums import totals_of
from resight.search.transfer import checksum


def features(vectors: np.ndarray, objects: list[str | None], first: int = 0) -> Features:
    """Features as if of the images /g/<first>.png, ... of these objects."""
    paths = [f"/g/{first + row}.png" for row in range(len(vectors))]
    table = normalise(
        pl.DataFrame(
            {"path": paths, "object": objects}, schema={"path": pl.String, "object": pl.String}
        )
    )
    vectors = np.asarray(vectors, np.float32)
    valid = np.asarray(np.isfinite(vectors).all(axis=1))
    return Features(ImageSet(table, Path()), (vectors,), valid)


def objects_of(gallery: Gallery) -> list[str | None]:
    return [row.object for row in gallery.engine.rows(gallery.engine.ids())]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(float), b.astype(float)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_sorting(
    query: np.ndarray, vectors: np.ndarray, objects: list, k: int, exclude: int | None = None
) -> list[tuple[object, float, int]]:
    """(object, similarity, row) of the k best objects: sort all rows, keep the first of each."""
    order = sorted(range(len(vectors)), key=lambda row: -cosine(query, vectors[row]))
    found, seen = [], set()
    for row in order:
        name = objects[row] if objects[row] is not None else ("alone", row)
        if row == exclude or name in seen:
            continue
        seen.add(name)
        found.append((objects[row], cosine(query, vectors[row]), row))
    return found[:k]


def check(hits: list[Hit], expected: list[tuple[object, float, int]]) -> None:
    assert [hit.rank for hit in hits] == list(range(1, len(expected) + 1))
    assert [hit.object for hit in hits] == [name for name, _, _ in expected]
    assert [hit.path for hit in hits] == [f"/g/{row}.png" for _, _, row in expected]
    np.testing.assert_allclose(
        [hit.similarity for hit in hits], [s for _, s, _ in expected], atol=1e-5
    )


@st.composite
def galleries(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 40))
    vectors = rng.normal(size=(count, 5)) * rng.uniform(0.1, 10, (count, 1))
    names = [None, *"abcdefg"]
    objects = [names[k] for k in rng.integers(0, draw(st.integers(1, 8)), count)]
    return vectors.astype(np.float32), objects, rng.normal(size=(3, 5)).astype(np.float32) * 7


@settings(max_examples=100, deadline=None)
@given(case=galleries(), k=st.integers(1, 45), exclude=st.none() | st.integers(0, 50))
def test_image_level_equals_a_full_sort(case, k, exclude):
    vectors, objects, queries = case
    gallery = Gallery().add(features(vectors, objects))
    assert len(gallery) == len(vectors)
    path = None if exclude is None else f"/g/{exclude}.png"
    found = gallery.search_vectors(queries, k, exclude=[path] * 3)
    for query, hits in zip(queries, found, strict=True):
        check(hits, by_sorting(query, vectors, objects, k, exclude))
        assert all(hit.images == 1 and hit.box is None for hit in hits)


def sums(vectors: np.ndarray, objects: list) -> tuple[np.ndarray, list, list[int], list[int]]:
    """Sum, object, first row and count of every object, in the order of their first images."""
    groups: dict = {}
    for row, name in enumerate(objects):
        groups.setdefault(name if name is not None else ("alone", row), []).append(row)
    totals = np.array([vectors[rows].astype(float).sum(0) for rows in groups.values()])
    firsts = [rows[0] for rows in groups.values()]
    return totals, [objects[row] for row in firsts], firsts, [len(r) for r in groups.values()]


@settings(max_examples=100, deadline=None)
@given(case=galleries(), k=st.integers(1, 45), cuts=st.lists(st.integers(1, 39), max_size=3))
def test_object_level_is_the_sum_however_it_was_added(case, k, cuts):
    vectors, objects, queries = case
    totals, names, firsts, counts = sums(vectors, objects)
    gallery = Gallery(level="object")
    edges = sorted({0, len(vectors), *(cut for cut in cuts if cut < len(vectors))})
    for start, stop in pairwise(edges):
        gallery.add(features(vectors[start:stop], objects[start:stop], start))
    assert len(gallery) == len(names)
    kept = {name: total for name, (_, total, _) in totals_of(gallery.engine.sums()).items()}
    assert kept.keys() == {name for name in names if name is not None}
    for name, total in zip(names, totals, strict=True):
        if name is not None:
            np.testing.assert_allclose(kept[name], total, rtol=1e-5, atol=1e-5)
    for query, hits in zip(queries, gallery.search_vectors(queries, k), strict=True):
        expected = by_sorting(query, totals, names, k)
        check(hits, [(name, s, firsts[row]) for name, s, row in expected])
        by_name = dict(zip(firsts, counts, strict=True))
        assert [hit.images for hit in hits] == [by_name[firsts[row]] for _, _, row in expected]


def test_long_vectors_count_more_in_a_centroid():
    """Sums of un-normalised features, as CTL has it, not of unit vectors."""
    gallery = Gallery(level="object").add(features(np.array([[10.0, 0], [0, 1]]), ["a", "a"]))
    (hit,) = gallery.search_vectors(np.array([[1.0, 0]], np.float32))[0]
    assert hit.similarity == pytest.approx(10 / np.hypot(10, 1))


@pytest.mark.parametrize("near", [40, 500])
def test_k_different_objects_even_behind_hundreds_of_images_of_one(near):
    rng = np.random.default_rng(0)
    crowd = np.r_[np.tile([[1.0, 0, 0]], (near, 1)) + rng.normal(size=(near, 3)) * 0.01]
    others = rng.normal(size=(30, 3))
    vectors = np.concatenate([crowd, others]).astype(np.float32)
    objects = ["crowd"] * near + [f"o{k // 2}" for k in range(30)]
    order = rng.permutation(len(vectors))
    vectors, objects = vectors[order], [objects[k] for k in order]
    query = np.array([[1.0, 0, 0]], np.float32)
    hits = Gallery().add(features(vectors, objects)).search_vectors(query, 10)[0]
    assert len({hit.object for hit in hits}) == 10 and hits[0].object == "crowd"
    expected = by_sorting(query[0], vectors, objects, 10)
    assert [hit.object for hit in hits] == [name for name, _, _ in expected]


def test_more_hits_than_there_are():
    vectors = np.eye(3)
    for level in ("image", "object"):
        hits = (
            Gallery(level=level)
            .add(features(vectors, ["a", "a", None]))
            .search_vectors(np.ones((1, 3), np.float32), 99)[0]
        )
        assert sorted(map(str, (hit.object for hit in hits))) == ["None", "a"]


def test_invalid_rows_are_left_out():
    vectors = np.array([[1, 0], [np.nan, np.nan], [0, 1]])
    gallery = Gallery().add(features(vectors, ["a", "b", "c"]))
    assert objects_of(gallery) == ["a", "c"]
    assert gallery.added.bad == [("/g/1.png", "its features are marked as unusable")]


def test_boxes_come_back():
    given_ = features(np.eye(2), ["a", "b"])
    boxes = pl.Series("box", [[1.0, 2, 3, 4], None], dtype=pl.List(pl.Float64))
    table = given_.images.table.with_columns(boxes)
    gallery = Gallery().add(Features(ImageSet(table, Path()), given_.shards, given_.valid))
    hits = gallery.search_vectors(np.array([[1, 0.5]], np.float32))[0]
    assert [hit.box for hit in hits] == [(1, 2, 3, 4), None]
    assert json.loads(json.dumps(hits[0].to_dict()))["box"] == [1, 2, 3, 4]


def test_mistakes():
    gallery = Gallery()
    one = np.ones((1, 2), np.float32)
    assert [list(hits) for hits in gallery.search_vectors(one)] == [[]]  # nothing is there
    gallery.add(features(np.eye(2), ["a", "b"]))
    with pytest.raises(UserError, match="k = 0"):
        gallery.search_vectors(one, 0)
    with pytest.raises(UserError, match="queries have 3 dimensions, the gallery 2"):
        gallery.search_vectors(np.ones((1, 3), np.float32))
    with pytest.raises(UserError, match="features have 3 dimensions, the gallery's 2"):
        gallery.add(features(np.eye(3), ["a", "b", "c"]))
    assert len(gallery) == 2
    with pytest.raises(UserError, match="1 of the 2 queries are not finite"):
        gallery.search_vectors(np.array([[1, 0], [np.nan, 0]], np.float32))
    with pytest.raises(UserError, match="no embedder"):
        gallery.search("photo.jpg")
    with pytest.raises(UserError, match="none of image, object"):
        Gallery(level="album")  # type: ignore[arg-type]


def test_queries_are_not_changed():
    gallery = Gallery().add(features(np.eye(2), ["a", "b"]))
    queries = np.array([[3.0, 4]], np.float32)
    gallery.search_vectors(queries)
    assert queries.tolist() == [[3, 4]]


@pytest.fixture(scope="module")
def shop(embedder, shapes) -> Gallery:
    return Gallery(embedder).add(load_images(shapes))


@pytest.mark.parametrize("level", ["image", "object"])
def test_a_round_trip(embedder, shapes, tmp_path, level):
    gallery = Gallery(embedder, level).add(load_images(shapes))
    assert len(gallery) == (60 if level == "image" else 12)
    photos = [shapes / "object 03" / "foto_ä1.png", shapes / "object 07" / "foto_ä4.png"]
    before = gallery.search(photos, 5)
    loaded = Gallery.load(str(gallery.save(str(tmp_path / "new" / "g"))), "cpu")
    assert loaded.level == level and objects_of(loaded) == objects_of(gallery)
    assert checksum(loaded.engine) == checksum(gallery.engine)
    assert loaded.search(photos, 5) == before
    assert [hits[0].object for hits in before] == ["object 03", "object 07"]
    # What was loaded can be added to: nothing is there twice. And saved in its own place.
    loaded.add(load_images(shapes / "object 03", unlabelled=True))
    assert loaded.added.unchanged == 5 and len(loaded) == len(gallery)
    loaded.save(tmp_path / "new" / "copy")
    loaded.close()
    again = Gallery.load(tmp_path / "new" / "copy", "cpu")
    assert checksum(again.engine) == checksum(gallery.engine)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["copy", "g"]


def test_without_an_embedder_and_empty(tmp_path):
    loaded = Gallery.load(Gallery(level="object").save(tmp_path / "g"))
    assert len(loaded) == 0 and loaded.embedder is None
    loaded.add(features(np.eye(2), ["a", "b"]))
    assert len(Gallery.load(loaded.save(tmp_path / "g", force=True))) == 2


def test_a_photo_that_cannot_be_read(shop, tmp_path):
    with pytest.raises(BadImage, match="no such file"):
        shop.search(tmp_path / "none.jpg")


@pytest.mark.parametrize("force", [False, True])
def test_folders_of_others_are_never_deleted(shop, tmp_path, force):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        shop.save(tmp_path / "mine", force=force)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    with pytest.raises(UserError, match="is a file"):
        shop.save(tmp_path / "mine" / "thesis.txt", force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]  # nothing half built either


def test_an_older_gallery_goes_only_when_told_and_when_the_new_one_is_whole(
    shop, tmp_path, monkeypatch
):
    old = Gallery().add(features(np.eye(2), ["a", "b"]))
    old.save(tmp_path / "g")
    with pytest.raises(UserError, match="--force to replace"):
        shop.save(tmp_path / "g")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "save", full)
        with pytest.raises(OSError, match="No space"):
            shop.save(tmp_path / "g", force=True)
    assert checksum(Gallery.load(tmp_path / "g").engine) == checksum(old.engine)
    assert [path.name for path in tmp_path.iterdir()] == ["g"]
    shop.save(tmp_path / "g", force=True)
    assert len(Gallery.load(tmp_path / "g", "cpu")) == 60


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda g: (g / "gallery.json").unlink(), "a gallery .* was expected here"),
        (lambda g: (g / "gallery.json").write_text("{"), "not valid JSON"),
        (lambda g: (g / "gallery.json").write_text("[]"), "of an earlier resight; .*resight index"),
        (lambda g: change(g / "gallery.json", format=1, level="object"), "--level object"),
        (lambda g: (g / "gallery.sqlite").unlink(), "gallery.sqlite: gone; index again"),
        (lambda g: (g / "gallery.sqlite").write_bytes(b"x" * 9000), "damaged .*--repair"),
    ],
)
def test_damage_is_one_clear_line(tmp_path, damage, text):
    folder = Gallery().add(features(np.eye(2), ["a", "b"])).save(tmp_path / "g")
    damage(folder)
    with pytest.raises(UserError, match=text) as error:
        Gallery.load(folder)
    assert "\n" not in str(error.value)


def test_a_copied_gallery_works_elsewhere(shop, tmp_path):
    shop.save(tmp_path / "g")
    moved = Path(shutil.move(tmp_path / "g", tmp_path / "moved"))
    photo = shop.search_vectors(np.ones((1, shop.embedder.dim), np.float32))[0][0].path
    assert Gallery.load(moved, "cpu").search(photo, 1)[0][0].path == photo


def test_a_killed_create_can_be_made_again(embedder, tmp_path):
    Gallery.create(tmp_path / "g", embedder).close()
    (tmp_path / "g" / "gallery.json").unlink()  # the last thing that is written
    Gallery.create(tmp_path / "g", embedder).close()
    (tmp_path / "g" / "gallery.json").unlink()
    (tmp_path / "g" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        Gallery.create(tmp_path / "g", embedder)


def test_an_engine_that_is_none_replaces_nothing(embedder, tmp_path):
    Gallery.create(tmp_path / "g", embedder).close()
    with pytest.raises(UserError, match="'mysql' is no engine"):
        Gallery.create(tmp_path / "g", embedder, engine="mysql://x", force=True)
    assert Gallery.open(tmp_path / "g").embedder is not None
    with pytest.raises(UserError, match="'mysql' is no engine"):
        Gallery.create(tmp_path / "h", embedder, engine="mysql://x")
    assert not (tmp_path / "h").exists()
