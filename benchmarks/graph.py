"""What a second look costs: k-reciprocal encoding beside the search for neighbours, queries' parts.

    python benchmarks/graph.py                       # 5,000 and 20,000 vectors
    python benchmarks/graph.py --sizes 93820 --dim 2048 --json benchmarks/results/rerank.json

Simulated features: objects of 10 vectors with noise around them. Each size runs in a process of its
own; memory is the peak of anonymous memory beyond that after the imports. `neighbours`: the exact
search for 20 neighbours of each, `encode`: all of k-reciprocal encoding, the neighbours given;
`beside`: a query by it; `outside`: a query by diffusion, over rows of 64 made up at random. Seconds
and milliseconds are the processor's, on one thread, so that a busy machine says the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from peers.watch import MARK, anonymous, machine, run

PER_OBJECT, QUERIES = 10, 200


def simulated(n: int, dim: int) -> np.ndarray:
    """(n, dim) float32."""
    random = np.random.default_rng(0)
    out = np.empty((n, dim), np.float32)
    centres = random.standard_normal((n // PER_OBJECT + 1, dim), np.float32)
    for start in range(0, n, 10_000):
        some = min(10_000, n - start)
        rows = centres[random.integers(len(centres), size=some)]
        out[start : start + some] = rows + 1.2 * random.standard_normal((some, dim), np.float32)
    return out


def child(n: int, dim: int) -> None:
    """Measure in this process, and tell the parent."""
    from resight.graph.diffusion import Diffused
    from resight.graph.neighbours import nearest
    from resight.graph.outside import from_neighbours
    from resight.graph.reciprocal import encode
    from resight.graph.unit import best_of, products, unit_rows

    def look(encoded: Any, gallery: np.ndarray, queries: np.ndarray) -> tuple[float, Any, Any]:
        asked = products(unit_rows(queries), gallery)
        ids, near = best_of(asked, 20)
        inverted = encoded.inverted()
        began = time.process_time()
        for q in range(len(asked)):
            part = slice(q, q + 1)
            encoded.beside(ids[part], near[part], lambda r, c, q=q: asked[r + q, c], inverted)
        return (time.process_time() - began) / len(asked), ids, near

    small = simulated(300, 8)
    look(encode(small), unit_rows(small), small[:2])  # compiled beforehand, as it is kept on disk
    vectors = simulated(n, dim)
    queries = simulated(n + QUERIES, dim)[n:]
    print(MARK + json.dumps({"before": anonymous()}), flush=True)
    start = time.process_time()
    parts = list(nearest(vectors, 20))
    neighbours = tuple(np.concatenate([part[at] for part in parts]) for at in (1, 2))
    searched = time.process_time()
    encoded = encode(vectors, neighbours=neighbours)
    made = time.process_time()
    told = {"neighbours": searched - start, "encode": made - searched}
    told |= {"seconds": made - start, "ratio": (made - searched) / (searched - start)}
    told["entries"] = len(encoded.mean.indices) / n
    print(MARK + json.dumps(told), flush=True)
    beside, ids, near = look(encoded, unit_rows(vectors), queries)
    random = np.random.default_rng(1)
    f = Diffused(random.integers(0, n, (n, 64), dtype=np.int32), random.random((n, 64), np.float32))
    from_neighbours(f, ids[:1, :10], near[:1, :10])
    began = time.process_time()
    for q in range(QUERIES):
        from_neighbours(f, ids[q : q + 1, :10], near[q : q + 1, :10])
    outside = (time.process_time() - began) / QUERIES
    print(MARK + json.dumps({"beside_ms": 1000 * beside, "outside_ms": 1000 * outside}), flush=True)


def main() -> None:
    """The sizes, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default="5000,20000")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.dim)
        return
    found: dict[str, Any] = {"machine": machine(), "dim": options.dim}
    for size in options.sizes.split(","):
        words = [__file__, "--child", size, "--dim", str(options.dim)]
        one = run([sys.executable, *words], 7200, 32e9)
        found[size] = {k: round(v, 3) if isinstance(v, float) else v for k, v in one.items()}
        print(f"{int(size):,} x {options.dim}: {found[size]}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
