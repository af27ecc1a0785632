"""A resumed run equals an uninterrupted one, to the last bit, however it was interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from command import TINY
from resight.data.sources import load_images
from resight.errors import UserError
from resight.train import checkpoint, start
from resight.train.catalogue import read_recipe, recipes_folder
from resight.train.loop import LoopOptions, Stopped, Watcher
from resight.train.recipes import settings_of
from resight.train.recipes.ctl import CTLSettings

SETTINGS = {
    "backbone": TINY, "weights": "none", "size": (32, 32), "epochs": 3, "ids": 3, "images": 2,
    "lr": 1e-3, "accumulate": 2,
}  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.load(run / "checkpoints" / "last.pt")
    return state["model"] | {
        f"{k}-{i}-{name}": value
        for k, optimizer in enumerate(state["optimizers"])
        for i, entry in optimizer["state"].items()
        for name, value in entry.items()
        if isinstance(value, torch.Tensor)
    }


def losses(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def whole(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    settings = CTLSettings(**SETTINGS)
    options = LoopOptions(workers=0, log_every=1)
    start.start(settings, load_images(shapes), out, options, Watcher())
    return out


class Interrupt:
    """A watcher that sends a signal to this process after some steps."""

    def __init__(self, after: int):
        self.after = after

    def __call__(self, done: int, total: int, text: str) -> None:
        if done == self.after:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("after", [1, 4, 9])
def test_stopped_and_resumed_equals_uninterrupted(
    whole: Path, shapes: Path, tmp_path: Path, after: int
) -> None:
    """Also in the middle of an epoch, and of an accumulated step."""
    out = tmp_path / "run"
    options = LoopOptions(workers=0, log_every=1)
    with pytest.raises(Stopped):
        watcher = Watcher(step=Interrupt(after))
        start.start(CTLSettings(**SETTINGS), load_images(shapes), out, options, watcher)
    torch.manual_seed(99)  # what happens between must not matter
    assert not start.Run.open(out).record["finished"]
    start.resume(out, options, Watcher())
    assert same(weights(out), weights(whole))
    assert losses(out) == losses(whole)
    assert (out / "embedder/model.safetensors").read_bytes() == (
        whole / "embedder/model.safetensors"
    ).read_bytes()
    with pytest.raises(UserError, match="this run is finished"):
        start.resume(out, options, Watcher())


def test_killed_in_the_middle_and_resumed(whole: Path, shapes: Path, tmp_path: Path) -> None:
    """kill -9, after at least one epoch: from the last whole checkpoint on."""
    out = tmp_path / "run"
    words = ["train", str(shapes), "--out", str(out), "--workers", "0", "--recipe", "ctl"]
    words += ["--backbone", TINY, "--weights", "none", "--size", "32", "--epochs", "3"]
    for pair in ("ids=3", "images=2", "lr=1e-3", "accumulate=2"):
        words += ["--set", pair]
    process = subprocess.Popen(
        [sys.executable, "-m", "resight.cli.main", *words], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if start.Run.open(out).record["finished"]:
        pytest.skip("too fast to be killed in time")
    start.resume(out, LoopOptions(workers=0), Watcher())
    assert same(weights(out), weights(whole))


def test_the_number_of_workers_does_not_matter(whole: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = LoopOptions(workers=2, log_every=1)
    start.start(CTLSettings(**SETTINGS), load_images(shapes), out, options, Watcher())
    assert same(weights(out), weights(whole))


def test_another_seed_is_another_run(whole: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = CTLSettings(**SETTINGS, seed=1)
    start.start(settings, load_images(shapes), out, LoopOptions(workers=0), Watcher())
    assert not same(weights(out), weights(whole))


def test_resuming_on_changed_images_is_refused(shapes: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(shapes, copy)
    out = tmp_path / "run"
    options = LoopOptions(workers=0, log_every=1)
    with pytest.raises(Stopped):
        watcher = Watcher(step=Interrupt(2))
        start.start(CTLSettings(**SETTINGS), load_images(copy), out, options, watcher)
    next(copy.rglob("*.png")).write_bytes(b"something else")
    with pytest.raises(UserError, match="fingerprints differ"):
        start.resume(out, options, Watcher())


def test_random_states_come_back() -> None:
    import random

    import numpy as np

    states = checkpoint.random_states()
    first = (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
    checkpoint.restore_random_states(states)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == first


def kind(path: Path) -> str:
    """What sets a recipe's way of training apart from another's."""
    values, *_ = read_recipe(path)
    loss = values.get("loss", values["recipe"])
    names = [loss["name"] if isinstance(loss, dict) else loss]
    if isinstance(loss, dict) and loss.get("mining"):
        names.append(loss["mining"])
    names += [key for key in ("memory", "super_class", "projection") if values.get(key)]
    return "-".join(
        names + [f"{k}={values[k]}" for k in ("ctl_weight", "freeze_bn") if k in values]
    )


# Those without labels have a test of their own (test_unlabelled.py).
LABELLED = [p for p in sorted(recipes_folder().glob("*.yaml")) if "insclr" not in p.read_text()]
RECIPES = {kind(path): path for path in LABELLED}
EXTRA = {
    "lora": {"recipe": "smooth_ap", "backbone": "test_vit", "tune": "lora", "lora_rank": 2},
    "head": {"recipe": "smooth_ap", "tune": "head", "loss": "proxy_nca"},
    "chunk": {"recipe": "ctl", "chunk": 3, "accumulate": 2},
    "closed-form": {
        "recipe": "smooth_ap", "start": "closed-form", "loss": "fastap", "steps": 9, "refit": True,
        "projection": None,
    },
    "ctl-closed-form": {"recipe": "ctl", "start": "closed-form", "steps": 7, "warmup": 0.3},
    "ctl-memory": {"recipe": "smooth_ap", "loss": "ctl", "memory": {"size": 9}},
}  # fmt: skip


@pytest.mark.parametrize("name", [*RECIPES, *EXTRA])
def test_every_recipe_goes_on_as_if_nothing_had_happened(
    shapes: Path, tmp_path: Path, name: str
) -> None:
    """Each way of training, on a tiny network; memories, proxies and centres included."""
    values = read_recipe(RECIPES[name])[0] if name in RECIPES else EXTRA[name]
    small = {"backbone": TINY, "weights": "none", "size": (32, 32), "ids": 4, "images": 2}
    small |= {"epochs": 2, "lr": 1e-3, "warmup": 0, "milestones": [1], "last_stride": 2}
    small |= {"pooling": "auto", "augment": {"crop": "resized-crop"}} | EXTRA.get(name, {})
    if "memory" in values:
        small["memory"] = {"size": 13, "start": 1}
    settings = settings_of(values | small, name)
    images = load_images(shapes)
    supers = pl.col("object").str.tail(2).cast(pl.Int64) % 3
    images = replace(images, table=images.table.with_columns(super_class_id=supers))
    options = LoopOptions(workers=0, log_every=1)
    whole, out = tmp_path / "whole", tmp_path / "run"
    start.start(settings, images, whole, options, Watcher())
    with pytest.raises(Stopped):
        start.start(settings, images, out, options, Watcher(step=Interrupt(4)))
    torch.manual_seed(99)
    start.resume(out, options, Watcher())
    assert same(weights(out), weights(whole))
    assert losses(out) == losses(whole) and len(losses(out)) > 4
