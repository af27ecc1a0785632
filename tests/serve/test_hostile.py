"""Uploads, paths and headers of an enemy: the right 4xx, nothing told, the service goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import ALLOWED, frame_bomb, mutated, others, png_bomb, seeds

from service import client_of, is_problem, photo, send


@pytest.fixture(scope="module")
def client(shared: Path) -> Any:
    limits = {"bytes": 200_000, "pixels": 1_000_000, "frames": 50}
    with client_of(shared, decoders=2, queue=8, **limits) as made:
        yield made


def test_good_photos_of_each_format_are_taken(client: Any) -> None:
    for content in seeds():
        assert send(client, content).status_code == 200


def test_what_is_no_image(client: Any) -> None:
    for name, content in others().items():
        assert is_problem(send(client, content), 415), name
        assert is_problem(send(client, content, "/v1/images"), 415), name


def test_truncated(client: Any) -> None:
    for content in seeds():
        for share in (0.3, 0.6, 0.9):
            got = send(client, content[: int(share * len(content))])
            assert got.status_code in (200, 415, 422)


def test_bombs(client: Any) -> None:
    assert is_problem(send(client, png_bomb(30_000, 30_000)), 422)
    assert "pixels" in send(client, png_bomb(30_000, 30_000)).json()["detail"]
    assert is_problem(send(client, png_bomb(2**31 - 1, 2**31 - 1)), 415, 422)
    assert is_problem(send(client, frame_bomb(5000)), 422)
    assert send(client, frame_bomb(20)).status_code == 200
    assert is_problem(send(client, bytes(200_001)), 413)
    assert is_problem(send(client, photo(1) + bytes(200_001)), 413)


def test_too_many_bytes_without_a_length(client: Any) -> None:
    def body() -> Any:
        for _ in range(1000):
            yield bytes(1000)

    kind = {"content-type": "application/json"}
    assert is_problem(client.post("/v1/search", content=body(), headers=kind), 413)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert is_problem(client.post("/v1/search", content=body(), headers=kind), 413, 422)


def test_polyglots_are_pictures_and_nothing_else(client: Any) -> None:
    told = send(client, photo(9) + others()["zip"]).json()
    assert told["hits"]
    assert send(client, photo(9) + others()["html"]).status_code == 200


def test_hundreds_of_mutations(client: Any) -> None:
    rng, good, seen = np.random.default_rng(5), seeds(), dict[int, int]()
    for number in range(300):
        got = send(client, mutated(rng, good))
        assert got.status_code in ALLOWED, number
        if got.status_code != 200:
            is_problem(got, *ALLOWED)
        seen[got.status_code] = seen.get(got.status_code, 0) + 1
    assert min(seen.get(200, 0), seen.get(415, 0), seen.get(422, 0)) > 10, seen
    assert send(client, photo(3)).status_code == 200


def test_odd_forms(client: Any) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="photo"'
    for body in (
        b"", b"--b--", b"\r\n", part, part + b"\r\n\r\n", part + b"\r\n\r\nx\r\n--b--\r\n",
        part + b'; filename="../../etc/passwd"\r\n\r\nx\r\n--b--\r\n',
        part + b'; filename="a\x00b"\r\n\r\n\xff\xfe\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n\xff\r\n--b--\r\n',
        b"--b\r\nX: " + b"y" * 50_000 + b"\r\n\r\n",
    ):  # fmt: skip
        for path in ("/v1/search", "/v1/images", "/v1/feedback"):
            got = client.post(path, content=body, headers=kind)
            assert is_problem(got, 415, 422), (path, body[:80])
    for odd in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\xe4",
    ):
        got = client.post(
            "/v1/search", content=b"--b--", headers={"content-type": odd.encode("latin1")}
        )
        assert is_problem(got, 415, 422), odd
    many = [("k", (None, "1"))] * 500
    assert is_problem(client.post("/v1/search", files=many), 422)


def test_paths_and_headers(client: Any, shared: Path) -> None:
    for path in (
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd",
        "/static/%00", "/static/..%5capp.py", "/v1/images/../../etc", "/v1/images/1%00",
        "/v1/images/-1", "/v1/images/9999999999999999999999", "/v1/images/1e3", "/v1/images/１",
        "/v1/objects/..%2f..%2fetc%2fpasswd", "/v1/objects/%00", "/v1/objects/%ff",
        "/v1/objects/" + "x" * 3000, "/v1/objects/😀", "/v1/images?offset=-1",
        "/v1/images?offset=99999999999999999999", "/v1/images?limit=0", "/v1/images?where=%00",
        "/v1/objects?like=%00", "/nothing", "/v1/images/1/thumbnail/../../2x",
        "/v1/images/1/picture/../../../app.py", "/v1/images/..%2f1/picture", "/v1/images/0/picture",
        "/v1/map?by=%00", "/v1/map?by=path", "/v1/map?by=" + "x" * 3000, "/v1/doubtful?kind=all",
        "/v1/doubtful?least=nan", "/v1/doubtful?least=0.1", "/v1/doubtful?limit=100000",
        "/v1/thumbnails?image=../1", "/v1/thumbnails", "/v1/reports/../../etc/passwd",
        "/v1/reports/0123456789ab/page", "/v1/reports/%2e%2e%2f%2e%2e/page",
    ):  # fmt: skip
        got = client.get(path)
        assert got.status_code in (404, 422), (path, got.status_code)
        is_problem(got, 404, 422)
    assert is_problem(client.put("/v1/images/1"), 405)
    assert client.get("/healthz", headers={"X-Request-Id": "x" * 5000}).status_code == 200
    for header in ({"Content-Length": "-1"}, {"Content-Length": "9" * 30}, {"Content-Length": "x"}):
        got = client.post("/v1/search", content=b"", headers=header)
        assert is_problem(got, 400, 413), header
    assert not (shared.parent / "etc").exists()


def test_an_object_may_have_any_name(folder: Path) -> None:
    with client_of(folder) as client:
        for number, name in enumerate(
            ("a/b", "../x", "a'b\" or 1=1 --", "Ünïcode 😀", "%2e", "a?b#c")
        ):
            got = send(client, photo(20 + number), "/v1/images", object=name)
            assert got.status_code == 201 and got.json()["object"] == name, got.text
            found = client.post("/v1/search", json={"object": name, "k": 1})
            assert found.status_code == 200, name
            assert client.get("/v1/objects", params={"like": name}).json()["total"] == 1
        assert all(len(p.stem) == 64 for p in (folder / "uploads").iterdir())


def test_a_dead_decoder_is_replaced(client: Any) -> None:
    decoders = client.app.state.service.decoders
    for pid in decoders.pids():
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    for _ in range(3):
        assert send(client, photo(5)).status_code in (200, 422)  # both had died: one try too few
    assert send(client, photo(5)).status_code == 200


def test_a_decoder_that_hangs_is_replaced(folder: Path) -> None:
    with client_of(folder, decoders=1, decode_seconds=1.5) as client:
        decoders = client.app.state.service.decoders
        os.kill(decoders.pids()[0], signal.SIGSTOP)
        got = send(client, photo(5))
        assert is_problem(got, 422) and "longer than 1.5 s" in got.json()["detail"]
        assert send(client, photo(5)).status_code == 200
