"""Two processes, gradients averaged: both hold the same weights, and the run can be resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from command import TINY


def test_two_processes(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    words += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words += ["--main_process_port", "29641", "-m", "resight.cli.main", "train", str(shapes)]
    words += ["--out", str(out), "--backbone", TINY, "--weights", "none", "--size", "32"]
    words += ["--epochs", "2", "--workers", "0", "--set", "ids=2", "--set", "images=2"]
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
    assert [line["epoch"] for line in lines if line["kind"] == "val"] == [1, 2]
