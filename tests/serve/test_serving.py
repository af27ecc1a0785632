"""What a service answers: searches as the gallery does, lists, changes that last."""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from resight.search.gallery import Gallery
from resight.serve import answers, looks
from service import client_of, is_problem, photo, send


@pytest.fixture(scope="module")
def client(shared: Path) -> Any:
    with client_of(shared) as made:
        yield made


def test_a_search_is_the_gallery_s(client: Any, shared: Path, one: bytes) -> None:
    told = send(client, one, k=4).json()
    with Gallery.open(shared) as gallery:
        hits = gallery.search(one, k=4)[0]
    assert [hit["object"] for hit in told["hits"]] == [hit.object for hit in hits]
    for told_hit, hit in zip(told["hits"], hits, strict=True):
        assert told_hit["similarity"] == pytest.approx(hit.similarity, abs=1e-5)
        assert told_hit["probability"] == pytest.approx(hit.probability, abs=1e-3)
        assert told_hit["image"] == hit.image and told_hit["images"] == hit.images
    assert (told["no_match"], told["alpha"]) == (hits.no_match, hits.alpha)
    assert told["level"] == "object" and told["hits"][0]["object"] == "object 03"
    answers.SearchAnswer.model_validate(told)
    assert told["milliseconds"]["total"] >= told["milliseconds"]["embed"] > 0


def test_the_ways_to_ask(client: Any, one: bytes, shapes: Path) -> None:
    form = send(client, one, k=3, level="image").json()
    text = base64.b64encode(one).decode()
    as_json = client.post("/v1/search", json={"photos": [text], "k": 3, "level": "image"}).json()
    assert as_json["hits"] == form["hits"]
    files = [("photo", ("a", p.read_bytes())) for p in sorted((shapes / "object 05").iterdir())]
    assert client.post("/v1/search", files=files).json()["hits"][0]["object"] == "object 05"
    part = send(client, one, region="0,0,24,24", k=12).json()
    assert part["hits"] != send(client, one, k=12).json()["hits"]
    only = send(client, one, where="object = 'object 07'").json()["hits"]
    assert [hit["object"] for hit in only] == ["object 07"]


def test_search_by_image_and_by_object(client: Any) -> None:
    told = client.post("/v1/search", json={"image": 18, "level": "image", "k": 5}).json()
    assert told["hits"][0]["object"] == "object 03"
    assert 18 not in [hit["image"] for hit in told["hits"]]
    told = client.post("/v1/search", json={"object": "object 03", "k": 11}).json()
    assert len(told["hits"]) == 11 and told["no_match"] is None
    assert "object 03" not in [hit["object"] for hit in told["hits"]]
    assert [hit["rank"] for hit in told["hits"]] == list(range(1, 12))
    assert is_problem(client.post("/v1/search", json={"image": 10**6}), 404)
    assert is_problem(client.post("/v1/search", json={"object": "nothing"}), 404)


def test_a_second_look(client: Any, one: bytes) -> None:
    client.app.state.service.looks.begin().result()
    plain = send(client, one, level="image", k=12).json()
    assert plain["rerank"] == "none" and plain["hits"][0]["score"] is None
    for how in ("diffusion", "aqe:n=3+kreciprocal:k1=4", "aqe"):
        told = send(client, one, level="image", k=12, rerank=how).json()
        answers.SearchAnswer.model_validate(told)
        scores = [hit["score"] for hit in told["hits"]]
        assert told["rerank"] == how and scores == sorted(scores, reverse=True)
        assert all(f"re-ranked by {how}" in hit["why"] for hit in told["hits"])
        known = {hit["image"]: hit["similarity"] for hit in plain["hits"]}
        for hit in told["hits"]:
            assert abs(hit["similarity"] - known.get(hit["image"], hit["similarity"])) < 1e-6
    body = {"image": 18, "rerank": "diffusion", "level": "image"}
    told = client.post("/v1/search", json=body).json()
    assert 18 not in [hit["image"] for hit in told["hits"]]


def test_nobody_waits_for_a_look_that_is_compiled(
    client: Any, one: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = client.app.state.service
    slow, go = looks.Looks(served.folder), threading.Event()
    monkeypatch.setattr(slow, "_compile", lambda: (go.wait(60), slow.begin().set_result(None)))
    monkeypatch.setattr(served, "looks", slow)
    monkeypatch.setattr(served, "settings", served.settings.model_copy(update={"deadline": 1.0}))
    early = send(client, one, rerank="diffusion")
    assert is_problem(early, 503) and "made ready" in early.json()["detail"]
    assert early.headers["retry-after"] == "5"
    monkeypatch.undo()
    monkeypatch.setattr(served, "looks", slow)
    assert send(client, one).status_code == 200
    go.set()
    slow.close()
    assert send(client, one, rerank="diffusion").status_code == 200


def test_what_goes_with_large_galleries(
    client: Any, one: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = client.get("/v1/gallery").json()["offers"]
    client.app.state.service.looks.begin().result()
    for name in ("aqe", "kreciprocal", "diffusion"):
        assert f"rerank:{name}" in offered
        assert send(client, one, rerank=name).status_code == 200
    monkeypatch.setattr(looks, "RERANKED", 5)
    offered = client.get("/v1/gallery").json()["offers"]
    assert "rerank:kreciprocal" not in offered and "rerank:diffusion" in offered
    for wrong in ("kreciprocal", "diffusion:k=4", "dba+diffusion"):
        assert is_problem(send(client, one, rerank=wrong), 422), wrong
    assert is_problem(send(client, one, rerank="diffusion", exclude_cameras="c1"), 422)
    monkeypatch.setattr(looks, "DIFFUSED", 5)
    assert "rerank:diffusion" not in client.get("/v1/gallery").json()["offers"]
    assert is_problem(send(client, one, rerank="diffusion"), 422)
    assert send(client, one, rerank="aqe").status_code == 200


def test_a_large_gallery_is_made_ready_beside(
    kept: Path, one: bytes, new: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(kept, tmp_path / "large"))
    monkeypatch.setattr(looks, "RERANKED", 5)
    body = {"k": 12, "level": "image", "rerank": "diffusion"}

    def answered(client: Any) -> Any:
        end = time.monotonic() + 300
        while (found := send(client, one, **body)).status_code != 200:
            assert is_problem(found, 503) and found.headers["retry-after"]
            assert time.monotonic() < end
            assert send(client, one).status_code == 200  # others go on
            time.sleep(0.2)
        return found.json()["hits"]

    with client_of(folder) as client:
        client.app.state.service.looks.begin().result()
        assert is_problem(send(client, one, **body), 503)
        hits = answered(client)
        with Gallery.open(folder) as gallery:
            (wanted,) = gallery.search(one, 12, level="image", rerank="diffusion")
        assert [hit["image"] for hit in hits] == [hit.image for hit in wanted]
        assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in wanted])
        # A few changes stand beside what was made, more than a tenth of all do not.
        added = [send(client, new(number), "/v1/images").json()["image"] for number in range(3)]
        assert send(client, one, **body).status_code == 200
        for number in range(3, 9):
            send(client, new(number), "/v1/images")
        assert is_problem(send(client, one, **body), 503)
        hits = answered(client)
        assert not {hit["image"] for hit in hits[:3]} & set(added)
        with Gallery.open(folder) as gallery:
            (wanted,) = gallery.search(one, 12, level="image", rerank="diffusion")
        assert [hit["image"] for hit in hits] == [hit.image for hit in wanted]


def test_wrong_searches(client: Any, one: bytes) -> None:
    for wrong in (
        {"k": 0}, {"k": 101}, {"k": "many"}, {"level": "thing"}, {"where": "nosuch = 3"},
        {"where": "(" * 1500}, {"region": "1,2,3"}, {"region": "5,5,1,1"}, {"alpha": 2},
        {"region": "900,900,999,999"}, {"rerank": "magic"}, {"frob": "1"}, {"alpha": "1e-9"},
        {"region": "nan,0,1,1"}, {"where": "a\x00b = 1"}, {"object": "x"}, {"rerank": "dba"},
    ):  # fmt: skip
        assert is_problem(send(client, one, **wrong), 422), wrong
    for body in (
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"image": 1, "object": "x"}',
        b"[" * 5000,
        b'{"k":NaN}',
    ):
        got = client.post("/v1/search", content=body, headers={"content-type": "application/json"})
        assert is_problem(got, 422), body
    assert is_problem(client.post("/v1/search", json={"photos": ["?"]}), 422)
    assert is_problem(client.post("/v1/search", content=b"x"), 415)
    nine = [("photo", ("a", one))] * 9
    assert is_problem(client.post("/v1/search", files=nine), 422)


def test_lists(client: Any) -> None:
    told = client.get("/v1/objects", params={"limit": 5}).json()
    answers.ObjectsAnswer.model_validate(told)
    assert (told["total"], told["next"], len(told["objects"])) == (12, 5, 5)
    last = client.get("/v1/objects", params={"offset": 10, "limit": 5}).json()
    assert last["next"] is None and len(last["objects"]) == 2
    assert client.get("/v1/objects", params={"like": "OBJECT 0"}).json()["total"] == 10
    told = client.get("/v1/objects/object 03", params={"limit": 2}).json()
    answers.ObjectAnswer.model_validate(told)
    assert (told["object"], told["total"], told["next"]) == ("object 03", 5, 2)
    told = client.get("/v1/images", params={"where": "object like 'object 1%'"}).json()
    answers.ImagesAnswer.model_validate(told)
    assert told["total"] == 10
    one = client.get(told["images"][0]["thumbnail"].removesuffix("/thumbnail")).json()
    assert one == told["images"][0] and "/" not in one["name"]
    answers.GalleryAnswer.model_validate(client.get("/v1/gallery").json())


def test_thumbnails(client: Any) -> None:
    got = client.get("/v1/images/1/thumbnail")
    assert got.headers["content-type"] == "image/jpeg" and got.content[:2] == b"\xff\xd8"
    again = client.get("/v1/images/1/thumbnail", headers={"If-None-Match": got.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert is_problem(client.get("/v1/images/99999/thumbnail"), 404)


def test_add_move_remove(folder: Path) -> None:
    columns = {"price": 3, "name": "mug"}
    with client_of(folder) as client:
        made = send(client, photo(1), "/v1/images", object="mug", columns=json.dumps(columns))
        assert made.status_code == 201, made.text
        told = made.json()
        answers.AddedAnswer.model_validate(told)
        assert (told["object"], told["columns"], told["known"]) == ("mug", columns, False)
        assert send(client, photo(1)).json()["hits"][0]["object"] == "mug"
        again = send(client, photo(1), "/v1/images", object="cup").json()
        assert again == told | {"known": True}
        moved = client.patch(f"/v1/images/{told['image']}", json={"object": "cup"})
        assert moved.json()["object"] == "cup"
        assert client.get("/v1/objects/mug").status_code == 404
        kinds = {c["name"]: c for c in client.get("/v1/gallery").json()["columns"]}
        assert kinds["price"] == {"name": "price", "kind": "number", "values": [3]}
        assert kinds["name"]["kind"] == "text"
        files = list((folder / "uploads").iterdir())
        assert [len(f.stem) for f in files] == [64] and files[0].read_bytes() == photo(1)
        assert client.delete(f"/v1/images/{told['image']}").status_code == 204
        assert not list((folder / "uploads").iterdir())
        at = f"/v1/images/{told['image']}"
        for got in (client.get(at), client.delete(at), client.patch(at, json={"object": None})):
            assert is_problem(got, 404)
        # What was removed by hand can be added by hand, and an unknown one gets its name.
        assert send(client, photo(1), "/v1/images").json()["object"] is None
        named = send(client, photo(1), "/v1/images", object="mug").json()
        assert (named["object"], named["known"]) == ("mug", True)
    with Gallery.open(folder) as gallery:
        assert gallery.search(photo(1), k=1)[0][0].object == "mug"


def test_wrong_changes(client: Any) -> None:
    for wrong in (
        {"object": "  "}, {"object": "a\x00"}, {"object": "x" * 501}, {"columns": "{"},
        {"columns": "[]"}, {"columns": '{"path": 1}'}, {"columns": '{"a": NaN}'},
        {"columns": '{"a": [1]}'}, {"columns": '{"../x": 1}'}, {"columns": '{"a": 1e999}'},
        {"columns": '{"a": "\\ud800"}'}, {"columns": f'{{"a": {10**30}}}'}, {"name": "/etc/passwd"},
    ):  # fmt: skip
        assert is_problem(send(client, photo(2), "/v1/images", **wrong), 422), wrong
    assert is_problem(client.post("/v1/images", data={"object": "x"}), 415, 422)
    for wrong in ({}, {"object": 3}, {"object": ""}, {"other": 1}, [], "x"):
        assert is_problem(client.patch("/v1/images/1", json=wrong), 422), wrong
    assert client.get("/v1/images").json()["total"] == 60


def test_feedback_is_an_image_set(folder: Path, shapes: Path) -> None:
    from resight.data.sources import load_images

    with client_of(folder) as client:
        say = {"hit": 16, "right": True, "request": "abc"}
        got = send(client, photo(4), "/v1/feedback", answer=json.dumps(say))
        assert (got.status_code, got.json()) == (201, {"feedback": 1})
        say = {"hit": 1, "right": False}
        assert (
            send(client, photo(4), "/v1/feedback", answer=json.dumps(say)).json()["feedback"] == 2
        )
        by_image = {"hit": 1, "right": True, "query_image": 2}
        assert client.post("/v1/feedback", json=by_image).json()["feedback"] == 3
        found = load_images(folder / "feedback" / "index.csv")
        assert found.table["object"].to_list() == ["object 03", "object 00"]
        assert json.loads(found.table["not_object"][0]) == ["object 00"]
        assert not found.missing()
        assert client.delete("/v1/feedback/3").status_code == 204
        assert is_problem(client.delete("/v1/feedback/3"), 404)
        assert len(load_images(folder / "feedback" / "index.csv")) == 1
        assert is_problem(client.post("/v1/feedback", json={"hit": 1, "right": True}), 422)
        by_image["hit"] = 999
        assert is_problem(client.post("/v1/feedback", json=by_image), 404)


def test_health_metrics_and_page(client: Any, one: bytes) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 200
    send(client, one)
    text = client.get("/metrics").text
    for name in ("stage_seconds", "queue_length", "batch_size", "hits_total", "no_matches_total"):
        assert f"resight_{name}" in text
    page = client.get("/")
    assert page.status_code == 200 and "text/html" in page.headers["content-type"]
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert client.get("/static/index.html").status_code == 200


def test_examples_of_the_openapi_hold(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<h1>a report</h1>")
    with client_of(shared, reports=(tmp_path / "page.html",)) as client:
        _examples_hold(client)


def _examples_hold(client: Any) -> None:
    schema = client.get("/openapi.json").json()
    (report,) = client.get("/v1/reports").json()["reports"]
    ran = 0
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            assert route.get("summary"), path
            at = path
            for one in route.get("parameters", ()):
                value = one.get("examples") or one["schema"].get("examples") or [None]
                value = next(iter(value.values())) if isinstance(value, dict) else value[0]
                if one["in"] == "query" and one.get("required"):
                    values = value if isinstance(value, list) else [value]
                    at += "?" + "&".join(f"{one['name']}={part}" for part in values)
                if one["name"] == "report":
                    value = report["report"]  # which are there differs
                if one["in"] == "path":
                    at = at.replace("{" + one["name"] + "}", str(value))
            body = route.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in body.get("examples", {}).values():
                got = client.request(method, at, json=example["value"])
                assert got.status_code in (200, 201), (path, got.text)
                ran += 1
            if method == "get":
                assert client.get(at).status_code == 200, at
                ran += 1
    assert ran >= 10
