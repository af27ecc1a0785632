"""The Python interface: what a notebook calls does what the verbs do."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import resight
from command import TINY
from command import resight as command

NETWORK = {"weights": "none", "size": 32}
OWN = """
import torch
from torch import nn


class PullLoss(nn.Module):
    def __init__(self, features, power=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))
        self.power = power

    def forward(self, embeddings, labels, ref_embeddings=None, ref_labels=None):
        unit = nn.functional.normalize(embeddings * self.scale, dim=1)
        same = (labels[:, None] == labels[None]).float()
        return ((unit @ unit.T - same).abs() ** self.power).mean()
"""
SHORT = {"backbone": TINY, "weights": "none", "size": (32, 32), "epochs": 1, "workers": 0}


def test_every_public_function_has_an_example() -> None:
    for name in resight.__all__:
        value = getattr(resight, name)
        if getattr(value, "__module__", "") == "resight.api" and not isinstance(value, type):
            text = inspect.getdoc(value)  # an indented block is what the site shows as code
            assert re.search(rf"^ {{4,}}.*resight\.{name}\(", text, re.M), name


def test_fit_and_measure(shapes: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    torch.manual_seed(1)  # the network is random
    found = resight.fit_embedder(
        shapes, TINY, tmp_path / "fitted", **NETWORK, workers=0, tell=lines.append
    )
    assert any("discriminant" in line or "held" in line for line in lines)
    again = resight.Embedder.load(tmp_path / "fitted")
    assert again.fingerprint() == found.fingerprint()
    torch.manual_seed(1)
    assert command("fit", TINY, str(shapes), "--out", str(tmp_path / "verb"), "--weights", "none",
                   "--size", "32", "--workers", "0") == 0  # fmt: skip
    verb = resight.Embedder.load(tmp_path / "verb")
    np.testing.assert_array_equal(verb.projection.weight.numpy(force=True),
                                  again.projection.weight.numpy(force=True))  # fmt: skip
    more = resight.fit_embedder(shapes, again, method="whitening", dims=8, workers=0)
    assert more.dim == 8


def test_evaluate_and_compare(shapes: Path, run_folder: Path, tmp_path: Path) -> None:
    split = run_folder / "images.parquet"
    base = resight.evaluate_embedder(TINY, split, out=tmp_path / "base", **NETWORK, workers=0)
    assert [one.protocol.level for one in base] == ["image", "object"]
    resight.evaluate_embedder(run_folder, split, out=tmp_path / "run", workers=0, level="image")
    (one,) = resight.compare_evaluations(
        tmp_path / "base", tmp_path / "run", page=tmp_path / "page.html"
    )
    assert one.runs == ("base", "run") and one.verdict(1)
    assert one.values[0, one.main] == base[0].mAP
    assert (tmp_path / "page.html").is_file()
    own = resight.evaluate_embedder(run_folder, workers=0)
    assert 0 < own[0].recall(1) <= 1
    with pytest.raises(resight.UserError, match="images are missing"):
        resight.evaluate_embedder(TINY)
    with pytest.raises(resight.UserError, match="at least one other"):
        resight.compare_evaluations(tmp_path / "base")


def test_protocols() -> None:
    assert resight.protocol_names("market1501")[0] == "market1501"
    assert set(resight.protocol_names("market1501")) < set(resight.protocol_names())
    assert resight.load_protocol("sop").cutoffs == (1, 10, 100, 1000)
    with pytest.raises(resight.UserError, match="no protocol"):
        resight.load_protocol("nothing")


def test_train_by_a_recipe(shapes: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    words = SHORT | {"recipe": "smooth_ap", "settings": {"ids": 4, "loss.temperature": 0.05}}
    run = resight.train_embedder(shapes, tmp_path / "run", tell=lines.append, **words)
    assert run.folder == tmp_path / "run" and run.score is not None and 0 < run.score <= 1
    settings = json.loads((run.folder / "run.json").read_text())["settings"]
    assert (settings["ids"], settings["loss"]["temperature"]) == (4, 0.05)
    assert run.embedder.embed([next(shapes.rglob("*.png"))]).shape == (1, run.embedder.dim)
    assert any("training on" in line for line in lines)
    with pytest.raises(resight.UserError, match="already holds"):
        resight.train_embedder(shapes, run.folder, **words)
    with pytest.raises(resight.UserError, match="no option 'learning_rate'"):
        resight.train_embedder(shapes, tmp_path / "x", learning_rate=1)
    with pytest.raises(resight.UserError, match="no setting 'idz'"):
        resight.train_embedder(shapes, tmp_path / "x", recipe="ctl", settings={"idz": 1})


def test_train_by_itself(shapes: Path, tmp_path: Path) -> None:
    """auto: a closed form and a few steps; without labels as many as fit into the minutes."""
    words = {"backbone": TINY, "weights": "none", "size": 32, "workers": 0}
    run = resight.train_embedder(shapes, tmp_path / "run", steps=2, **words)
    assert run.score is not None and (run.folder / "start").is_dir()
    bare = resight.train_embedder(shapes, tmp_path / "bare", unlabelled=True, minutes=0.1, **words)
    assert bare.score is None and bare.embedder.info["fit"]["from"] == "images"


def test_a_loss_of_ones_own(
    shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pull.py"
    file.write_text(OWN)
    words = SHORT | {"settings": {"ids": 4, "loss.options": {"power": 2.0}}}
    with pytest.raises(resight.UserError, match="loss"):  # options of a loss that is not named
        resight.train_embedder(shapes, tmp_path / "x", recipe="smooth_ap", **words)
    words["settings"] = {"ids": 4, "loss": {"file": str(file), "options": {"power": 2.0}}}
    words["settings"]["loss"]["name"] = "own"
    resight.train_embedder(shapes, tmp_path / "one", recipe="smooth_ap", **words)
    resight.train_embedder(shapes, tmp_path / "two", loss=str(file), **SHORT)
    loss = json.loads((tmp_path / "two" / "run.json").read_text())["settings"]["loss"]
    assert (loss["name"], loss["file"], loss["options"]) == ("own", str(file), {})

    def refused(text: str) -> str:
        file.write_text(text)
        with pytest.raises(resight.UserError) as said:
            resight.train_embedder(shapes, tmp_path / "bad", loss=str(file), force=True, **SHORT)
        return str(said.value)

    assert "SyntaxError: line 1" in refused("class Loss(:")
    assert "here is none" in refused("x = 1")
    assert "ALoss, BLoss" in refused(OWN.replace("PullLoss", "ALoss") + OWN.replace("Pull", "B"))
    assert "can't be made: TypeError" in refused(OWN.replace("power=1.0", "power"))
    file.unlink()
    status = command("train", str(shapes), "--loss", str(file), "--show-settings")
    assert status == 2 and "no such file" in capfd.readouterr().err


def test_a_loss_that_changed_is_not_resumed(tmp_path: Path) -> None:
    from resight.train.recipes import settings_of

    file = tmp_path / "pull.py"
    file.write_text(OWN)
    settings = settings_of({"recipe": "smooth_ap", "loss": str(file)}, "settings")
    file.write_text(OWN + "# other\n")
    kept = settings_of(settings.model_dump(mode="json"), "settings")
    assert kept == settings
    with pytest.raises(resight.UserError, match="not the file that this run began with"):
        kept.loss.build(3, 8)
