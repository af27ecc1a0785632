"""Write the table of docs/scale.md from the measurements in benchmarks/results.

    python tools/scale.py

Each figure is a measured one times what it grows with; nothing is measured here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "scale.md"
SIZES = (10**5, 10**6, 10**7, 10**8)
DIMENSIONS, QUERIES = 256, 10_000
BEGIN, END = "<!-- tools/scale.py -->\n", "<!-- end -->\n"
MIB = 2**20


def table() -> str:
    """The table in Markdown: a line a piece of work, a column a number of images."""
    lines = [
        "| | " + " | ".join(f"{size:,}" for size in SIZES) + " | measured |",
        "| --- | " + "--- | " * len(SIZES) + "--- |",
    ]
    for name, show, of, source in _rows():
        lines.append(f"| {name} | {' | '.join(show(of(n)) for n in SIZES)} | {source} |")
    return "\n".join(lines) + "\n"


def _rows() -> list[tuple[str, Callable[[float], str], Callable[[int], float], str]]:
    rows = _result("scale")["runs"]["1,000,000 files"]
    set_s = (rows["read_s"] + rows["paths_s"] + rows["fingerprint_s"]) / rows["rows"]
    set_bytes = rows["MB"] * MIB / rows["rows"]
    embed = _result("embed")["runs"]["mobilenetv2_100, catalogue"]["resight"]["rate"]
    gallery = _result("gallery")["simulated 100,000 x 256"]
    disk = (gallery["database_MiB"] + gallery["index_MiB"]) * MIB / 10**5
    memory = (gallery["opening"]["own_MiB"] + gallery["opening"]["mapped_MiB"]) * MIB / 10**5
    query = gallery["search"]["batch of 256"]["search"]["ours_s"] / 256 / 10**5
    # Leave one out of SOP: so many products of so many dimensions in so many seconds.
    sop = _result("evaluate")["sop"]["contenders"]["resight"]["best"]
    product = sop / (60_502**2 * 512) * DIMENSIONS
    epoch = _result("train")["nets"]["mobilenetv2_100:96, all threads"]["parts"]["training"]["rate"]
    graph = _result("graph_training")["sizes"]["10,000"]
    near = graph["neighbours"]["s"] / graph["images"] ** 2
    diffusion = graph["diffusion"]["s"] / graph["images"]
    return [
        ("read a table, fingerprint", _time, lambda n: n * set_s, "scale.json"),
        ("– memory for it", _bytes, lambda n: n * set_bytes, "scale.json"),
        ("`embed`, one machine", _time, lambda n: n / embed, "embed.json"),
        ("– features on disk", _bytes, lambda n: n * DIMENSIONS * 4.0, "256 × float32"),
        ("`index` of features", _time, lambda n: n / gallery["filled, vectors/s"], "gallery.json"),
        ("– gallery on disk", _bytes, lambda n: n * disk, "gallery.json"),
        ("– memory to search it", _bytes, lambda n: n * memory, "gallery.json"),
        ("– a query, of 256 at once", _time, lambda n: n * query, "gallery.json"),
        ("`evaluate`, each asks", _time, lambda n: n * n * product, "evaluate.json"),
        ("– 10,000 queries", _time, lambda n: QUERIES * n * product, "evaluate.json"),
        ("`train`, an epoch", _time, lambda n: n / epoch, "train.json"),
        ("graph: neighbours, exact", _time, lambda n: n * n * near, "graph_training.json"),
        ("– diffusion", _time, lambda n: n * diffusion, "graph_training.json"),
    ]


def _result(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _time(seconds: float) -> str:
    """Two digits are all that such a reckoning has."""
    units = ((1, "s"), (60, "min"), (3600, "h"), (86_400, "days"), (365.25 * 86_400, "years"))
    if seconds < 1:
        return f"{_two(1000 * seconds)} ms"
    size, unit = [one for one in units if seconds >= 1.5 * one[0] or one[0] == 1][-1]
    return f"{_two(seconds / size)} {unit}"


def _bytes(count: float) -> str:
    size, unit = [one for one in ((1e6, "MB"), (1e9, "GB"), (1e12, "TB")) if count >= one[0]][-1]
    return f"{_two(count / size)} {unit}"


def _two(value: float) -> str:
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def main() -> None:
    """Put the table in its place on the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
