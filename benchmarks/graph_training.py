"""Training on the neighbour graph at size: graph, diffusion, targets, a step beyond the network.

    python benchmarks/graph_training.py                    # 1e4 and 1e5 images
    python benchmarks/graph_training.py --images 1000000   # a million: 12 GB of disk, an hour or so

Features are made up: `--each` photos of a thing on average, 256 dimensions, things and noise in 48
directions of them (real features, too, have far fewer directions than numbers), so noisy that many
of an image's nearest are wrong. For each size, in a process of its own:

neighbours   10 nearest of each image: exact up to 20,000, else faiss' inverted lists; recall told
graph        mutual ones, as a CSR matrix: seconds, MB
diffusion    top 64 of each row, on the disk: seconds, milliseconds a row
targets      the strongest pairs, 4 neighbours an image
step         the loss and its gradient for 64 images, the memory read and written, against the
             floor: two bare products of the batch with the memory (scores, the gradient back)

`MB` is the peak of the process' own memory (anonymous) beyond what it held before; files that are
mapped count apart. Writes benchmarks/results/graph_training.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from peers.watch import MARK, anonymous, machine, run

HERE = Path(__file__).parent
DIMS, K, BATCH, TURNS = 256, 10, 64, 12
LATENT, NOISE = 48, 0.8


def features(folder: Path, count: int, each: int) -> np.ndarray:
    """(count, DIMS) float32 on the disk, things in random order."""
    path = folder / "features.npy"
    out = np.lib.format.open_memmap(path, "w+", np.float32, (count, DIMS))
    random = np.random.default_rng(0)
    turn = np.random.default_rng(7).standard_normal((LATENT, DIMS))
    things = random.permutation(np.arange(count) // each)
    for start in range(0, count, 50_000):
        some = things[start : start + 50_000]
        middles = np.stack(
            [np.random.default_rng(t).standard_normal(LATENT) for t in some.tolist()]
        )
        noise = random.standard_normal(middles.shape)
        out[start : start + len(some)] = (middles + NOISE * noise) @ turn
    out.flush()
    return np.load(path, mmap_mode="r")


def child(count: int, each: int) -> None:
    import torch

    from resight.graph.diffusion import diffuse
    from resight.graph.graph import Graph, mutual
    from resight.graph.pool import build_pool
    from resight.graph.targets import strongest
    from resight.train.unlabelled.graph.objective import GraphObjective

    found: dict[str, Any] = {"images": count}
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        vectors = features(folder, count, each)
        before = anonymous()
        print(MARK + json.dumps({"before": before}), flush=True)

        def timed(name: str, work: Any) -> Any:
            start = time.perf_counter()
            made = work()
            found[name] = {"s": round(time.perf_counter() - start, 2)}
            print(f"{count:,}: {name} {found[name]['s']} s", file=sys.stderr, flush=True)
            return made

        method = "exact" if count <= 20_000 else "approximate"
        pool = timed("neighbours", lambda: build_pool(vectors, folder / "pool", k=K, method=method))
        found["neighbours"] |= {"method": method, "recall": pool.info["recall"]}
        graph = timed("graph", lambda: mutual(pool.neighbours, pool.similarities))
        size = sum(part.nbytes for part in (graph.indptr, graph.indices, graph.values))
        found["graph"] |= {"edges": graph.edges, "MB": round(size / 1e6, 1)}
        graph.save(folder / "graph")
        graph = Graph.load(folder / "graph")
        diffused = timed("diffusion", lambda: diffuse(graph, folder / "f", tolerance=1e-3))
        found["diffusion"]["ms a row"] = round(1e3 * found["diffusion"]["s"] / count, 3)
        targets = timed("targets", lambda: strongest(diffused, 4.0))
        found["MB before training"] = round((anonymous() - before) / 1e6)
        objective = GraphObjective(targets, np.arange(count), np.asarray(vectors), 0.1).train()
        ours, floor = [], []
        random = np.random.default_rng(1)
        e = torch.nn.functional.normalize(torch.randn(BATCH, DIMS), dim=1)
        for _ in range(TURNS):
            start = time.perf_counter()
            scores = e @ objective.memory.T
            torch.mm(scores, objective.memory)
            floor.append(time.perf_counter() - start)
            del scores
            rows = random.integers(0, count, BATCH)
            told = torch.from_numpy(np.stack([rows, rows], 1))
            x = e.clone().requires_grad_()
            start = time.perf_counter()
            objective(None, x, told)["loss"].backward()
            ours.append(time.perf_counter() - start)
        pairs = [a / b for a, b in zip(ours[2:], floor[2:], strict=True)]
        found["step"] = {
            "s": round(statistics.median(ours[2:]), 4),
            "floor_s": round(statistics.median(floor[2:]), 4),
            "ratio": round(statistics.median(pairs), 2),
        }
    print(MARK + json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--each", type=int, default=6, help="photos of a thing")
    parser.add_argument("--child", action="store_true")
    args = parser.parse_args()
    if args.child:
        child(args.images[0], args.each)
        return
    path = HERE / "results" / "graph_training.json"
    sizes = json.loads(path.read_text())["sizes"] if path.is_file() else {}
    for count in args.images:
        command = [sys.executable, __file__, "--child", "--images", str(count)]
        made = run([*command, "--each", str(args.each)], limit=3 * 3600, memory=20e9)
        made["MB"] = round(made.pop("mb"))
        sizes[f"{count:,}"] = made
        path.write_text(json.dumps({"machine": machine(), "sizes": sizes}, indent=2) + "\n")
        print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
