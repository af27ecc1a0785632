"""The page on scale says what the measurements say."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import scale  # noqa: E402


def test_the_table_is_that_of_the_measurements():
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    found = page.split(scale.BEGIN)[1].split(scale.END)[0]
    assert found == scale.table(), "run: python tools/scale.py"


def test_figures_are_those_of_the_files():
    """One of each kind, reckoned by hand."""
    results = ROOT / "benchmarks" / "results"
    rate = json.loads((results / "embed.json").read_text())["runs"]["mobilenetv2_100, catalogue"]
    lines = {line.split("|")[1].strip(): line.split("|")[2:] for line in scale.table().splitlines()}
    hours = 1e6 / rate["resight"]["rate"] / 3600
    assert float(lines["`embed`, one machine"][1].split()[0]) == float(f"{hours:.2g}")
    assert [cell.strip() for cell in lines["– features on disk"][:4]] == [
        "100 MB",
        "1 GB",
        "10 GB",
        "100 GB",
    ]
    seconds = float(lines["`evaluate`, each asks"][0].split()[0])
    sop = json.loads((results / "evaluate.json").read_text())["sop"]["contenders"]["resight"]
    assert seconds == float(f"{sop['best'] * (1e5 / 60502) ** 2 / 2:.2g}")
    for line in lines.values():
        named = re.findall(r"\w+\.json", line[-2])
        assert all((results / name).is_file() for name in named)


def test_units():
    assert [scale._time(s) for s in (0.0004, 0.5, 1, 89, 90, 5400, 130_000, 5e7)] == [
        "0.4 ms",
        "500 ms",
        "1 s",
        "89 s",
        "1.5 min",
        "1.5 h",
        "1.5 days",
        "1.6 years",
    ]
    assert [scale._bytes(b) for b in (1e6, 2.55e8, 1.04e9, 9.96e10, 3e12)] == [
        "1 MB",
        "260 MB",
        "1 GB",
        "100 GB",
        "3 TB",
    ]
