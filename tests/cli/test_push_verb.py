"""`resight push` and hub: names, against a stand-in for the hub on this machine."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

import resight
from command import resight as command
from hub_server import TOKEN, Hub, commit_sum, running
from resight.models import hub as hub_module
from resight.models.hub import shown

NAME = "me/shop"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, with an empty cache, and a token that it knows."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    hub_module.fetch.cache_clear()
    with running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        files = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        yield server
    hub_module.fetch.cache_clear()


@pytest.fixture
def fails(capfd: pytest.CaptureFixture[str]):
    """Run `resight WORDS`, which fails, and give the one line that it says."""

    def carry_out(*words: object) -> str:
        capfd.readouterr()
        assert command(*map(str, words)) == 2
        lines = [one for one in capfd.readouterr().err.splitlines() if one.startswith("resight: ")]
        assert len(lines) == 1, lines
        return lines[0]

    return carry_out


def test_there_and_back(
    hub: Hub, run_folder: Path, shapes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("push", str(run_folder), NAME) == 0
    out, err = capfd.readouterr()
    assert out.strip() == f"{hub.address}/{NAME}"
    assert "model.safetensors" in err and "private if it is new" in err
    assert hub.private[NAME]
    (files,) = hub.repositories[NAME]
    assert set(files) == {"model.safetensors", "embedder.json", "README.md", "training.png"}
    assert files["training.png"].startswith(b"\x89PNG")
    assert files["model.safetensors"] == (run_folder / "embedder/model.safetensors").read_bytes()
    assert str(shapes.parent).encode() not in files["embedder.json"] + files["README.md"]
    card = files["README.md"].decode()
    assert f'resight.Embedder.load("hub:{NAME}")' in card and "![" in card

    following = shlex.split(err.strip().splitlines()[-1].removeprefix("next: resight "))
    assert following[:2] == ["index", f"hub:{NAME}"]
    assert command(*following, "--workers", "0") == 0  # it works when pasted

    own, other = resight.Embedder.load(run_folder), resight.Embedder.load(f"hub:{NAME}")
    assert other.fingerprint() == own.fingerprint()
    photo = next(shapes.rglob("*.png"))
    assert np.array_equal(resight.open_embedder(f"hub:{NAME}").embed(photo), own.embed(photo))


def test_wherever_a_model_is_taken(hub: Hub, run_folder: Path, shapes: Path) -> None:
    assert command("push", str(run_folder / "embedder"), NAME, "--json") == 0
    name, place = f"hub:{NAME}", str(shapes)
    assert command("embed", name, place, "--out", "f", "--workers", "0") == 0
    assert command("evaluate", name, place, "--workers", "0", "--json") == 0
    assert command("fit", name, place, "--out", "again", "--method", "whitening") == 0
    words = ["--backbone", "test_resnet", "--size", "32", "--workers", "0", "--set", "ids=4"]
    assert command("train", place, "--out", "r", "--weights", name, *words, "--epochs", "1",
                   "--recipe", "ctl", "--set", "images=3") == 0  # fmt: skip


def test_revisions(hub: Hub, run_folder: Path, embedder, tmp_path: Path, fails) -> None:
    assert command("push", str(run_folder), NAME) == 0
    embedder.save(tmp_path / "new")
    assert command("push", str(tmp_path / "new"), NAME, "--public") == 0
    assert hub.private[NAME], "a repository stays as visible as it is"
    old = resight.Embedder.load(f"hub:{NAME}@{commit_sum(NAME, 0)}")
    assert old.fingerprint() == resight.Embedder.load(run_folder).fingerprint()
    assert resight.Embedder.load(f"hub:{NAME}").fingerprint() == embedder.fingerprint()
    said = fails("embed", f"hub:{NAME}@nonsense", run_folder / "images.parquet", "--out", "f")
    assert "no revision 'nonsense'" in said


def test_scores_go_on_the_card(hub: Hub, run_folder: Path, embedder, tmp_path: Path, fails) -> None:
    assert command("evaluate", str(run_folder), "--out", "e", "--workers", "0") == 0
    words = ["--evaluation", "e", "--public"]
    assert command("push", str(run_folder), NAME, *words) == 0
    assert not hub.private[NAME]
    card = hub.repositories[NAME][0]["README.md"].decode()
    row = next(line for line in card.splitlines() if line.startswith("| images.parquet |"))
    scores = json.loads(Path("e/scores.json").read_text())["scores"][0]
    low, high = scores["intervals"]["mAP"]
    assert f"{100 * scores['mAP']:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in row
    embedder.save(tmp_path / "other")
    assert "of another embedder" in fails("push", tmp_path / "other", NAME, *words)


def test_without_the_hub(hub: Hub, run_folder: Path, shapes: Path, fails, monkeypatch) -> None:
    """What was fetched once is there; else one line says so, and soon."""
    assert command("push", str(run_folder), NAME) == 0
    assert command("embed", f"hub:{NAME}", str(shapes), "--out", "f", "--workers", "0") == 0
    hub.broken = 503
    hub_module.fetch.cache_clear()
    assert "the hub answered 503" in fails("push", run_folder, NAME)
    hub.broken = None
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    hub_module.fetch.cache_clear()
    assert command("embed", f"hub:{NAME}", str(shapes), "--out", "g", "--workers", "0") == 0
    said = fails("embed", "hub:me/other", shapes, "--out", "h")
    assert "can't be reached, and its cache has it not" in said
    assert "can't be reached; nothing was uploaded" in fails("push", run_folder, NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in fails("push", run_folder, NAME)


def test_mistakes(hub: Hub, run_folder: Path, shapes: Path, fails, monkeypatch) -> None:
    hub.repositories["me/else"], hub.private["me/else"] = [{"config.json": b"{}"}], False
    assert "holds no embedder" in fails("embed", "hub:me/else", shapes, "--out", "f")
    assert "no such repository" in fails("embed", "hub:me/nothing", shapes, "--out", "f")
    for name in ("hub:me", "hub:", "hub:a/b/c", "hub:a b/c"):
        assert "is named hub:OWNER/NAME" in fails("embed", name, shapes, "--out", "f")
    assert "is named OWNER/NAME" in fails("push", run_folder, "shop")
    assert "no embedder; give the folder" in fails("push", shapes, NAME)
    assert "no embedder; give the folder" in fails("push", "resnet50", NAME)
    assert "refused it (403)" in fails("push", run_folder, "others/shop")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "refused it (401); set HF_TOKEN" in fails("push", run_folder, NAME)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "nowhere")
    assert "no token; set HF_TOKEN" in fails("push", run_folder, NAME)
    assert NAME not in hub.repositories


def test_what_comes_is_checked(hub: Hub, run_folder: Path, shapes: Path, fails) -> None:
    assert command("push", str(run_folder), NAME) == 0
    weights = bytearray(hub.repositories[NAME][0]["model.safetensors"])
    weights[-1] ^= 1
    hub.repositories[NAME][0]["model.safetensors"] = bytes(weights)
    assert "its checksum differs" in fails("embed", f"hub:{NAME}", shapes, "--out", "f")


def test_by_the_environment_alone(hub: Hub, run_folder: Path, tmp_path: Path) -> None:
    """As a user sets it: HF_ENDPOINT, HF_TOKEN, in a process of its own."""
    env = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    code = "from resight.cli.main import main; main()"
    words = [sys.executable, "-c", code, "push", str(run_folder), NAME]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = f"import resight; print(resight.Embedder.load('hub:{NAME}').fingerprint())"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == resight.Embedder.load(run_folder).fingerprint(), done.stderr


def test_no_place_of_this_machine_is_told() -> None:
    info = {"a": "/home/me/x.csv", "b": ["/y/z", 1], "c": {"d": "plain/x"}, "e": None}
    assert shown(info) == {"a": "x.csv", "b": ["z", 1], "c": {"d": "plain/x"}, "e": None}
