"""Reports: found at the start, asked for by id, shown where nothing in them can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from resight.errors import UserError
from resight.serve import answers
from resight.serve.links import SECONDS, Links
from resight.serve.reports import Reports
from service import ALL_KEYS, bearer, client_of, is_problem

SCORES = {
    "when": "2026-01-02T03:04:05+0000",
    "scores": [
        {"protocol": "all", "title": "all against all", "level": "image", "primary": "mAP",
         "mAP": 0.75, "R@1": 0.9, "R@5": float("nan"), "queries": 8, "gallery": 30,
         "intervals": {"mAP": [0.7, 0.8]}},
    ],
}  # fmt: skip


@pytest.fixture
def places(tmp_path: Path) -> Path:
    top = tmp_path / "evaluations"
    for name in ("one", "run/evaluation"):
        (top / name).mkdir(parents=True)
        (top / name / "scores.json").write_text(json.dumps(SCORES))
        (top / name / "report.html").write_text(f"<h1>{name}</h1><script>alert(1)</script>")
    (top / "one" / "all").mkdir()  # of a protocol: no evaluation of its own
    (top / "one" / "all" / "scores.json").write_text("{}")
    (top / "two.html").write_text("<h1>compared</h1>")
    (top / "secret.txt").write_text("no")
    (top / ".hidden").mkdir()
    (top / ".hidden" / "x.html").write_text("no")
    return top


def test_what_is_found(places: Path) -> None:
    found = list(Reports([places, places / "one"]).all.values())
    assert [(one.kind, one.title) for one in found] == [
        ("page", "evaluations / two"),
        ("evaluation", "one"),
        ("evaluation", "run/evaluation"),
    ]
    (score,) = found[1].scores
    assert score["figures"] == {"mAP": 0.75, "R@1": 0.9}  # without those that are no numbers
    assert score["interval"] == [0.7, 0.8] and score["queries"] == 8
    assert list(Reports([places]).all) == [one.id for one in found]  # the same again
    assert Reports([places / "two.html"]).all[found[0].id].title == "two"
    for wrong in (places / "none", places / "one" / "x", places.parent / "empty"):
        (places.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=r"not found|no report here"):
            Reports([wrong])
    (places / "one" / "scores.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        Reports([places])


def test_lists_and_pages(folder: Path, places: Path) -> None:
    with client_of(folder, reports=(places,)) as client:
        assert "reports" in client.get("/v1/gallery").json()["offers"]
        told = client.get("/v1/reports?limit=2").json()
        answers.ReportsAnswer.model_validate(told)
        assert (told["total"], told["next"], len(told["reports"])) == (3, 2, 2)
        one = told["reports"][1]
        assert client.get(f"/v1/reports/{one['report']}").json()["scores"] == one["scores"]
        assert str(places) not in json.dumps(told)
        got = client.get(one["page"])
        assert got.text.startswith("<h1>one</h1>")
        policy = got.headers["content-security-policy"]
        assert "sandbox" in policy and "default-src 'none'" in policy and "script" not in policy
        assert got.headers["x-frame-options"] == "SAMEORIGIN"
        assert got.headers["x-content-type-options"] == "nosniff"
        front = client.get("/").headers
        assert "frame-src 'self'" in front["content-security-policy"]
        assert front["x-frame-options"] == "DENY"
        (places / "one" / "report.html").unlink()
        assert is_problem(client.get(one["page"]), 404)
    with client_of(folder) as client:
        assert client.get("/v1/reports").json()["reports"] == []
        assert "reports" not in client.get("/v1/gallery").json()["offers"]


def test_no_path_of_a_client_is_opened(folder: Path, places: Path) -> None:
    with client_of(folder, reports=(places,)) as client:
        id_ = client.get("/v1/reports").json()["reports"][0]["report"]
        for wrong in (
            "secret.txt", "..%2fsecret.txt", "../evaluations/secret.txt", "%00", id_.upper() + "Z",
            id_ + "/../secret.txt", id_[:11], id_ + "0", "one", "%2e%2e", "x" * 5000,
        ):  # fmt: skip
            for end in ("", "/page"):
                assert is_problem(client.get(f"/v1/reports/{wrong}{end}"), 404, 422), wrong
        assert is_problem(client.get("/v1/reports/000000000000"), 404)
        for wrong in ("until=x", "until=-1", "until=" + "9" * 40, "sign=" + "x" * 99):
            assert is_problem(client.get(f"/v1/reports/{id_}/page?{wrong}"), 422), wrong


def test_a_page_needs_a_key_or_a_fresh_address(folder: Path, places: Path) -> None:
    with client_of(folder, ALL_KEYS, reports=(places,)) as client:
        told = client.get("/v1/reports", headers=bearer("search")).json()["reports"]
        one, other = told[0], told[1]
        at = f"/v1/reports/{one['report']}/page"
        assert client.get(one["page"]).status_code == 200  # as a frame asks, without a key
        assert client.get(at, headers=bearer("search")).status_code == 200
        query = one["page"].partition("?")[2]
        for wrong in (
            at, f"/v1/reports/{other['report']}/page?{query}", f"{at}?{query}0",
            f"{at}?{query[:-1]}", at + "?until=99999999999&sign=" + "0" * 40,
            f"{at}?until=99999999999&{query.partition('&')[2]}", at + "?sign=é&until=1",
        ):  # fmt: skip
            assert is_problem(client.get(wrong), 401), wrong


def test_an_address_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESIGHT_SERVE_SECRET", "shared")
    first, second = Links(), Links()
    query = dict(part.split("=") for part in first.query("/a", 1000.0).split("&"))
    until, sign = int(query["until"]), query["sign"]
    assert second.good("/a", until, sign, 1000.0 + SECONDS - 1)  # of another process
    assert not second.good("/a", until, sign, 1001.5 + SECONDS)
    assert not second.good("/b", until, sign, 1000.0)
    assert not second.good("/a", until + 1, sign, 1000.0)
    monkeypatch.delenv("RESIGHT_SERVE_SECRET")
    assert not Links().good("/a", until, sign, 1000.0)


def test_the_verb_says_what_is_wrong(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[Any]
) -> None:
    from command import resight

    assert resight("serve", str(kept), "--reports", str(tmp_path / "none")) == 2
    assert "none: not found" in capsys.readouterr().err
