"""Exact evaluation at Market-1501's size, beside the bare product and the usual full matrix.

    python benchmarks/evaluate.py

3,368 queries × 15,913 gallery × 2048, float32, with cameras. Each in a process of its own, three
times; seconds are the best, memory the peak beyond the features. The floor is the product alone,
block by block. "full matrix" is the customary way: all similarities, argsort, matches.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

QUERIES, GALLERY, DIM, OBJECTS = 3368, 15913, 2048, 750


def data() -> tuple[np.ndarray, pl.DataFrame]:
    """Features in overlapping clusters, and their table."""
    rng = np.random.default_rng(0)
    total = QUERIES + GALLERY
    objects = np.r_[rng.integers(0, OBJECTS, QUERIES), rng.integers(0, OBJECTS * 3 // 2, GALLERY)]
    centers = rng.standard_normal((OBJECTS * 3 // 2, DIM), np.float32)
    features = rng.standard_normal((total, DIM), np.float32)
    features *= 4  # in place: the peak before the timing must be the features alone
    for start in range(0, total, 1000):
        features[start : start + 1000] += centers[objects[start : start + 1000]]
    table = pl.DataFrame(
        {
            "path": [f"{row}.jpg" for row in range(total)],
            "object": [str(name) for name in objects],
            "camera": [str(camera) for camera in rng.integers(0, 6, total)],
            "split": ["test"] * total,
            "role": ["query"] * QUERIES + ["gallery"] * GALLERY,
        }
    )
    return features, table


def ours(features: np.ndarray, table: pl.DataFrame) -> float:
    """resight's evaluation, from features to mAP."""
    from resight.data.imageset import ImageSet, normalise
    from resight.evaluate.scores import evaluate

    return evaluate(features, ImageSet(normalise(table), Path())).mAP


def product(features: np.ndarray, table: pl.DataFrame) -> float:
    """The bare product of the normalised features, block by block."""
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    queries, gallery = features[:QUERIES], features[QUERIES:]
    total = 0.0
    for start in range(0, QUERIES, 256):
        total += float((queries[start : start + 256] @ gallery.T)[0, 0])
    return total


def full_matrix(features: np.ndarray, table: pl.DataFrame) -> float:
    """All similarities, a stable argsort of each row, matches, junk removed, AP."""
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = features[:QUERIES] @ features[QUERIES:].T
    order = np.argsort(-similarity, axis=1, kind="stable")
    objects, cameras = table["object"].to_numpy(), table["camera"].to_numpy()
    aps = []
    for query in range(QUERIES):
        ranked = QUERIES + order[query]
        same = objects[ranked] == objects[query]
        keep = ~(same & (cameras[ranked] == cameras[query]))
        hits = np.flatnonzero(same[keep]) + 1
        if len(hits):
            aps.append(np.mean(np.arange(1, len(hits) + 1) / hits))
    return float(np.mean(aps))


WAYS = {"bare product": product, "resight": ours, "full matrix": full_matrix}


def child(name: str) -> None:
    """Run one way once and print seconds, megabytes and value."""
    features, table = data()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    value = WAYS[name](features, table)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "mb": (after - before) / 1024, "value": value}))


def main() -> None:
    """Run all, print a table, write benchmarks/results/evaluate.json."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(3):
        for name in WAYS:
            done = subprocess.run(
                [sys.executable, __file__, name], capture_output=True, text=True, check=True
            )
            runs[name].append(json.loads(done.stdout))
    best = {name: min(found, key=lambda run: run["seconds"]) for name, found in runs.items()}
    floor = best["bare product"]["seconds"]
    for name, found in best.items():
        found["ratio to the product"] = round(found["seconds"] / floor, 2)
        value = "" if name == "bare product" else f"mAP {found['value']:.10f}"
        print(
            f"{name:14} {found['seconds']:7.2f} s  {found['seconds'] / floor:5.2f} x  "
            f"{found['mb']:7.0f} MB beyond the features  {value}"
        )
    path = Path(__file__).parent / "results" / "evaluate.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(best, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        child(sys.argv[1])
    else:
        main()
