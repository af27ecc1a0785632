"""Keys, roles, limits of rate, hosts and origins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command import resight
from resight.errors import UserError
from resight.serve.keys import Key, Keys, is_local, make
from service import ALL_KEYS, KEYS, bearer, client_of, is_problem, line, photo, send

OPEN, NEEDED = "", ("search", "write", "admin")
ROUTES = {  # (method, path): the role it needs
    ("GET", "/"): OPEN,
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/v1/gallery"): "search",
    ("POST", "/v1/search"): "search",
    ("GET", "/v1/objects"): "search",
    ("GET", "/v1/objects/{name}"): "search",
    ("GET", "/v1/images"): "search",
    ("GET", "/v1/images/{image}"): "search",
    ("GET", "/v1/images/{image}/thumbnail"): "search",
    ("GET", "/v1/images/{image}/picture"): "search",
    ("GET", "/v1/thumbnails"): "search",
    ("GET", "/v1/map"): "search",
    ("GET", "/v1/doubtful"): "search",
    ("GET", "/v1/reports"): "search",
    ("GET", "/v1/reports/{report}"): "search",
    ("GET", "/v1/reports/{report}/page"): "search",
    ("POST", "/v1/feedback"): "search",
    ("DELETE", "/v1/feedback/{number}"): "search",
    ("POST", "/v1/images"): "write",
    ("PATCH", "/v1/images/{image}"): "write",
    ("DELETE", "/v1/images/{image}"): "write",
    ("GET", "/metrics"): "admin",
}


@pytest.fixture(scope="module")
def client(shared: Path) -> Any:
    with client_of(shared, ALL_KEYS) as made:
        yield made


def test_every_route_is_in_the_table(client: Any) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert (method.upper(), path.replace(":path", "")) in ROUTES, path


@pytest.mark.parametrize("role", ["", "search", "write", "admin"])
def test_each_route_with_each_role(client: Any, role: str) -> None:
    for (method, path), needed in ROUTES.items():
        path = path.format(name="object 03", image=10**9, number=10**9, report="0" * 12)
        got = client.request(method, path, headers=bearer(role))
        if needed and not role:
            assert is_problem(got, 401), path
            assert got.headers["www-authenticate"] == "Bearer"
        elif needed and NEEDED.index(role) < NEEDED.index(needed):
            assert is_problem(got, 403), path
        else:
            assert got.status_code in (200, 404, 415, 422), path


def test_wrong_keys(client: Any) -> None:
    for header in (
        "Bearer x",
        "Bearer ",
        "Basic eDp5",
        "Bearer rs_Search",
        "bearer\trs_search",
        "x",
    ):
        assert is_problem(client.get("/v1/gallery", headers={"Authorization": header}), 401)
    wrong = {"Authorization": "Bearer \udce4".encode(errors="surrogateescape")}
    assert is_problem(client.get("/v1/gallery", headers=wrong), 401)
    for role in KEYS:
        assert client.get("/v1/gallery", headers=bearer(role)).json()["role"] == role


def test_keys_and_photos_are_in_no_log(
    client: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from resight.serve import logs

    logs.set_up()
    got = send(client, photo(3), headers=bearer("search") | {"X-Request-Id": "abc-1"})
    assert got.headers["x-request-id"] == "abc-1" == got.json()["request"]
    text = capfd.readouterr().err
    assert '"request": "abc-1"' in text and '"key": "search"' in text
    assert "rs_search" not in text and "PNG" not in text
    strange = client.get("/healthz", headers={"X-Request-Id": 'a b"{}'})
    assert len(strange.headers["x-request-id"]) == 32


def test_a_key_has_a_rate(folder: Path) -> None:
    with client_of(folder, ALL_KEYS, rate=12) as client:
        got = [client.get("/v1/gallery", headers=bearer("search")) for _ in range(4)]
        assert [one.status_code for one in got[:2]] == [200, 200]
        assert is_problem(got[3], 429) and int(got[3].headers["retry-after"]) >= 1
        assert client.get("/v1/gallery", headers=bearer("write")).status_code == 200


def test_allowance_comes_back() -> None:
    key = Key("search", b"", "x")
    assert [key.take(60, 0.0) for _ in range(11)] == [0] * 10 + [1]
    assert key.take(60, 5.0) == 0 and key.take(60, 5.0) == 0
    assert [key.take(60, 1e6) for _ in range(11)][-1] == 1  # no more than ten at once


def test_without_keys_only_this_machine_calls(folder: Path) -> None:
    with client_of(folder) as client:
        assert client.get("/v1/gallery").json()["role"] == "admin"
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil", ""):
            assert is_problem(client.get("/v1/gallery", headers={"Host": host}), 403), host
        assert client.get("/v1/gallery", headers={"Host": "127.0.0.1:8000"}).status_code == 200
        for origin in ("http://evil.example", "null", "http://localhost.evil"):
            got = client.delete("/v1/images/1", headers={"Origin": origin})
            assert is_problem(got, 403), origin
        own = client.patch(
            "/v1/images/1", json={"object": "x"}, headers={"Origin": "http://localhost"}
        )
        assert own.status_code == 200
        got = client.get("/v1/gallery", headers={"Origin": "http://evil.example"})
        assert "access-control-allow-origin" not in got.headers


def test_cors_where_it_is_set(folder: Path) -> None:
    with client_of(folder, ALL_KEYS, cors=("https://shop.example",)) as client:
        asked = {"Origin": "https://shop.example"} | bearer("search")
        got = client.get("/v1/gallery", headers=asked)
        assert got.headers["access-control-allow-origin"] == "https://shop.example"
        asked["Origin"] = "https://other.example"
        other = client.get("/v1/gallery", headers=asked)
        assert "access-control-allow-origin" not in other.headers


def test_files_of_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.txt"
    made = {role: make(path, role) for role in ("search", "admin")}
    assert path.stat().st_mode & 0o077 == 0
    text = path.read_text()
    keys = Keys.read(path, {"RESIGHT_KEYS": line("write", "w")})
    for role, key in (made | {"write": "w"}).items():
        found = keys.find(key)
        assert found is not None and found.role == role
        assert key not in text
    assert keys.find("rs_") is None
    assert resight("serve", "g", "--keys", str(path), "--new-key", "write") == 0
    printed = capsys.readouterr().out.strip()
    found = Keys.read(path, {}).find(printed)
    assert found is not None and found.role == "write"
    path.write_text("search abc\n")
    with pytest.raises(UserError, match="line 1"):
        Keys.read(path, {})
    with pytest.raises(UserError, match="--new-key"):
        Keys.read(tmp_path / "none", {})
    with pytest.raises(UserError, match="none of"):
        make(tmp_path / "k", "root")


def test_mistakes_of_the_verb(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--host", "0.0.0.0"], ["--host", "no such host", "--keys", "none"],
                  ["--set", "queue=0"], ["--new-key", "admin"]):  # fmt: skip
        assert resight("serve", str(kept), *words) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_local_names() -> None:
    for name in ("localhost", "127.0.0.1:80", "[::1]:8000", "LOCALHOST:1"):
        assert is_local(name)
    for name in ("", "localhost.x", "127.0.0.1.x", "x:localhost", "10.0.0.1"):
        assert not is_local(name)
