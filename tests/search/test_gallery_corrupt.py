"""Damage of every kind: `check` finds it and says how to mend it, `repair` does."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_sets import crowd, features_of

from resight.data.sources import load_images
from resight.errors import UserError
from resight.models.embedder import Embedder
from resight.search import views
from resight.search.check import FAULT, Finding, check
from resight.search.gallery import Gallery
from resight.search.repair import open_damaged, repair

SQL = "gallery.sqlite"


@pytest.fixture(autouse=True)
def kept_index(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An index is kept also of a small gallery."""
    monkeypatch.setattr(views, "LEAST", 20)
    yield


@pytest.fixture(scope="module")
def shop(embedder: Embedder, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of photos, and these, in a folder to be copied."""
    place = tmp_path_factory.mktemp("shop")
    shutil.copytree(shapes, place / "photos")
    gallery = Gallery.create(place / "g", embedder)
    with pytest.MonkeyPatch.context() as patch, gallery:
        patch.setattr(views, "LEAST", 20)
        gallery.add(load_images(place / "photos"))
        gallery.views.get("image")
        assert (place / "g" / "index" / "image.json").is_file()
    return place


@pytest.fixture
def place(shop: Path, tmp_path: Path) -> Path:
    shutil.copytree(shop, tmp_path / "shop")
    with Gallery.open(tmp_path / "shop" / "g") as gallery:
        gallery.move_root("photos", tmp_path / "shop" / "photos")
    return tmp_path / "shop"


def script(place: Path, sql: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(place / "g" / SQL)) as connection:
        connection.execute(sql, values)
        connection.commit()


def flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 4
    return bytes(changed)


def one(place: Path, sql: str, *values: Any) -> Any:
    with contextlib.closing(sqlite3.connect(place / "g" / SQL)) as connection:
        return connection.execute(sql, values).fetchone()[0]


def bit_in_a_vector(place: Path) -> None:
    blob = one(place, "SELECT vector FROM vectors_1 WHERE image = 7")
    script(place, "UPDATE vectors_1 SET vector = ? WHERE image = 7", flipped(blob, 6))


def a_longer_vector(place: Path) -> None:
    from zlib import crc32

    blob = one(place, "SELECT vector FROM vectors_1 WHERE image = 7") + bytes(4)
    script(place, "UPDATE vectors_1 SET vector = ?, crc = ? WHERE image = 7", blob, crc32(blob))


def missing_page(place: Path) -> None:
    blob = one(place, "SELECT vector FROM vectors_1 WHERE image = 30")
    path = place / "g" / SQL
    content = path.read_bytes()
    page = content.index(blob[:32]) // 4096
    path.write_bytes(content[: page * 4096] + bytes(4096) + content[page * 4096 + 4096 :])


def cut(place: Path) -> None:
    path = place / "g" / SQL
    os.truncate(path, path.stat().st_size * 3 // 4 // 4096 * 4096)


def wrong_sum(place: Path) -> None:
    blob = one(place, "SELECT total FROM sums_1 WHERE object = 3")
    script(place, "UPDATE sums_1 SET total = ? WHERE object = 3", flipped(blob, 5))


def sum_of_nothing(place: Path) -> None:
    blob = one(place, "SELECT total FROM sums_1 WHERE object = 3")
    script(place, "INSERT INTO objects(id, name) VALUES (99, 'ghost')")
    script(place, "INSERT INTO sums_1 VALUES (99, '', 2, ?, 1.0, 0, 1)", blob)


def stale_index(place: Path) -> None:
    """As after a copy of an older index into the folder, but for its version."""
    import json

    shutil.copytree(place / "g" / "index", place / "older")
    with Gallery.open(place / "g") as gallery:
        gallery.remove([1, 2])
        version = gallery.engine.version()
    shutil.rmtree(place / "g" / "index")
    shutil.copytree(place / "older", place / "g" / "index")
    path = place / "g" / "index" / "image.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))


def damaged_index(place: Path) -> None:
    (path,) = (place / "g" / "index").glob("image-*.faiss")
    path.write_bytes(flipped(path.read_bytes(), 3000))


def stranger(place: Path) -> None:
    import torch

    embedder = Embedder.load(place / "g" / "embedder")
    with torch.no_grad():
        embedder.neck.running_mean += 1
    shutil.rmtree(place / "g" / "embedder")
    embedder.save(place / "g" / "embedder")


HARM: dict[str, tuple[Callable[[Path], None], str, str]] = {
    # damage, what is found, what it says of mending
    "flipped bit in a vector": (bit_in_a_vector, "is not what was written", "embeds the photo"),
    "vector of other length": (a_longer_vector, "dimensions, not", "embeds the photo again"),
    "missing page": (missing_page, "SQLite finds|damaged", "--repair"),
    "truncated database": (cut, "SQLite finds|damaged", "--repair"),
    "row without vector": (
        lambda p: script(p, "DELETE FROM vectors_1 WHERE image = 7"),
        "has no vector",
        "embeds the photo again",
    ),
    "vector without row": (
        lambda p: script(p, "INSERT INTO vectors_1 SELECT 999, vector, crc FROM vectors_1 LIMIT 1"),
        "a vector of no image",
        "--repair drops it",
    ),
    "centroid not its images' sum": (wrong_sum, "not its images' sum", "adds its images up"),
    "squares not its images'": (
        lambda p: script(p, "UPDATE sums_1 SET squares = squares + 1 WHERE object = 3"),
        "not its images' sum",
        "adds its images up",
    ),
    "sum of no images": (sum_of_nothing, "has a sum, but no images", "adds its images up"),
    "sum of no object": (
        lambda p: script(p, "UPDATE sums_1 SET object = 98 WHERE object = 3"),
        "sums of no object",
        "--repair drops them",
    ),
    "stale index": (stale_index, "does not hold the gallery's vectors", "builds it anew"),
    "damaged index": (damaged_index, "is not what was written", "builds it anew"),
    "embedder replaced": (stranger, "is not the embedder that filled", "put the embedder back"),
    "object without images": (
        lambda p: script(p, "INSERT INTO objects(name) VALUES ('ghost')"),
        "has no images",
        "--repair drops it",
    ),
    "image of no object": (
        lambda p: script(p, "DELETE FROM objects WHERE id = 3"),
        "its object is not there",
        "the object that its source names",
    ),
}


def faults(gallery: Gallery) -> list[Finding]:
    return [found for found in check(gallery) if found.kind == FAULT]


def opened(folder: Path, said: list[str]) -> tuple[Gallery, list[Finding]]:
    """A gallery and its faults, saved where it does not open."""
    try:
        gallery = Gallery.open(folder, "cpu")
    except UserError as error:
        assert "damaged" in str(error) and "--repair" in str(error) and "\n" not in str(error)
        gallery = open_damaged(folder, said.append)
        return gallery, [Finding(FAULT, "opened", str(folder), str(error)), *faults(gallery)]
    return gallery, faults(gallery)


def whole(gallery: Gallery) -> tuple[dict[str, str | None], bytes]:
    """Objects by path, and all vectors."""
    engine = gallery.engine
    rows = engine.rows(engine.ids())
    vectors = b"".join(part[2].tobytes() for part in engine.every_vector())
    return {row.place.path: row.object for row in rows if row.place is not None}, vectors


@pytest.mark.parametrize("harm", [*HARM])
def test_each_is_found_and_mended(place: Path, harm: str) -> None:
    import re

    damage, text, mend = HARM[harm]
    with Gallery.open(place / "g", "cpu") as gallery:
        assert not faults(gallery)
        before = whole(gallery)
    damage(place)
    said: list[str] = []
    gallery, found = opened(place / "g", said)
    lines = [str(one) for one in found]
    assert any(re.search(text, line) for line in lines), lines
    assert any(mend in line for line in lines) and not any("\n" in line for line in lines)
    gallery = repair(gallery, found, said.append)
    if harm == "embedder replaced":
        assert "can't be mended here" in said[-1]
        with pytest.raises(UserError, match="put that one back, or 'resight gallery reembed"):
            gallery.search(place / "photos" / "object 03" / "foto_ä1.png")
        return
    assert not [str(one) for one in faults(gallery)], said
    names, vectors = whole(gallery)
    if harm == "stale index":  # two were removed on the way
        assert len(names) == 58
        return
    assert names.items() <= before[0].items() and len(names) >= 30
    if harm != "truncated database":  # which takes rows along
        assert names == before[0]
        np.testing.assert_allclose(
            np.frombuffer(vectors, np.float32), np.frombuffer(before[1], np.float32), atol=1e-4
        )
    (hits,) = gallery.search(place / "photos" / "object 03" / "foto_ä1.png", 1)
    assert hits[0].object == "object 03"
    gallery.close()
    with Gallery.open(place / "g", "cpu") as again:
        assert not faults(again) and whole(again) == (names, vectors)


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_where_the_photo_cannot_be_embedded_again_the_image_is_removed_and_named(
    place: Path, how: str
) -> None:
    bit_in_a_vector(place)
    with Gallery.open(place / "g", "cpu") as gallery:
        (row,) = gallery.engine.rows([7])
        assert row.place is not None
        photo = place / "photos" / row.place.path
        if how == "gone":
            photo.unlink()
        else:
            shutil.copy(place / "photos" / "object 11" / "foto_ä0.png", photo)
        said: list[str] = []
        repair(gallery, check(gallery), said.append)
        assert any(
            line.startswith("1 images whose vectors") and str(photo) in line for line in said
        )
        assert not faults(gallery)
        assert gallery.engine.counts()[0] == 59 and not gallery.engine.rows([7])


def test_any_page_may_be_missing(tmp_path: Path) -> None:
    """Each page in turn: what stands on the others is saved, and the gallery is whole again."""
    vectors, names = crowd(150, 8, objects=20)
    with Gallery.create(tmp_path / "g") as gallery:
        gallery.add(features_of(vectors, names, size=[n % 7 for n in range(150)]))
        gallery.remove(["/g/149.png"])
        with gallery.engine.writing("a test") as writer:
            writer.set_meta(long="x" * 9000)  # spills to pages of its own
    content = (tmp_path / "g" / SQL).read_bytes()
    right = {f"{n}.png": (names[n], vectors[n].tobytes()) for n in range(149)}
    lost = []
    for page in range(len(content) // 4096):
        path = tmp_path / "g" / SQL
        for other in (tmp_path / "g").glob(f"{SQL}*"):
            other.unlink()
        path.write_bytes(content[: page * 4096] + bytes(4096) + content[(page + 1) * 4096 :])
        try:
            gallery, found = opened(tmp_path / "g", [])
        except UserError as error:
            assert page == 0 and "nothing of it can be read" in str(error)
            continue
        gallery = repair(gallery, found)
        assert not [str(one) for one in faults(gallery)], page
        for row in gallery.engine.rows(gallery.engine.ids()):
            assert row.place is not None
            name, vector = right[row.place.path]
            assert gallery.engine.vectors([row.id])[2].tobytes() == vector
            assert row.object == name
        assert gallery.level == "image"
        lost.append(149 - gallery.engine.counts()[0])
        if lost[-1] < 149:
            assert len(gallery.search_vectors(vectors[:3])[0]) > 0
        gallery.close()
    # Few pages hold more than a part of it: the roots of the two large tables.
    assert sum(count == 0 for count in lost) > len(lost) / 2 and sum(n > 75 for n in lost) <= 4
