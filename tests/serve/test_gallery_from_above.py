"""The map and the doubtful images, as a service gives them."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from resight.client import Client
from resight.search.editing import move
from resight.search.gallery import Gallery
from resight.search.overview import make_in
from resight.serve import answers
from resight.serve.overviews import Overviews
from service import client_of, is_problem, send


@pytest.fixture
def doubted(shapes: Path, folder: Path, tmp_path: Path) -> Path:
    """A gallery with one file under two objects, and an image under a wrong one."""
    from resight.data.sources import load_images

    twice = tmp_path / "twice"
    (twice / "object 99").mkdir(parents=True)
    shutil.copy(shapes / "object 03" / "foto_ä2.png", twice / "object 99" / "a.png")
    (twice / "object 98").mkdir()
    shutil.copy(shapes / "object 05" / "foto_ä2.png", twice / "object 98" / "b.png")
    with Gallery.open(folder) as gallery:
        gallery.add(load_images(twice), duplicates="keep")
    return folder


def made(client: Any, path: str) -> Any:
    """An answer, once what it stands on is made: here, where that is not what is tested."""
    if hasattr(client, "app"):
        make_in(client.app.state.service.folder)
    end = time.monotonic() + 300
    while time.monotonic() < end:
        told = client.get(path).json()
        if told["current"]:
            return told
        time.sleep(0.2)
    raise AssertionError("never made")


def test_doubtful_pairs_and_what_moving_does(doubted: Path) -> None:
    with client_of(doubted) as client:
        first = client.get("/v1/doubtful").json()
        answers.DoubtfulAnswer.model_validate(first)
        assert (first["making"], first["current"], first["total"]) == (True, False, 0)
        told = made(client, "/v1/doubtful?least=0.999")
        answers.DoubtfulAnswer.model_validate(told)
        both = [{one["object"] for one in pair["images"]} for pair in told["pairs"]]
        assert {"object 03", "object 99"} in both and {"object 05", "object 98"} in both
        assert [pair["similarity"] for pair in told["pairs"]] == sorted(
            (pair["similarity"] for pair in told["pairs"]), reverse=True
        )
        page = client.get("/v1/doubtful?least=0.999&limit=1&offset=1").json()
        assert page["pairs"] == told["pairs"][1:2] and page["total"] == told["total"]
        assert client.get("/v1/doubtful?least=0.9").json()["total"] >= told["total"]
        # What is moved is doubtful no longer, before anything is made anew; a same file stays.
        same = next(p for p in told["pairs"] if {o["object"] for o in p["images"]} == both[0])
        assert same["same_file"]
        a, b = same["images"]
        client.patch(f"/v1/images/{b['image']}", json={"object": a["object"]})
        again = client.get("/v1/doubtful?least=0.999").json()
        assert again["pairs"][0]["same_file"]  # now a copy within one object
        client.delete(f"/v1/images/{b['image']}")
        again = client.get("/v1/doubtful?least=0.999").json()
        assert b["image"] not in [o["image"] for p in again["pairs"] for o in p["images"]]


def test_outliers_are_those_of_the_check(folder: Path) -> None:
    from resight.search.check import check

    with Gallery.open(folder) as gallery:
        move(gallery.engine, [18, 33], "object 11")
        wanted = [one.ids[0] for one in check(gallery) if one.what == "outlier"]
    with client_of(folder) as client:
        told = made(client, "/v1/doubtful?kind=outliers")
        answers.DoubtfulAnswer.model_validate(told)
        assert [one["image"] for one in told["outliers"]] == wanted
        assert wanted and all(one["similarity"] < told["usual"] for one in told["outliers"])
        client.patch(f"/v1/images/{wanted[0]}", json={"object": "object 00"})
        again = client.get("/v1/doubtful?kind=outliers").json()
        assert wanted[0] not in [one["image"] for one in again["outliers"]]


def test_the_map(doubted: Path) -> None:
    with client_of(doubted) as client:
        told = made(client, "/v1/map")
        answers.MapAnswer.model_validate(told)
        every = client.get("/v1/images?limit=1000").json()["images"]
        assert [point[2] for point in told["points"]] == [one["image"] for one in every]
        assert [told["names"][at] for at in told["of"]] == [one["object"] for one in every]
        assert all(-1.001 <= v <= 1.001 for x, y, _ in told["points"] for v in (x, y))
        plain = client.get("/v1/map", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers and plain.json() == told
        cameras = client.get("/v1/map?by=camera").json()
        assert cameras["names"] == [] and set(cameras["of"]) == {-1}
        for wrong in ("path", "id", "nothing", "object_id", "bytes", "a' or 1"):
            assert is_problem(client.get("/v1/map", params={"by": wrong}), 422), wrong
        image = told["points"][3][2]
        assert client.delete(f"/v1/images/{image}").status_code == 204
        left = client.get("/v1/map").json()
        assert image not in [point[2] for point in left["points"]]


def test_columns_of_numbers(folder: Path) -> None:
    import json

    from service import photo

    with client_of(folder) as client:
        for number in range(14):
            columns = json.dumps({"price": f"{number}.50", "shop": "a"})
            send(client, photo(number), "/v1/images", object="mug", columns=columns)
        told = made(client, "/v1/map?by=price")
        priced = [value for value in told["values"] if value is not None]
        assert sorted(priced) == [n + 0.5 for n in range(14)] and told["names"] == []
        assert len(told["values"]) == len(told["points"])
        told = client.get("/v1/map?by=shop").json()
        assert told["names"] == ["a"] and told["of"].count(0) == 14 and told["values"] is None


def test_one_at_a_time_and_none_is_left_running(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resight.serve.beside as module

    plain, started = module.subprocess.Popen, []

    def slow(words: list[str], **how: Any) -> Any:
        assert not {"RESIGHT_KEYS", "RESIGHT_SERVE_SECRET"} & how["env"].keys()
        started.append(plain(["sleep", "600"], **how))
        return started[-1]

    monkeypatch.setenv("RESIGHT_KEYS", "x")
    monkeypatch.setattr(module.subprocess, "Popen", slow)
    with Gallery.open(folder) as gallery:
        kept = Overviews(folder, gallery.engine)
        assert kept.get() == (None, True) == kept.get()
        assert len(started) == 1 and started[0].poll() is None
        kept.close()
    assert started[0].poll() is not None


def test_a_failure_is_not_repeated_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resight.serve.beside as module

    plain, started = module.subprocess.Popen, []

    def failing(words: list[str], **how: Any) -> Any:
        started.append(plain(["/bin/sh", "-c", "echo broken >&2; exit 3"], **how))
        return started[-1]

    monkeypatch.setattr(module.subprocess, "Popen", failing)
    with Gallery.open(folder) as gallery:
        kept = Overviews(folder, gallery.engine)
        assert kept.get() == (None, True)
        started[0].wait()
        assert kept.get() == (None, False) == kept.get() and len(started) == 1
        kept.close()


def test_thumbnails_at_once(folder: Path) -> None:
    import base64

    with client_of(folder) as client:
        told = client.get("/v1/thumbnails?image=1&image=3&image=3&image=999999").json()
        answers.ThumbnailsAnswer.model_validate(told)
        assert sorted(told["thumbnails"]) == ["1", "3"]
        alone = client.get("/v1/images/3/thumbnail").content
        assert base64.b64decode(told["thumbnails"]["3"]) == alone
        for wrong in ("", "?image=0", "?image=x", "?image=1" + "&image=1" * 200):
            assert is_problem(client.get("/v1/thumbnails" + wrong), 422), wrong


def test_in_a_real_server(folder: Path, served: Any) -> None:
    address, process = served(folder)
    told = made(httpx.Client(base_url=address, timeout=60), "/v1/map")
    assert len(told["points"]) == 60
    with Client(address) as client:
        assert client.map(by="camera")["points"] == told["points"]
        assert list(client.doubtful("pairs", limit=1, least=0.9)) == list(
            client.doubtful(least=0.9)
        )
        assert list(client.reports()) == []
        assert client.picture(1)[:2] == b"\xff\xd8"
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM
