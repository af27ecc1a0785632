"""Exact evaluation beside the bare product and other packages: seconds, ratios, memory, mAP.

    python benchmarks/evaluate.py                    # resight and numpy only
    python benchmarks/evaluate.py --size small       # seconds, to try it out

    python -m venv ../peers
    ../peers/bin/pip install -r benchmarks/requirements-peers.txt
    python benchmarks/evaluate.py --peers-python ../peers/bin/python

    python benchmarks/evaluate.py --size sop --only resight --profile   # needs py-spy

Three sizes of synthetic features (peers/data.py): Market-1501 with its camera rule, SOP and
VGGFace2 leave-one-out. Every contender (peers/*.py) runs in a process of its own on the same
mapped files, from un-normalised features and labels to mAP; imports are not timed. The repeats go
in turns; one that takes over two minutes runs once, the product and resight always. Memory is the
peak of anonymous memory (RssAnon, read every 10 ms from outside) beyond that after the imports:
mapped features don't count, copies of them do. "differs by" is from resight's mAP: for the same
queries, and without the junk rule where the other has none. A contender that needs more than the
memory limit is not started; one that passes a limit is killed. Linux only. Without --only, the
results go to benchmarks/results/evaluate.json, each size by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from peers import oml, ours, plain, pml, tm
from peers.data import SIZES, Data, Size, write
from peers.watch import MARK, anonymous, machine, profile, run

SHAPES = ((4096, 4096), (4096, 1024))  # of the floor's blocks: the fastest of many that we tried
PACKAGES = {
    "product": ("numpy",),
    "resight": ("resight", "numpy", "polars", "numba"),
    "numpy": ("numpy",),
    "pml": ("pytorch-metric-learning", "faiss-cpu", "torch", "numpy"),
    "oml": ("open-metric-learning", "torch", "numpy"),
    "torchmetrics": ("torchmetrics", "torch", "numpy"),
}


@dataclass(frozen=True)
class Contender:
    """One way to the mAP. `other`: how its definition differs from the mAP over the whole list."""

    label: str
    prepare: Callable[[Data], plain.Work]
    peer: bool = False
    need: float = 0  # bytes, where it is known beforehand
    other: str = ""


def contenders(size: Size, memory: float) -> dict[str, Contender]:
    """All of them by name. Where a peer can't hold the whole list, it also runs with a cut one."""
    found = {
        f"product-{a}x{b}": Contender(f"bare product, {a} × {b}", plain.product(a, b))
        for a, b in SHAPES
    }
    found["resight"] = Contender("resight", ours.prepare)
    found["numpy"] = Contender(
        "numpy, full matrix, argsort", plain.full_matrix, need=plain.full_matrix_bytes(size)
    )
    found["numpy-blocks"] = Contender("numpy, block-wise argsort", plain.in_blocks)
    junk = ", no junk rule" if size.cameras else ""
    found["pml"] = Contender(
        "pytorch-metric-learning", partial(pml.prepare, False), True,
        pml.bytes_needed(size), junk.removeprefix(", "),
    )  # fmt: skip
    found["pml-cut"] = Contender(
        "pytorch-metric-learning, k=max_bin_count", partial(pml.prepare, True), True,
        pml.bytes_needed(size, size.most[1]), "list cut at the largest object" + junk,
    )  # fmt: skip
    need = oml.bytes_needed(size)
    found["oml"] = Contender("open-metric-learning", partial(oml.prepare, None), True, need)
    if need > memory:
        k = oml.longest(size, 0.75 * memory)
        found["oml-cut"] = Contender(
            f"open-metric-learning, map@{k:,}", partial(oml.prepare, k), True,
            oml.bytes_needed(size, k), f"list cut at {k:,}, over the relevant found",
        )  # fmt: skip
    found["torchmetrics"] = Contender(
        "torchmetrics, RetrievalMAP", tm.retrieval_map, True, tm.bytes_needed(size)
    )
    found["torchmetrics-query"] = Contender("torchmetrics, query by query", tm.by_query, True)
    return found


def child(name: str, size: str, folder: Path, memory: float) -> None:
    """Run one contender once; tell the parent when the work begins and how it ended."""
    data = Data.load(size, folder)
    work = contenders(SIZES[size], memory)[name].prepare(data)
    print(MARK + json.dumps({"before": anonymous()}), flush=True)
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    after = result.pop("after", dict)
    print(MARK + json.dumps({"seconds": seconds, **result}), flush=True)
    versions = {package: metadata.version(package) for package in PACKAGES[name.split("-")[0]]}
    print(MARK + json.dumps({**after(), "versions": versions}), flush=True)


def command(name: str, size: str, folder: Path, args: argparse.Namespace) -> list[str]:
    """What a Python is called with to be the child for one contender."""
    where = ["--size", size, "--folder", str(folder), "--memory", str(args.memory)]
    return [__file__, "--child", name, *where]


def measure(size: str, names: list[str], folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """All repeats of all contenders at one size; by name, what came out."""
    memory = args.memory * 1e9
    known = contenders(SIZES[size], memory)
    found: dict[str, Any] = {}
    for repeat in range(args.repeat):
        for name in names:
            one, kept = known[name], found.setdefault(name, {"seconds": [], "mb": []})
            base = name.startswith(("product", "resight"))
            slow = kept["seconds"] and kept["seconds"][0] > 120 and not base
            if slow or "failed" in kept or "whole" in kept:
                continue
            if one.need > memory:
                kept["failed"] = f"not run: needs {one.need / 1e9:,.0f} GB"
                continue
            print(f"  {size}: {one.label}, run {repeat + 1} ...", file=sys.stderr, flush=True)
            python = args.peers_python if one.peer else sys.executable
            result = run([python, *command(name, size, folder, args)], args.limit, memory)
            for key in ("seconds", "mb"):
                if "failed" not in result:
                    kept[key].append(round(result.pop(key), 3))
            kept |= {k: v for k, v in result.items() if k not in ("seconds", "mb")}
    return found


def judge(size: str, found: dict[str, Any], folder: Path, memory: float) -> dict[str, Any]:
    """Best of the repeats, ratio to the floor, and how the values compare, for every contender."""
    known = contenders(SIZES[size], memory)
    products = [one for name, one in found.items() if name.startswith("product")]
    floor = min(min(one["seconds"]) for one in products)
    ours_ap = np.load(folder / "ap.npy") if (folder / "ap.npy").exists() else None
    for name, one in found.items():
        one |= {"label": known[name].label, "definition": known[name].other or "whole list"}
        if one["seconds"]:
            one |= {"best": min(one["seconds"]), "ratio": round(min(one["seconds"]) / floor, 2)}
            one["mb"] = max(one["mb"])
        whole = one.get("whole")
        if whole:
            one |= {"best": round(whole), "ratio": round(whole / floor, 2)}
        if one.get("mAP") is None or ours_ap is None or name == "resight":
            continue
        same = ours_ap
        if "queries" in one:
            same = ours_ap[Data.load(size, folder).shuffled()[: one["queries"]]]
        expected = float(same.mean())
        if known[name].other == "no junk rule":
            expected = found["resight"].get("without_junk_rule", float("nan"))
        elif known[name].other:
            continue
        one["difference"] = one["mAP"] - expected
    return found


def show(size: str, found: dict[str, Any]) -> None:
    """Print the table of one size."""
    print(f"\n{size}: {SIZES[size].text}")
    print(f"{'':44}{'seconds':>9}{'ratio':>8}{'MB':>8}  mAP")
    for one in found.values():
        if "failed" in one:
            print(f"{one['label']:44}{one['failed'][:90]:>17}")
            continue
        about = "about " if "whole" in one else ""
        seconds = f"{about}{one['best']:,.{0 if about else 2}f}"
        line = f"{one['label']:44}{seconds:>9}{one['ratio']:8.2f}{one['mb']:8,.0f}"
        notes = [] if one["definition"] == "whole list" else [one["definition"]]
        if "queries" in one:
            notes.append(f"first {one['queries']:,} queries, stopped")
        if "difference" in one:
            notes.append(f"differs by {one['difference']:+.1e}")
        value = "" if one["mAP"] is None else f"  {one['mAP']:.5f}"
        print(line + value + (f" ({', '.join(notes)})" if notes else ""))


def main() -> None:
    """Measure the sizes asked for, print the tables, keep the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--size", default="market,sop,vggface2", help="of market, sop, vggface2; or small")
    add("--only", help="contenders by name, with commas; the product always runs")
    add("--repeat", type=int, default=3)
    add("--limit", type=float, default=1800, help="seconds a run")
    add("--memory", type=float, default=16, help="GB a run")
    add("--peers-python", default=sys.executable, help="a Python that has the peers")
    add("--profile", action="store_true", help="only show where resight's time goes")
    add("--out", type=Path, help="results file")
    add("--child", help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.size, args.folder, args.memory * 1e9)
        return

    out = args.out
    if out is None and not args.only and args.size != "small":
        out = Path(__file__).parent / "results" / "evaluate.json"
    sizes = ["small", "small-loo"] if args.size == "small" else args.size.split(",")
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="evaluate-") as name:
            folder = Path(name)
            write(size, folder)
            if args.profile:
                profile([sys.executable, *command("resight", size, folder, args)], size, folder)
                continue
            names = list(contenders(SIZES[size], args.memory * 1e9))
            if args.only:
                only = args.only.split(",")
                names = [n for n in names if n in only or n.startswith("product")]
            found = measure(size, names, folder, args)
            found = judge(size, found, folder, args.memory * 1e9)
            show(size, found)
        if out:
            keep(out, size, found, args)


def keep(out: Path, size: str, found: dict[str, Any], args: argparse.Namespace) -> None:
    """Put the results of one size into the file, beside those of the other sizes."""
    old = json.loads(out.read_text()) if out.exists() else {}
    limits = {"seconds": args.limit, "GB": args.memory}
    entry = {"what": SIZES[size].text, "machine": machine(), "limits": limits, "contenders": found}
    kept = {name: value for name, value in old.items() if name in SIZES} | {size: entry}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
