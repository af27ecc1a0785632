"""The candidate pool's exact neighbours beside faiss' flat index: seconds, ratio, memory.

    python benchmarks/insclr_pool.py                        # 100k and 1 M features, some queries
    python benchmarks/insclr_pool.py --size 100k --dims 256,2048 --queries 2048
    python benchmarks/insclr_pool.py --size small           # seconds, to try it out

Synthetic un-normalised features, 50 an object, in a mapped float32 file; the 500 nearest of the
first `queries` rows among all. Each contender runs in a process of its own, in
turns, with the same number of threads. `ready` is what comes before the search (normalise; for
faiss also the copy into the index), `search` the search itself; the ratios are of the best
searches by the wall clock, and of the least processor time, all included.
Memory is the peak of anonymous memory beyond that after the imports. Agreement: the share of
neighbours that are the same (nearly equal ones may change places). `load`: how many processes
wanted a core when the last run ended; above the number of cores the times say little. Linux only.
Results go to benchmarks/results/insclr_pool.json unless the size is "small".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from peers.watch import MARK, anonymous, machine, run

PER_OBJECT, K = 50, 500
SIZES = {"small": (5_000, 1_000), "100k": (100_000, 8_192), "1m": (1_000_000, 1_024)}
METHODS = {"resight": "exact"}
CONTENDERS = ("faiss", *METHODS)


def write(n: int, dim: int, path: Path) -> None:
    """(n, dim) float32: objects with noise around them, of uneven length."""
    random = np.random.default_rng(0)
    objects = random.standard_normal((n // PER_OBJECT, dim), np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (n, dim))
    for start in range(0, n, 10_000):
        some = min(10_000, n - start)
        rows = objects[random.integers(len(objects), size=some)]
        rows += random.standard_normal((some, dim), np.float32)
        out[start : start + some] = rows * random.uniform(1, 9, (some, 1)).astype(np.float32)
    out.flush()


def child(name: str, path: Path, queries: int) -> None:
    """Run one contender in this process, and tell the parent."""
    import faiss

    from resight.graph.neighbours import BLOCK, blocks, open_search

    vectors = np.load(path, mmap_mode="r")
    if name in METHODS:  # compiled beforehand, as it is kept on disk
        open_search(vectors[:300], 5).ask(np.arange(300))
    print(MARK + json.dumps({"before": anonymous()}), flush=True)
    start, cpu = time.perf_counter(), time.process_time()
    if name in METHODS:
        search = open_search(vectors, K, method=METHODS[name])
        ready = time.perf_counter()
        found = np.concatenate([ids for _, ids, _ in blocks(search, range(queries))])
    else:
        unit = np.array(vectors)
        faiss.normalize_L2(unit)
        index = faiss.IndexFlatIP(unit.shape[1])
        index.add(unit)
        ready = time.perf_counter()
        parts = [
            index.search(unit[at : min(at + BLOCK, queries)], K + 1)[1]
            for at in range(0, queries, BLOCK)
        ]
        found = np.concatenate(parts)
    end = time.perf_counter()
    told = {"ready": ready - start, "seconds": end - ready, "cpu": time.process_time() - cpu}
    print(MARK + json.dumps(told), flush=True)
    np.save(path.with_name(f"{name}.npy"), found)


def measure(
    n: int, dim: int, queries: int, threads: int, args: argparse.Namespace
) -> dict[str, Any]:
    """All repeats of all contenders; by name, what came out."""
    # What numpy's and faiss' own libraries heed; the children read it when they start.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    found: dict[str, Any] = {
        name: {"ready": [], "seconds": [], "cpu": [], "mb": []} for name in CONTENDERS
    }
    with tempfile.TemporaryDirectory(prefix="pool-") as folder:
        path = Path(folder) / "vectors.npy"
        write(n, dim, path)
        for repeat in range(args.repeat):
            for name, kept in found.items():
                if "failed" in kept:
                    continue
                print(f"  {n:,}: {name}, run {repeat + 1} ...", file=sys.stderr, flush=True)
                words = [__file__, "--child", name, "--file", str(path), "--queries", str(queries)]
                result = run([sys.executable, *words], args.limit, args.memory * 1e9)
                if "failed" in result:
                    kept["failed"] = result["failed"]
                    continue
                for key in ("ready", "seconds", "cpu", "mb"):
                    kept[key].append(round(result[key], 3))
        agreement(found, Path(folder))
    faiss = {key: min(found["faiss"][key], default=float("nan")) for key in ("seconds", "cpu")}
    for kept in found.values():
        if kept["seconds"]:
            kept |= {"best": min(kept["seconds"]), "mb": max(kept["mb"])}
            kept["ratio"] = round(kept["best"] / faiss["seconds"], 3)
            kept["cpu_ratio"] = round(min(kept["cpu"]) / faiss["cpu"], 3)
    return found


def agreement(found: dict[str, Any], folder: Path) -> None:
    """The share of faiss' neighbours that the others have."""
    if not found["faiss"]["seconds"]:
        return
    truth = np.load(folder / "faiss.npy")
    for name in METHODS:
        if found[name]["seconds"]:
            ids = np.load(folder / f"{name}.npy")
            rows = zip(ids, truth, strict=True)
            same = sum(len(np.intersect1d(a, b)) for a, b in rows)
            found[name]["agreement"] = round(same / ids.size, 6)


def main() -> None:
    """Measure the sizes asked for, print the table, keep the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--size", default="100k,1m", help="of small, 100k, 1m")
    add("--dims", default="256", help="dimensions, with commas")
    add("--queries", type=int, help="rows that ask; by default so many that it takes seconds")
    add("--threads", default="1,2", help="numbers of threads, with commas")
    add("--repeat", type=int, default=3)
    add("--limit", type=float, default=1800, help="seconds a run")
    add("--memory", type=float, default=16, help="GB a run")
    add("--out", type=Path, help="results file")
    add("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    add("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.file, args.queries)
        return
    out = args.out
    if out is None and args.size != "small":
        out = Path(__file__).parent / "results" / "insclr_pool.json"
    head = ("", "ready s", "search s", "ratio", "CPU", "MB", "agrees")
    print("{:38}{:>9}{:>10}{:>8}{:>8}{:>8}{:>10}".format(*head))
    for size, dim, threads in product(
        *(x.split(",") for x in (args.size, args.dims, args.threads))
    ):
        n, queries = SIZES[size]
        queries = min(args.queries or queries, n)
        found = measure(n, int(dim), queries, int(threads), args)
        for name, kept in found.items():
            label = f"{size} x {dim}, {threads} thread{'s' * (threads != '1')}, {name}"
            if "best" not in kept:
                print(f"{label:38}  {kept.get('failed', '')[:60]}")
                continue
            share = f"{kept['agreement']:10.4%}" if "agreement" in kept else ""
            print(
                f"{label:38}{min(kept['ready']):9.2f}{kept['best']:10.2f}"
                f"{kept['ratio']:8.2f}{kept['cpu_ratio']:8.2f}{kept['mb']:8,.0f}{share}"
            )
        if out:
            what = f"{queries:,} of {n:,} rows x {dim} ask for their {K} nearest"
            keep(out, f"{size} x {dim}, {threads} threads", what, found)


def keep(out: Path, name: str, what: str, found: dict[str, Any]) -> None:
    """Put the results of one size into the file, beside the others."""
    old = json.loads(out.read_text()) if out.exists() else {}
    versions = {package: metadata.version(package) for package in ("faiss-cpu", "numpy")}
    entry = {"what": what, "machine": machine(), "load": round(os.getloadavg()[0], 1)}
    entry |= {"versions": versions, "contenders": found}
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(old | {name: entry}, indent=2) + "\n")


if __name__ == "__main__":
    main()
