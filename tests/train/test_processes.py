"""Two processes, gradients averaged: both hold the same weights, and the run can be resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from unlabelled_sets import folder

from command import TINY, resight


@pytest.mark.parametrize("recipe", ["ctl", "auto"])
def test_two_processes(shapes: Path, tmp_path: Path, recipe: str) -> None:
    out = tmp_path / "run"
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    words += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words += ["--main_process_port", "29641", "-m", "resight.cli.main", "train", str(shapes)]
    words += ["--out", str(out), "--backbone", TINY, "--weights", "none", "--size", "32"]
    words += ["--epochs", "2", "--workers", "0", "--set", "ids=2", "--set", "images=2"]
    words += ["--recipe", recipe]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((out / "run.json").read_text())
    assert record["finished"]
    assert done.stderr.count("validating on") == 1  # only one of the two talks
    lines = [json.loads(line) for line in (out / "log.jsonl").open()]
    validated = [line["epoch"] for line in lines if line["kind"] == "val"]
    assert validated == ([0, 1, 2] if recipe == "auto" else [1, 2])  # auto: its start too


def test_two_processes_without_labels(tmp_path: Path) -> None:
    """Each has a memory of its own; the losses are those of one process, but for rounding."""
    photos = folder(tmp_path / "photos", 10, 4)
    insclr = ["train", str(photos), "--recipe", "insclr", "--backbone", TINY, "--weights", "none"]
    insclr += ["--size", "32", "--epochs", "2", "--workers", "0", "--set", "lr=1e-4"]
    for pair in ("steps=3", "tuples=3", "stages=[{}, {memory: {fill: views}}]"):
        insclr += ["--set", pair]
    assert resight(*insclr, "--out", str(tmp_path / "one")) == 0
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    words += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words += ["--main_process_port", "29642", "-m", "resight.cli.main", *insclr]
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("stage 2 of 2") == 1  # only one of the two talks
    for stage in ("stage-1", "stage-2"):
        logs = [tmp_path / run / stage / "log.jsonl" for run in ("one", "two")]
        one, two = ([json.loads(line)["loss"] for line in log.open()] for log in logs)
        assert len(one) == 2 and two == pytest.approx(one, rel=1e-3)
        assert not list((tmp_path / "two" / stage).glob("memory*"))
    assert json.loads((tmp_path / "two/run.json").read_text())["finished"]
    assert (tmp_path / "two/embedder/embedder.json").is_file()
