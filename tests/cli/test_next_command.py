"""The last line of a verb is the next command: pasted, it works."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from command import TINY, resight

NETWORK = ["--weights", "none", "--size", "32"]


@pytest.fixture
def place(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with photos under a name that a shell would split."""
    shutil.copytree(shapes, tmp_path / "my photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    """Run `resight WORDS`, and give the words of the command that it names last."""

    def carry_out(*words: object) -> list[str]:
        capfd.readouterr()
        status = resight(*map(str, words))
        out, err = capfd.readouterr()
        assert status == 0, err
        last = err.strip().splitlines()[-1] if err.strip() else ""
        if words[0] == "search":
            return []
        assert last.startswith("next: resight "), f"{words}: {err}"
        assert out.strip(), "the result stands on stdout"
        return shlex.split(last.removeprefix("next: "))[1:]

    return carry_out


def chain(run, *words: object, change: dict[str, list[str]] | None = None) -> list[str]:
    """The verbs that come one after another, each as the one before it said."""
    went, following = [], list(map(str, words))
    while following:
        went.append(" ".join(following[:2]) if following[0] == "data" else following[0])
        extra = (change or {}).get(following[0], [])
        following = run(*following, *extra)
        assert len(went) < 10, went
    return went


def test_from_pictures_to_a_search(place: Path, run) -> None:
    """Only how long training takes, and with what, is added."""
    short = {"train": [*NETWORK, "--backbone", TINY, "--minutes", "0.02", "--workers", "0"]}
    small = ["--objects", 12, "--pictures", 4, "--pixels", 32, "--workers", 1]
    went = chain(run, "demo-data", "--out", "drawn here", *small, change=short)
    assert went == ["demo-data", "data check", "train", "evaluate", "index", "search"]
    assert (place / "evaluations").is_dir() and (place / "galleries").is_dir()


def test_without_labels(place: Path, run) -> None:
    went = chain(
        run, "fit", TINY, "my photos", "--unlabelled", "--out", "e", *NETWORK, "--workers", "0"
    )
    assert went[0] == "fit" and went[-1] == "search"
    one = place / "my photos" / "object 00"
    assert chain(run, "embed", TINY, one, "--out", "f", *NETWORK, "--workers", "0") == [
        "embed", "index", "search",
    ]  # fmt: skip


def test_trained_without_labels(place: Path, run) -> None:
    """There is nothing to measure by, so a gallery comes next."""
    words = ["--backbone", TINY, *NETWORK, "--workers", "0", "--minutes", "0.02"]
    went = chain(run, "train", "my photos", "--unlabelled", *words)
    assert went == ["train", "index", "search"]


def test_a_backbone_keeps_its_weights_and_size(place: Path, run) -> None:
    words = run("evaluate", TINY, "my photos", *NETWORK, "--workers", 0)
    assert words[:3] == ["index", TINY, "my photos"] and words[3:7] == NETWORK
    assert chain(run, *words) == ["index", "search"]
    again = run("evaluate", TINY, "my photos", *NETWORK, "--workers", 0)
    assert again[-1] != words[-1], "a gallery is there already; another name is given"


def test_the_set_is_read_the_same_way(place: Path, run) -> None:
    rows = ["file,sku"]
    rows += [f"{path},{path.parent.name}" for path in sorted(place.glob("my photos/*/*.png"))]
    (place / "list.csv").write_text("\n".join(rows) + "\n")
    columns = ["--columns", "path=file,object=sku"]
    words = run("fit", TINY, "list.csv", "--out", "e", *NETWORK, *columns, "--workers", 0)
    assert words == ["evaluate", "e", "list.csv", *columns]
    assert chain(run, *words) == ["evaluate", "index", "search"]


def test_features(place: Path, run) -> None:
    words = run("embed", TINY, "my photos", "--out", "f", *NETWORK, "--workers", 0)
    assert words == ["evaluate", "f"]
    assert chain(run, *words) == ["evaluate", "index", "search"]
    assert run("data", "check", "f")[:2] == ["index", "f"]
    np.save("f.npy", np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    words = run("evaluate", "f.npy", "my photos", "--out", "numbers")
    assert words == ["report", "numbers", "--out", "numbers/page.html"]
    assert resight(*words) == 0


def test_json_is_all_that_is_printed(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One object on stdout, and no next command: a program reads it."""
    for words, key in (
        (["demo-data", "--out", "d", "--objects", "4", "--pixels", "32"], "index"),
        (["embed", TINY, "my photos", "--out", "f", *NETWORK, "--workers", "0"], "features"),
        (["index", "f", "--out", "g"], "gallery"),
        (["recipes", "check", "small"], "faults"),
    ):
        capfd.readouterr()
        assert resight(*words, "--json") == 0
        out, err = capfd.readouterr()
        assert key in json.loads(out) and "next:" not in err


def test_errors_are_looked_at_next(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "my photos" / "object 01" / "foto_ä1.png").write_bytes(b"no picture")
    assert resight("data", "check", "my photos") == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last == "next: resight data check 'my photos' --sheet check.png"


def test_a_device_that_is_not_there(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["embed", TINY, "my photos", "--out", "x"],
        ["train", "my photos", "--out", "x"],
        ["fit", TINY, "my photos", "--out", "x"],
        ["index", TINY, "my photos", "--out", "x"],
        ["evaluate", TINY, "my photos"],
    ):
        assert resight(*words, *NETWORK[: 4 * (words[0] != "train")], "--device", "banana") == 2
        assert "--device banana: can't be used" in capfd.readouterr().err
    words = ["embed", TINY, "my photos", "--out", "x", *NETWORK, "--workers", "0"]
    assert resight(*words, "--device", "cpu") == 0
