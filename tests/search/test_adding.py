"""Adding again and again: what is new or changed only, each content once, nothing lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.pictures import picture

from resight.data.sources import load_images
from resight.errors import UserError
from resight.features.compute import EmbedOptions
from resight.search import adding
from resight.search.gallery import Gallery


@pytest.fixture
def photos(tmp_path) -> Path:
    """Four objects of three pictures each."""
    folder = tmp_path / "photos"
    for thing in range(4):
        (folder / f"o{thing}").mkdir(parents=True)
        for shot in range(3):
            picture(10 * thing + shot, (40, 32)).save(folder / f"o{thing}" / f"{shot}.png")
    return folder


@pytest.fixture
def gallery(embedder, tmp_path) -> Gallery:
    return Gallery.create(tmp_path / "g", embedder, "object")


@pytest.fixture
def embedded(monkeypatch) -> list[str]:
    """The files that went through the network, by name."""
    seen: list[str] = []
    looked = adding.look

    def spy(path, content, image):
        seen.append("/".join(Path(path).parts[-2:]))
        return looked(path, content, image)

    monkeypatch.setattr(adding, "look", spy)
    return seen


def counts(gallery: Gallery) -> dict[str, int]:
    return {name: count for name, count in gallery.added.counts().items() if count}


def rows(gallery: Gallery) -> dict[str, str | None]:
    """Object by path."""
    return {
        row.place.path: row.object
        for row in gallery.engine.rows(gallery.engine.ids())
        if row.place is not None
    }


def test_adding_the_same_folder_every_night_makes_nothing_twice(gallery, photos, embedded):
    gallery.add(photos)
    assert counts(gallery) == {"added": 12} and len(embedded) == 12 and len(gallery) == 4
    before, sums = rows(gallery), gallery.engine.sums()
    for _ in range(2):
        gallery.add(photos)
        assert counts(gallery) == {"unchanged": 12} and len(embedded) == 12
    assert rows(gallery) == before
    for one, other in zip(sums, gallery.engine.sums(), strict=True):
        assert one.count == other.count == 3 and np.array_equal(one.total, other.total)


def test_only_what_is_new_or_changed_is_embedded(gallery, photos, embedded):
    gallery.add(photos)
    ids = {row.place.path: row.id for row in gallery.engine.rows(gallery.engine.ids())}
    picture(99, (30, 30)).save(photos / "o1" / "1.png")
    picture(98, (30, 30)).save(photos / "o1" / "new.png")
    embedded.clear()
    gallery.add(photos)
    assert sorted(embedded) == ["o1/1.png", "o1/new.png"]
    assert counts(gallery) == {"added": 1, "replaced": 1, "unchanged": 11}
    now = {row.place.path: row for row in gallery.engine.rows(gallery.engine.ids())}
    assert now["o1/1.png"].id == ids["o1/1.png"]  # the same image, with another content
    assert (now["o1/1.png"].width, now["o1/1.png"].height) == (30, 30)
    fresh = Gallery(gallery.embedder, "object").add(photos)
    for one, other in zip(gallery.engine.sums(), fresh.engine.sums(), strict=True):
        assert (one.object, one.count) == (other.object, other.count)
        np.testing.assert_allclose(one.total, other.total, rtol=1e-5, atol=1e-6)


def test_a_touched_file_is_read_but_not_embedded(gallery, photos, embedded):
    gallery.add(photos)
    embedded.clear()
    os.utime(photos / "o0" / "0.png", (1, 1))
    gallery.add(photos)
    assert embedded == [] and counts(gallery) == {"unchanged": 12}


def test_a_renamed_file_is_the_same_image(gallery, photos, embedded):
    gallery.add(photos)
    (id_,) = gallery.find([photos / "o2" / "0.png"])
    embedded.clear()
    (photos / "o2" / "0.png").rename(photos / "o2" / "zero.png")
    gallery.add(photos)
    assert embedded == [] and counts(gallery) == {"relabelled": 1, "unchanged": 11}
    assert gallery.find([photos / "o2" / "zero.png"]) == [id_]


def test_the_same_content_is_one_image(gallery, photos):
    """The case `twice`: a copy under its own object, and one under another."""
    shutil.copy(photos / "o0" / "0.png", photos / "o0" / "copy.png")
    shutil.copy(photos / "o0" / "0.png", photos / "o1" / "copy.png")
    alone = Gallery(gallery.embedder).add(load_images(photos / "o1", unlabelled=True))
    for _ in range(2):  # the second night, too
        gallery.add(photos)
        original = str(photos / "o0" / "0.png")
        assert gallery.added.copies == [(str(photos / "o0" / "copy.png"), original)]
        assert gallery.added.conflicts == [(str(photos / "o1" / "copy.png"), original)]
        assert gallery.engine.counts() == (12, 4) and len(alone) == 4
    gallery.add(photos, duplicates="keep")
    assert counts(gallery) == {"added": 2, "unchanged": 12}
    assert gallery.engine.counts() == (14, 4)
    with pytest.raises(UserError, match="none of skip, keep"):
        gallery.add(photos, duplicates="some")


def test_a_copy_takes_the_place_of_an_image_that_is_gone(gallery, photos):
    shutil.copy(photos / "o0" / "0.png", photos / "o0" / "copy.png")
    gallery.add(photos)
    (photos / "o0" / "0.png").unlink()
    gallery.add(photos, sync=True)
    assert gallery.engine.counts() == (12, 4)
    assert "o0/copy.png" in rows(gallery) and "o0/0.png" not in rows(gallery)


def test_parts_of_one_picture_are_several_images(gallery, photos):
    boxes = [[0.0, 0, 20, 20], [10.0, 10, 30, 30], None]
    table = pl.DataFrame(
        {"path": ["o0/0.png"] * 3, "object": ["a", "b", "c"], "box": boxes},
        schema={"path": pl.String, "object": pl.String, "box": pl.List(pl.Float64())},
    )
    table.write_parquet(photos / "boxes.parquet")
    gallery.add(photos / "boxes.parquet")
    assert counts(gallery) == {"added": 3} and gallery.engine.counts() == (3, 3)
    gallery.add(photos / "boxes.parquet")
    assert counts(gallery) == {"unchanged": 3}
    assert len(gallery.find([photos / "o0" / "0.png"])) == 3


def test_columns_are_kept_and_follow_the_table(gallery, photos):
    def write(price: int, shop: str) -> Path:
        names = [f"o{n}/{m}.png" for n in range(4) for m in range(3)]
        things = [f"o{n}" if shop == "a" else "all" for n in range(4) for m in range(3)]
        pl.DataFrame({"path": names, "object": things}).with_columns(
            pl.lit(price).alias("price"), pl.lit(shop).alias("shop"), pl.lit("c1").alias("camera")
        ).write_csv(photos / "table.csv")
        return photos / "table.csv"

    gallery.add(write(5, "a"))
    (hits,) = gallery.search(photos / "o3" / "1.png", 1)
    assert hits[0].columns == {"price": "5", "shop": "a"} and hits[0].camera == "c1"
    gallery.add(write(7, "a"))
    assert counts(gallery) == {"relabelled": 12}
    assert gallery.search(photos / "o3" / "1.png", 1)[0][0].columns["price"] == "7"
    gallery.add(write(7, "b"))
    assert gallery.engine.counts() == (12, 1)  # the table says so now


def test_what_a_person_decided_stands(gallery, photos):
    gallery.add(photos)
    assert gallery.move([photos / "o0" / "0.png"], "o1") == 1
    assert gallery.remove([photos / "o2" / "2.png"]) == 1
    gallery.add(photos)
    assert rows(gallery)["o0/0.png"] == "o1" and "o2/2.png" not in rows(gallery)
    assert counts(gallery) == {"unchanged": 11, "left_out": 1}
    gallery.add(photos, again=True)
    assert counts(gallery) == {"unchanged": 11, "added": 1}
    # Unless the source says something else than before.
    (photos / "o0" / "0.png").rename(photos / "o3" / "moved.png")
    gallery.add(photos)
    assert rows(gallery)["o3/moved.png"] == "o3"


def test_sync_removes_what_is_gone_from_there_and_nothing_else(gallery, photos, tmp_path):
    other = tmp_path / "other" / "x"
    other.mkdir(parents=True)
    picture(77, (20, 20)).save(other / "0.png")
    gallery.add(photos)
    gallery.add(tmp_path / "other")
    shutil.rmtree(photos / "o3")
    gallery.add(photos)
    assert gallery.engine.counts() == (13, 5)  # not without being told
    gallery.add(photos / "o1", sync=True)  # a part of the root: only what lies below
    assert gallery.engine.counts() == (13, 5)
    gallery.add(photos, sync=True)
    assert counts(gallery) == {"unchanged": 9, "removed": 3}
    assert gallery.engine.counts() == (10, 4)


def test_a_bad_image_is_named_and_the_rest_goes_in(gallery, photos):
    (photos / "o0" / "bad.png").write_bytes(b"no picture")
    (photos / "o1" / "bad.png").write_bytes(b"nothing else")
    for _ in range(2):
        gallery.add(photos)
        assert [Path(path).name for path, _ in gallery.added.bad] == ["bad.png", "bad.png"]
        assert "not an image" in gallery.added.bad[0][1]
        assert gallery.engine.counts() == (12, 4)
    picture(55, (20, 20)).save(photos / "o0" / "bad.png")  # mended
    gallery.add(photos)
    assert gallery.engine.counts() == (13, 4) and len(gallery.added.bad) == 1
    (photos / "o2" / "worse.png").write_bytes(b"nor this")
    with pytest.raises(UserError, match=r"worse\.png: .*--strict"):
        gallery.add(photos, options=EmbedOptions(strict=True))


def test_killed_in_the_middle_it_goes_on(gallery, photos, monkeypatch, embedded):
    monkeypatch.setattr(adding, "BLOCK", 5)
    keep, calls = adding.Adding.keep, []

    def dies(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        keep(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(adding.Adding, "keep", dies)
        with pytest.raises(KeyboardInterrupt):
            gallery.add(photos)
    assert gallery.engine.counts()[0] == 5
    embedded.clear()
    gallery.add(photos)
    assert len(embedded) == 7 and counts(gallery) == {"added": 7, "unchanged": 5}


def test_an_object_without_images_is_no_more(gallery, photos):
    gallery.add(photos)
    assert gallery.remove_object("o1") == 3
    assert gallery.engine.counts() == (9, 3) and len(gallery) == 3
    assert gallery.rename("o2", "o3") == 3
    assert gallery.engine.objects() == [("o0", 3), ("o3", 6)]
    assert gallery.move([photos / "o0" / "0.png"], None) == 1
    assert len(gallery) == 3  # it stands alone
    for call in (
        lambda: gallery.remove([photos / "o1" / "0.png"]),
        lambda: gallery.remove([10**6]),
        lambda: gallery.remove_object("o1"),
        lambda: gallery.choose(),
    ):
        with pytest.raises(UserError, match=r"not in this gallery|nothing is named"):
            call()
    with pytest.raises(UserError, match="needs a name"):
        gallery.move([photos / "o0" / "1.png"], "  ")


def test_moved_photos(gallery, photos, tmp_path):
    gallery.add(photos)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(photos, elsewhere)
    assert gallery.move_root("photos", elsewhere) == (12, 12)
    gallery.add(elsewhere)
    assert counts(gallery) == {"unchanged": 12}
    assert gallery.search(elsewhere / "o0" / "1.png", 1)[0][0].path.startswith(str(elsewhere))
    for root, folder, text in (
        ("album", elsewhere, "no root of this gallery .*photos"),
        ("photos", tmp_path / "none", "no such folder"),
        ("photos", tmp_path / "g", "not one of its photos"),
    ):
        with pytest.raises(UserError, match=text):
            gallery.move_root(root, folder)


def test_small_pictures_go_along(gallery, photos):
    import io

    from PIL import Image

    gallery.add(photos)
    (id_,) = gallery.find([photos / "o0" / "0.png"])
    small = gallery.engine.thumbnail(id_)
    assert small is not None and Image.open(io.BytesIO(small)).size == (40, 32)
    (row,) = gallery.engine.rows([id_])
    assert row.bytes == (photos / "o0" / "0.png").stat().st_size and len(row.content) == 64


def test_a_source_that_names_a_file_twice(gallery, photos):
    images = load_images(photos)
    gallery.add(images.rows([0, 1, 0, 2, 1]))
    assert counts(gallery) == {"added": 3} and gallery.engine.counts()[0] == 3
    gallery.add(images.rows([0, 0]))
    assert gallery.engine.counts()[0] == 3
