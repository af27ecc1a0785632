"""Spatial verification in the service: as the gallery's own, and whatever strangers send."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.spatial.scenes import scene, warped

from resight.search.gallery import Gallery
from resight.serve import answers
from resight.serve.sights import Sights
from service import client_of, is_problem, send

VIEW = np.array([[0.9, -0.25, 60.0], [0.25, 0.9, -20.0], [0.0, 0.0, 1.0]])


def bytes_of(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def shop(embedder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes; the first lies in a larger picture, as the part that a box cuts out."""
    top = tmp_path_factory.mktemp("sights")
    lines = ["path,object,box"]
    (top / "photos").mkdir()
    for number in range(6):
        picture = scene(number)
        box = ""
        if number == 0:
            wide = Image.new("RGB", (picture.width + 50, picture.height + 40), "grey")
            wide.paste(picture, (30, 20))
            picture, box = wide, f"30 20 {30 + picture.width} {20 + picture.height}"
        picture.save(top / "photos" / f"{number}.png")
        lines.append(f"{number}.png,scene {number},{box}")
    (top / "photos" / "index.csv").write_text("\n".join(lines) + "\n")
    with Gallery.create(top / "shop", embedder) as gallery:
        gallery.add(top / "photos" / "index.csv")
    return top / "shop"


def test_as_the_gallery_itself(shop: Path) -> None:
    query = bytes_of(warped(scene(0), VIEW))
    with Gallery.open(shop) as gallery:
        for rerank, region in (("spatial", None), ("aqe:n=2+spatial:top=4", (20, 10, 260, 220))):
            (expected,) = gallery.search(query, 3, rerank=rerank, region=region)
            fields: dict[str, Any] = {"k": 3, "rerank": rerank}
            if region:
                fields["region"] = ",".join(map(str, region))
            with client_of(shop) as client:
                told = send(client, query, **fields).json()
            answers.SearchAnswer.model_validate(told)
            assert told["rerank"] == rerank and told["milliseconds"]["verify"] > 0
            assert len(told["hits"]) == 3
            for hit, wanted in zip(told["hits"], expected, strict=True):
                assert hit["object"] == wanted.object and hit["rank"] == wanted.rank
                assert hit["inliers"] == wanted.inliers and hit["why"] == wanted.why
                assert hit["matches"] == [list(line) for line in wanted.matches]
            assert told["hits"][0]["object"] == "scene 0"
            assert told["hits"][0]["inliers"] > 30 > told["hits"][1]["inliers"]


def test_lines_are_where_the_points_are(shop: Path) -> None:
    query = bytes_of(warped(scene(0), VIEW))
    with client_of(shop) as client:
        first = send(client, query, rerank="spatial").json()["hits"][0]
    lines = np.array(first["matches"])
    back = np.linalg.inv(VIEW)
    from_query = np.c_[lines[:, :2], np.ones(len(lines))] @ back.T
    there = from_query[:, :2] / from_query[:, 2:] + [30, 20]  # where the box begins
    assert np.median(np.abs(there - lines[:, 2:])) < 1.5


def test_images_of_the_gallery_and_several_photos(shop: Path) -> None:
    with client_of(shop) as client:
        body: dict[str, Any] = {"image": 1, "rerank": "spatial", "k": 2}
        told = client.post("/v1/search", json=body).json()
        assert len(told["hits"]) == 2 and all(hit["inliers"] < 20 for hit in told["hits"])
        files = [bytes_of(scene(40)), bytes_of(warped(scene(2), VIEW))]
        photos = [base64.b64encode(one).decode() for one in files]
        told = client.post("/v1/search", json={"photos": photos, "rerank": "spatial"}).json()
        assert told["hits"][0]["object"] == "scene 2" and told["hits"][0]["photo"] == 1
        body = {"object": "scene 1", "rerank": "spatial"}
        assert is_problem(client.post("/v1/search", json=body), 422)


def test_what_is_gone_or_changed_is_not_compared(shop: Path, tmp_path: Path) -> None:
    query = bytes_of(warped(scene(3), VIEW))
    place = shop.parent / "photos" / "3.png"
    with client_of(shop) as client:
        assert send(client, query, rerank="spatial").json()["hits"][0]["inliers"] > 30
    kept = place.read_bytes()
    place.unlink()
    with client_of(shop) as client:
        told = send(client, query, rerank="spatial").json()
        hit = next(hit for hit in told["hits"] if hit["object"] == "scene 3")
        assert hit["inliers"] == 0 and hit["matches"] == []
        gone = client.post("/v1/search", json={"image": 4, "rerank": "spatial"})
        assert is_problem(gone, 422) and "gone" in gone.json()["detail"]
    place.write_bytes(kept)


@pytest.mark.parametrize(
    "rerank", ["spatial:top=51", "spatial:side=4096", "spatial:detector=aliked,weights=/etc/passwd"]
)
def test_a_stranger_asks_for_no_more_than_is_meant(shop: Path, rerank: str) -> None:
    with client_of(shop) as client:
        assert is_problem(send(client, bytes_of(scene(0)), rerank=rerank), 422)


def test_out_of_time(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*what: Any) -> None:
        import asyncio

        await asyncio.sleep(60)

    with client_of(shop, deadline=2.0) as client:
        monkeypatch.setattr(Sights, "_see", slow)
        assert is_problem(send(client, bytes_of(scene(0)), rerank="spatial"), 504)
        monkeypatch.undo()
        assert send(client, bytes_of(scene(0))).status_code == 200
