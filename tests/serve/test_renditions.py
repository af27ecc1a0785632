"""Larger pictures: of the gallery's own photos, below its roots, and nothing else."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resight.search.gallery import Gallery
from resight.serve import renditions
from service import client_of, is_problem


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of 900 x 600 with a comment and EXIF; "a" has a part as an image of its own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["path,object,box"]
    for number, name in enumerate("abcd"):
        rng = np.random.default_rng(number)
        blocks = np.kron(rng.integers(0, 256, (6, 9, 3)), np.ones((100, 100, 1)))
        exif = Image.Exif()
        exif[0x010E] = "a secret place"
        if name == "d":
            exif[0x0112] = 6  # stands upright when turned
        Image.fromarray(blocks.astype(np.uint8)).save(
            folder / f"{name}.jpg", quality=95, exif=exif, comment=b"a secret word"
        )
        lines.append(f"{name}.jpg,{name},")
    lines.append("a.jpg,part,0 0 200 100")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def shop(photos: Path, embedder: Any, tmp_path: Path) -> Path:
    with Gallery.create(tmp_path / "shop", embedder) as gallery:
        gallery.add(photos / "index.csv")
    return tmp_path / "shop"


def ids(client: Any) -> dict[str, int]:
    return {one["object"]: one["image"] for one in client.get("/v1/images").json()["images"]}


def opened(got: Any) -> Image.Image:
    assert got.status_code == 200 and got.headers["content-type"] == "image/jpeg"
    return Image.open(io.BytesIO(got.content))


def test_larger_upright_and_without_secrets(shop: Path, photos: Path) -> None:
    with client_of(shop) as client:
        of = ids(client)
        got = client.get(f"/v1/images/{of['b']}/picture")
        picture = opened(got)
        assert picture.size == (480, 320) and b"secret" not in got.content
        small = Image.open(photos / "b.jpg").resize((480, 320))
        apart = np.abs(np.asarray(picture, float) - np.asarray(small, float)).mean()
        assert apart < 6
        assert opened(client.get(f"/v1/images/{of['d']}/picture")).size == (320, 480)
        part = opened(client.get(f"/v1/images/{of['part']}/picture"))
        assert part.size == (200, 100)  # a part is shown alone, and never enlarged
        tag = {"If-None-Match": got.headers["etag"]}
        assert client.get(f"/v1/images/{of['b']}/picture", headers=tag).status_code == 304
        assert is_problem(client.get("/v1/images/99999/picture"), 404)


def test_the_small_one_where_the_photo_is_no_more(shop: Path, photos: Path) -> None:
    with client_of(shop) as client:
        of = ids(client)
        small = {n: client.get(f"/v1/images/{of[n]}/thumbnail").content for n in "abcd"}
        (photos / "a.jpg").unlink()
        (photos / "b.jpg").write_bytes(b"\xff\xd8 other content")
        secret = photos.parent / "secret.jpg"
        os.replace(photos / "c.jpg", secret)
        (photos / "c.jpg").symlink_to(secret)  # leads out of the root, to a file of equal size
        size = (photos / "d.jpg").stat().st_size
        (photos / "d.jpg").write_bytes(bytes(size))  # of equal size, and no image
        for name in "abcd":
            got = client.get(f"/v1/images/{of[name]}/picture")
            assert got.status_code == 200 and got.content == small[name], name


def test_a_folder_that_became_a_link(shop: Path, photos: Path) -> None:
    elsewhere = photos.parent / "elsewhere"
    os.replace(photos, elsewhere)
    photos.symlink_to(elsewhere)  # the root itself may be one: the gallery was given it
    with client_of(shop) as client:
        assert opened(client.get(f"/v1/images/{ids(client)['b']}/picture")).size == (480, 320)


def test_limits(shop: Path, photos: Path) -> None:
    size = (photos / "b.jpg").stat().st_size
    for limits in ({"bytes": size - 1}, {"pixels": 900 * 600 - 1}):
        with client_of(shop, **limits) as client:
            got = opened(client.get(f"/v1/images/{ids(client)['b']}/picture"))
            assert max(got.size) <= 160


def test_what_is_kept_is_bounded(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(shop) as client:
        of = ids(client)
        kept = client.app.state.service.renditions
        first = client.get(f"/v1/images/{of['b']}/picture").content
        calls = []
        plain = renditions.photo_of
        monkeypatch.setattr(renditions, "photo_of", lambda *told: calls.append(1) or plain(*told))
        assert client.get(f"/v1/images/{of['b']}/picture").content == first and not calls
        monkeypatch.setattr(renditions, "ROOM", len(first) + 10)
        client.get(f"/v1/images/{of['c']}/picture")
        assert kept._bytes == sum(map(len, kept._kept.values())) <= len(first) + 10
        assert client.get(f"/v1/images/{of['b']}/picture").content == first and calls
        monkeypatch.setattr(renditions, "_WAITING", 0)
        assert max(opened(client.get(f"/v1/images/{of['d']}/picture")).size) <= 160
