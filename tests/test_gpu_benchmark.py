"""benchmarks/gpu.py runs: minutes on a GPU are not for finding its mistakes."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All parts, tiny, here."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    words = [sys.executable, str(SCRIPT), "--tiny", "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(out.read_text()))


def test_no_part_fails(result: dict[str, Any]) -> None:
    wrong = {
        f"{name}, {key}": one
        for name, part in result["parts"].items()
        for key, one in [("it", part), *part.items()]
        if isinstance(one, dict) and {"failed", "stopped"} & one.keys()
    }
    assert not wrong
    parts = ["evaluation", "losses", "training", "embedding", "whole"]
    assert list(result["parts"]) == parts and result["seconds"] < 480


def test_what_is_found_is_what_was_asked_for(result: dict[str, Any]) -> None:
    parts = result["parts"]
    assert all(parts["evaluation"][name]["same digits"] for name in ("market", "sop"))
    compared = [v for v in parts["losses"].values() if isinstance(v, dict) and "value" in v]
    assert len(compared) == 10 and all(v["value"] > 0 for v in compared)
    for name in ("ctl", "smooth_ap", "insclr"):
        assert parts["training"][f"{name}, bf16"]["resumed"] is True
        assert parts["training"][f"{name}, bf16"]["images a second"] > 0
    assert len([v for v in parts["embedding"].values() if isinstance(v, dict)]) == 2
    assert parts["whole"]["scores"]


def test_a_part_that_is_late_keeps_what_it_found(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    script["unpack"](None, tmp_path / "none")
    result: dict[str, Any] = {"parts": {}}
    args = Namespace(tiny=True, images=None, out=tmp_path / "gpu.json")
    script["run_part"]("whole", 0.2, tmp_path, args, result)
    assert result["parts"]["whole"]["stopped"] == "after 0 s"
    script["run_part"]("nonsense", 60, tmp_path, args, result)
    assert result["parts"]["nonsense"]["failed"][-1].endswith("KeyError: 'nonsense'")
