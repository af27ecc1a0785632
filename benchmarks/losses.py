"""Forward and backward of the losses beside the floor and others: time, ratios, memory, values.

    python benchmarks/losses.py                          # resight, the floors, the plain CTL loop
    python benchmarks/losses.py --size smooth-ap-224,ctl-16x4 --turns 1   # to try it out

    python -m venv ../peers
    ../peers/bin/pip install -r benchmarks/requirements-peers.txt
    python benchmarks/losses.py --peers-python ../peers/bin/python        # and PML

Smooth-AP with B images, 4 a class, D = 512; the official centroid triplet loss with P ids of M
images, D = 2048. A floor is the products and the element-wise work that the definition asks for
and nothing else (peers/losses.py): for Smooth-AP three B × B × D products in tiles and a sigmoid
for every (query, positive, other), for CTL two B × B × D products. (resight's CTL needs less than
that: only the rounds' own blocks of the product, and a gradient without one.) The loop is the
definition of CTL written down in torch, round by round and id by id.

Every measurement is a process of its own, the contenders take turns, and imports and a first step
on few images are not timed. A process repeats the step for about --seconds, or does it once, and
gives the median; the table has the median over turns, and the spread in the results. Memory is the
peak of one step beyond what the process held before it, embeddings included, gradient not (Linux's
VmHWM, set back before). What needs more than the memory limit is not run.

On a machine that has other work, --threads 1 --clock cpu counts the processor time of one thread.

PML's Smooth-AP (2.9.0) takes the number of images of a class for the number of classes: its value
is another one, unless both are equal; its work is nearly the same.

Without --size and --only, the results go to benchmarks/results/losses.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.watch import MARK, anonymous, machine, run

EACH = 4  # images a class, Smooth-AP
TILES = (1 << 20, 1 << 22)  # of the floor of Smooth-AP: the faster one counts


@dataclass(frozen=True)
class Size:
    """A batch: what loss, how many classes of how many images, of how many dimensions."""

    loss: str
    classes: int
    each: int
    features: int


SIZES = {f"smooth-ap-{b}": Size("smooth-ap", b // EACH, EACH, 512) for b in
         (224, 384, 1024, 4096, 16384)} | {
    f"ctl-{p}x{m}": Size("ctl", p, m, 2048) for p, m in ((16, 4), (48, 4), (128, 8))
}  # fmt: skip


@dataclass(frozen=True)
class Contender:
    """`prepare` gives its maker: a peer's python may lack what another's needs."""

    label: str
    prepare: Callable[[], Any]
    peer: bool = False
    need: float = 0  # bytes, where it is known beforehand
    same_as: str = ""  # whose value it should have


def contenders(size: Size) -> dict[str, Contender]:
    """All of them at one size, by name."""

    def get(name: str, *args: Any) -> Callable[[], Any]:
        def prepare() -> Any:
            from peers import losses

            found = getattr(losses, name)
            return found(*args) if args else found

        return prepare

    if size.loss == "ctl":
        return {
            "floor": Contender("floor", get("floor_ctl")),
            "resight": Contender("resight", get("ctl")),
            "loop": Contender("loop over rounds and ids", get("loop_ctl"), same_as="resight"),
        }
    found = {
        f"floor-{tile}": Contender(f"floor, tiles of {tile:,}", get("floor_smooth_ap", EACH, tile))
        for tile in TILES
    }
    images = size.classes * size.each
    return found | {
        "resight": Contender("resight", get("smooth_ap", False)),
        "resight-with": Contender("resight, include_query", get("smooth_ap", True)),
        "pml": Contender(
            "pytorch-metric-learning", get("pml_smooth_ap"), True,
            need=4 * 4.0 * images**3, same_as="resight-with",
        ),
    }  # fmt: skip


def child(name: str, size: Size, seconds: float, clock: str) -> None:
    """Measure one contender in this process; tell the parent."""
    import torch

    prepare = contenders(size)[name].prepare()
    now = time.process_time if clock == "cpu" else time.perf_counter

    def batch(classes: int) -> tuple[Any, Any]:
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(classes, 1, size.features, generator=generator)
        noise = torch.randn(classes, size.each, size.features, generator=generator)
        labels = torch.arange(classes).repeat_interleave(size.each)
        return (centres + 2 * noise).abs().flatten(0, 1).requires_grad_(), labels

    few, labels = batch(4)
    prepare(few, labels)(few)
    embeddings, labels = batch(size.classes)
    step = prepare(embeddings, labels)
    print(MARK + json.dumps({"before": anonymous()}), flush=True)
    reset_peak()
    before = resident("VmRSS")
    times, value, peak, end = [], None, 0.0, time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        embeddings.grad = None
        start = now()
        value = step(embeddings)
        times.append(now() - start)
        if len(times) == 1:
            peak = resident("VmHWM") - before
            gradient = 0 if embeddings.grad is None else embeddings.grad.nbytes
            peak = max(0.0, peak - gradient)
    times = times[1:] or times
    result = {
        "seconds": statistics.median(times),
        "steps": len(times),
        "extra": peak / 1e6,
        "value": None if value is None else float(value.detach()),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
    }
    print(MARK + json.dumps(result), flush=True)


def reset_peak() -> None:
    """Set this process's peak of resident memory to what it holds."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(key: str) -> float:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith(key)).split()[1])


def measure(name: str, only: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """All turns of all contenders at one size; by contender, what came out."""
    found: dict[str, Any] = {}
    known = {k: v for k, v in contenders(SIZES[name]).items() if not only or k in only}
    for turn in range(args.turns):
        for key, one in known.items():
            kept = found.setdefault(key, {"label": one.label, "seconds": [], "extra_mb": []})
            if "failed" in kept or (kept["seconds"] and kept["seconds"][0] > args.once):
                continue
            if one.need > args.memory * 1e9:
                kept["failed"] = f"not run: needs {one.need / 1e9:,.0f} GB"
                continue
            print(f"  {name}: {one.label}, turn {turn + 1} ...", file=sys.stderr, flush=True)
            python = args.peers_python if one.peer else sys.executable
            command = [python, __file__, "--child", key, "--size", name]
            command += ["--seconds", str(args.seconds), "--clock", args.clock]
            result = run(command, args.limit, args.memory * 1e9)
            if "failed" in result:
                kept["failed"] = result["failed"]
                continue
            kept["seconds"].append(result["seconds"])
            kept["extra_mb"].append(round(result["extra"], 1))
            kept |= {k: result[k] for k in ("value", "torch", "threads", "steps")}
    return found


def judge(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Medians, ratios to the floor and to resight, differences of values."""
    known = contenders(SIZES[name])
    for one in found.values():
        if one["seconds"]:
            one["median"] = statistics.median(one["seconds"])
            one["extra_mb"] = max(one["extra_mb"])
    floors = [one["median"] for key, one in found.items() if key.startswith("floor")]
    ours = found.get("resight", {}).get("median")
    for key, one in found.items():
        if "median" not in one:
            continue
        if floors:
            one["to_floor"] = round(one["median"] / min(floors), 2)
        if ours:
            one["to_resight"] = round(one["median"] / ours, 2)
        same = found.get(known[key].same_as, {}).get("value")
        if same is not None:
            one["difference"] = one["value"] - same
    return found


def show(name: str, found: dict[str, Any]) -> None:
    """Print the table of one size."""
    size = SIZES[name]
    print(f"\n{name}: {size.classes} classes of {size.each} images, D = {size.features:,}")
    print(f"{'':28}{'ms':>12}{'to floor':>10}{'to resight':>12}{'MB':>9}  value")
    for one in found.values():
        if "median" not in one:
            print(f"{one['label']:28}{one.get('failed', ''):>12}")
            continue
        floor, ours = one.get("to_floor", float("nan")), one.get("to_resight", float("nan"))
        line = f"{one['label']:28}{1000 * one['median']:12,.2f}{floor:10.2f}{ours:12.2f}"
        line += f"{one['extra_mb']:9,.1f}"
        if one["value"] is not None:
            line += f"  {one['value']:.6f}"
        if "difference" in one:
            line += f" (differs by {one['difference']:+.1e})"
        print(line)


def main() -> None:
    """Measure the sizes asked for, print the tables, keep the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--size", default=",".join(SIZES), help="of " + ", ".join(SIZES))
    add("--only", default="", help="contenders by name, with commas")
    add("--turns", type=int, default=5)
    add("--seconds", type=float, default=1.0, help="of steps in a process")
    add("--once", type=float, default=20.0, help="a step that takes longer gets one turn")
    add("--threads", type=int, help="all cores unless given")
    add("--clock", choices=("wall", "cpu"), default="wall")
    add("--limit", type=float, default=600, help="seconds a process")
    add("--memory", type=float, default=12, help="GB a process")
    add("--peers-python", default=sys.executable, help="a Python that has the peers")
    add("--out", type=Path, help="results file")
    add("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, SIZES[args.size], args.seconds, args.clock)
        return

    threads = args.threads or machine()["cores"]
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    only = [name for name in args.only.split(",") if name]
    out = args.out
    if out is None and not only and args.size == parser.get_default("size"):
        out = Path(__file__).parent / "results" / "losses.json"
    for name in args.size.split(","):
        if name not in SIZES:
            raise SystemExit(f"no size {name!r}; there are {', '.join(SIZES)}")
    for name in args.size.split(","):
        found = judge(name, measure(name, only, args))
        show(name, found)
        if out:
            old = json.loads(out.read_text()) if out.exists() else {}
            load = round(os.getloadavg()[0], 2)
            entry = {"machine": machine(), "load": load, "clock": args.clock, "contenders": found}
            out.parent.mkdir(exist_ok=True)
            kept = {k: v for k, v in old.items() if k in SIZES} | {name: entry}
            out.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
