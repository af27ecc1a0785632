"""InsCLR's step beyond the network beside its bare reads and products: time, ratios, memory.

    python benchmarks/insclr.py     # 1.2 M images x 2048: minutes, 11 GB of disk and page cache
    python benchmarks/insclr.py --images 100000 --dims 256 --negatives 10000     # to try it out

One step of the last stage of recipes/insclr_gldv2.yaml: 16 tuples of 4, their pools of 500
neighbours, 100,000 random negatives from the memory. All that is neither the network's forward
pass nor its backward pass counts: selection, mining, relations, the loss and its gradient by the
embeddings, and writing the memory, with a checkpoint to go back to. Three losses: contrastive
with the paper's margin of .4, which few random negatives reach here; with a margin of 0, as if half
of all images were alike; and InfoNCE.

The floor is what no way of doing it goes without (peers/insclr.py): the vectors that the step
needs, float16, read as float32, and the products of the batch with the random negatives, of the
query sets with the candidates, and of the kept images with what was mined for them. Where the
gradient needs random negatives in numbers (InfoNCE, margin 0) their product counts twice. Of three
block sizes the fastest counts.

A process measures one loss. Step and floors take turns, on new images and new negatives each time;
the ratio is the median over the turns, each with its own floor. The memory's files are real ones;
before the clock runs each page is touched once, and `fetched` says how many had to come from the
disk all the same. The images are made up. `MB` is the peak of anonymous memory beyond what the
process held before its steps; `mapped` is what of the files was in memory. Linux only.

Without other sizes, the results go to benchmarks/results/insclr.json. The pool's speed:
benchmarks/insclr_pool.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from peers.watch import MARK, anonymous, machine, run

LOSSES = {
    "contrastive": {"name": "contrastive", "margin": 0.4},
    "contrastive, margin 0": {"name": "contrastive", "margin": 0.0},
    "infonce": {"name": "infonce"},
}
TWICE = ("contrastive, margin 0", "infonce")  # the gradient needs a second product
BLOCKS = (256, 512, 1024)  # of the floor
TUPLES, NEIGHBOURS, WARM = 16, 500, 2
# The released code on two cores: seconds a step, and GiB of its memory in RAM.
RELEASED = {
    "set difference over 1.22 M ids": 1.84,
    "gather of 100,000 vectors": 1.36,
    "loss, row by row": 2.3,
    "sum over tensors": 0.41,
}
RELEASED_GIB = 18.7


def make(args: argparse.Namespace) -> None:
    """Write the memory's files; tell the parent how long it took."""
    from peers import insclr as peer

    start = time.perf_counter()
    peer.make_bank(peer.World.make(args.images, args.dims), args.folder / "memory")
    print(MARK + json.dumps({"seconds": time.perf_counter() - start}), flush=True)


def child(name: str, args: argparse.Namespace) -> None:
    """Measure one loss in this process; tell the parent."""
    import numpy as np
    import torch

    from peers import insclr as peer
    from resight.mining.memory import MemoryBank

    torch.set_num_threads(args.threads)
    world = peer.World.make(args.images, args.dims)
    bank = MemoryBank.open(args.folder / "memory")
    bank.checkpoint()
    pool = peer.make_pool(world, args.folder, NEIGHBOURS)
    objective = peer.make_objective(LOSSES[name], args.negatives, bank, pool)
    random = np.random.default_rng(1)
    batches = [
        peer.make_batch(world, pool, objective, TUPLES, random) for _ in range(WARM + args.turns)
    ]
    peer.touch(bank)
    del world

    def step(batch: Any) -> dict[str, float]:
        e = batch.embeddings.requires_grad_()
        parts = objective(e, e, batch.targets, batch.plain)
        parts["loss"].backward()
        return {key: float(value.detach()) for key, value in parts.items()}

    print(MARK + json.dumps({"before": anonymous()}), flush=True)
    for batch in batches[:WARM]:
        step(batch)
    print(MARK + json.dumps({"loss": name}), flush=True)

    turns, parts = [], []
    fetched = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    for turn, batch in enumerate(batches[WARM:]):
        window = bank.window(int(objective.step) * args.negatives, args.negatives)
        views = [torch.from_numpy(piece.vectors) for piece in window]
        todo: dict[str, Callable[[], Any]] = {
            f"floor-{block}": partial(peer.floor, batch, bank, views, block, name in TWICE)
            for block in BLOCKS
        }
        todo["step"] = partial(step, batch)
        names = list(todo)
        order = names[turn % len(names) :] + names[: turn % len(names)]
        timed = {key: clock(todo[key]) for key in order}
        parts.append(timed["step"].pop("result"))
        turns.append(timed)
    told = {
        "seconds": 0.0,
        "turns": turns,
        "fetched": resource.getrusage(resource.RUSAGE_SELF).ru_majflt - fetched,
        "mapped_mb": round(peer.mapped() / 1e6),
        "means": {key: statistics.mean(part[key] for part in parts) for key in parts[0]}
        | peer.sizes(batches),
    }
    print(MARK + json.dumps(told), flush=True)


def clock(do: Callable[[], Any]) -> dict[str, Any]:
    """Wall and processor seconds, and the result where there is one."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = do()
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return seconds if result is None else seconds | {"result": result}


def judge(result: dict[str, Any]) -> dict[str, Any]:
    """Medians of the turns' times, and of their ratios to the fastest floor."""
    turns = result["turns"]

    def median(key: str, of: str) -> float:
        return statistics.median(turn[key][of] for turn in turns)

    kept: dict[str, Any] = {}
    for of in ("wall", "cpu"):
        best = min((f"floor-{block}" for block in BLOCKS), key=lambda key: median(key, of))
        ratios = [turn["step"][of] / turn[best][of] for turn in turns]
        kept[of] = {
            "ms": round(1000 * median("step", of), 1),
            "floor_ms": round(1000 * median(best, of), 1),
            "floor": best,
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
    kept["means"] = {key: float(f"{value:.4g}") for key, value in result["means"].items()}
    return kept | {key: result[key] for key in ("fetched", "mapped_mb", "mb")}


def show(found: dict[str, Any]) -> None:
    """Print the table, and what the released code needs."""
    columns = ("", "ms", "floor", "ratio", "CPU ms", "floor", "ratio", "MB", "mapped", "fetched")
    print("{:26}{:>9}{:>8}{:>7}{:>9}{:>8}{:>7}{:>6}{:>8}{:>8}".format(*columns))
    for name, one in found.items():
        if "failed" in one:
            print(f"{name:26}{one['failed']}")
            continue
        line = f"{name:26}"
        for of in ("wall", "cpu"):
            time_ = one[of]
            line += f"{time_['ms']:9,.0f}{time_['floor_ms']:8,.0f}{time_['ratio']:7.2f}"
        print(f"{line}{one['mb']:6,.0f}{one['mapped_mb']:8,.0f}{one['fetched']:8,}")
        print("    " + ", ".join(f"{key} {value:g}" for key, value in one["means"].items()))
    seconds = sum(RELEASED.values())
    print(
        f"The released code at 1.22 M images, on two cores: {1000 * seconds:,.0f} ms "
        f"({', '.join(f'{key} {value:g} s' for key, value in RELEASED.items())}), and "
        f"{RELEASED_GIB} GiB of memory."
    )


def main() -> None:
    """Make the memory, measure, print the table, keep the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--images", type=int, default=1_200_000)
    add("--dims", type=int, default=2048)
    add("--negatives", type=int, default=100_000)
    add("--loss", choices=LOSSES, help="one of them; all unless given")
    add("--turns", type=int, default=12)
    add("--threads", type=int, default=machine()["cores"])
    add("--limit", type=float, default=600, help="seconds a process")
    add("--memory", type=float, default=12, help="GB a process, without files")
    add(
        "--folder", type=Path, help="where the files go and are deleted again; else a temporary one"
    )
    add("--out", type=Path, help="results file")
    add("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        make(args) if args.child == "make" else child(args.child, args)
        return

    os.environ |= dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(args.threads)
    )
    out, sizes = args.out, ("images", "dims", "negatives", "loss")
    if out is None and all(getattr(args, key) == parser.get_default(key) for key in sizes):
        out = Path(__file__).parent / "results" / "insclr.json"
    found = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the files go
    with tempfile.TemporaryDirectory(prefix="insclr-", dir=args.folder) as folder:
        words = [sys.executable, __file__, "--folder", folder]
        for key in ("images", "dims", "negatives", "turns", "threads"):
            words += [f"--{key}", str(getattr(args, key))]
        for name in ("make", *([args.loss] if args.loss else LOSSES)):
            print(f"  {name} ...", file=sys.stderr, flush=True)
            result = run([*words, "--child", name], args.limit, args.memory * 1e9)
            if name == "make":
                if "failed" in result:
                    raise SystemExit(f"the memory could not be made: {result['failed']}")
                continue
            found[name] = result if "failed" in result else judge(result)
    show(found)
    if out:
        keep(out, found, args)


def keep(out: Path, found: dict[str, Any], args: argparse.Namespace) -> None:
    """Write the results file."""
    what = (
        f"{TUPLES} tuples of 4, {args.images:,} images x {args.dims}, {args.negatives:,} negatives"
    )
    entry = {
        "what": what,
        "machine": machine(),
        "versions": {package: metadata.version(package) for package in ("numpy", "torch")},
        "threads": args.threads,
        "load": round(os.getloadavg()[0], 2),
        "losses": found,
        "released": {"seconds": RELEASED, "GiB": RELEASED_GIB},
    }
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(entry, indent=2) + "\n")


if __name__ == "__main__":
    main()
