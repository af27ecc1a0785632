"""What a gallery costs beside the bare call beneath it: search, changes, opening, memory.

    python benchmarks/gallery.py                          # 100,000 vectors of 256 dimensions
    python benchmarks/gallery.py --large                  # a million of 512 as well: 8 GB, an hour
    python benchmarks/gallery.py --features FOLDER ...    # and levels on real features

search    batches of 256 and single queries against `faiss.knn`, in turn, so that a busy machine
          slows both: the median of the ratios, with its quartiles. "nearest" answers keys and
          similarities, as faiss does; "search" hits with file, object and columns. Filtered
          searches against the bare call on all rows and on the kept ones alone. "bare" multiplies
          matrices, as ours does; "as it comes": as faiss is set when imported. recall@10 against
          float64. hnswlib and usearch where they can be imported, recall beside.
changes   vectors a second that are on the disk, as features come in, 256 a transaction (object by
          object, as folders are; and mixed), and one by one; removals the same
opening   a new process: imports, then from `Gallery.open` to the first answer; its memory, split
          into that of its own and mapped files
levels    image against object level (CTL, table 2): vectors, bytes, build, search time, mAP, R@1.
          The first image of an object with two or more asks, the others are the gallery. Among
          images an object's all count as right; among objects the one.

Writes benchmarks/results/gallery.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl

import resight
from gallery_levels import levels
from resight.data.imageset import ImageSet, normalise
from resight.features.store import Features
from resight.search.gallery import Gallery
from resight.search.index import knn, unit

HERE = Path(__file__).parent
IMAGES_AN_OBJECT = 10
LATENT, NOISE = 64, 0.8
COMES = int(
    subprocess.check_output(
        [sys.executable, "-c", "import faiss; print(faiss.cvar.distance_compute_blas_threshold)"]
    )
)
K = 10


def simulated(count: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (count, dim) float32 around the means of objects, codes, and 256 queries.

    Means and noise live in `LATENT` dimensions, turned into `dim` by one random matrix: real
    features, too, have far fewer directions than numbers.
    """
    rng = np.random.default_rng(seed)
    objects = max(1, count // IMAGES_AN_OBJECT)
    turn = np.random.default_rng(7).normal(size=(LATENT, dim)).astype(np.float32)
    means = rng.normal(size=(objects, LATENT)).astype(np.float32)
    codes = rng.permutation(np.arange(count) % objects)
    vectors = np.empty((count, dim), np.float32)

    def near(some: np.ndarray) -> np.ndarray:
        noise = NOISE * rng.normal(size=(len(some), LATENT)).astype(np.float32)
        return (means[some] + noise) @ turn

    for start in range(0, count, 65536):
        vectors[start : start + 65536] = near(codes[start : start + 65536])
    return vectors, codes, near(rng.integers(0, objects, 256))


def as_features(vectors: np.ndarray, codes: np.ndarray, first: int = 0) -> Features:
    table = pl.DataFrame(
        {
            "path": [f"/nowhere/{n}.jpg" for n in range(first, first + len(vectors))],
            "object": [f"o{code}" for code in codes],
            "price": [(n * 7919) % 100 for n in range(first, first + len(vectors))],
        }
    )
    return Features(ImageSet(normalise(table), Path()), (vectors,), np.ones(len(vectors), bool))


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(bare: Callable[[], Any], ours: Callable[[], Any], rounds: int = 7) -> dict[str, Any]:
    """Median seconds of both, and the median of the ratios with quartiles."""
    bare(), ours()
    pairs = np.array([(seconds(bare), seconds(ours)) for _ in range(rounds)])
    low, middle, high = np.quantile(pairs[:, 1] / pairs[:, 0], [0.25, 0.5, 0.75])
    found = {"bare_s": np.median(pairs[:, 0]), "ours_s": np.median(pairs[:, 1])}
    found |= {"ratio": middle, "from": low, "to": high}
    return {key: float(f"{value:.4g}") for key, value in found.items()}


def recall(found: list[np.ndarray], rows: np.ndarray, queries: np.ndarray) -> float:
    """recall@10 of similarities against the best there are, in float64."""
    right = 0
    for values, query in zip(found, unit(queries).astype(np.float64), strict=True):
        best = np.sort(
            np.concatenate([rows[s : s + 65536] @ query for s in range(0, len(rows), 65536)])
        )
        right += int((np.asarray(values)[:K] >= best[-K] - 1e-6).sum())
    return right / (K * len(queries))


def search(gallery: Gallery, queries: np.ndarray) -> dict[str, Any]:
    view = gallery.views.get("image")
    rows, asked = view.base.rows, unit(queries)
    ones = [queries[n : n + 1] for n in range(20)]

    def bare(some: np.ndarray = asked, among: np.ndarray = rows) -> Any:
        return knn(some, among, K)

    def each(work: Callable[[np.ndarray], Any]) -> Callable[[], None]:
        return lambda: [work(one) for one in ones] and None

    def as_it_comes() -> None:
        ours = faiss.cvar.distance_compute_blas_threshold
        faiss.cvar.distance_compute_blas_threshold = COMES
        bare()
        faiss.cvar.distance_compute_blas_threshold = ours

    nearest = view.nearest(queries, K)
    found: dict[str, Any] = {
        "vectors": len(view),
        "dimensions": view.dim,
        "index": view.base.info.get("kind"),
        "recall@10": recall([near.similarities for near in nearest[:50]], rows, queries[:50]),
        "batch of 256": {
            "nearest": in_turn(bare, lambda: view.nearest(queries, K)),
            "nearest, distinct objects": in_turn(
                bare, lambda: view.nearest(queries, K, distinct=True)
            ),
            "search": in_turn(bare, lambda: gallery.search_vectors(queries, K)),
            "search, object level": in_turn(
                bare, lambda: gallery.search_vectors(queries, K, level="object")
            ),
            "nearest, to bare as it comes": in_turn(
                as_it_comes, lambda: view.nearest(queries, K), 3
            ),
        },
        "single queries, 20": {
            "nearest, distinct objects": in_turn(
                each(lambda one: bare(unit(one))),
                each(lambda one: view.nearest(one, K, distinct=True)),
            ),
            "search": in_turn(
                each(lambda one: bare(unit(one))), each(lambda one: gallery.search_vectors(one, K))
            ),
        },
    }
    for share in (1, 50):
        where = f"price < {share}"
        first = seconds(lambda where=where: gallery.search_vectors(queries[:1], K, where=where))
        (_, mask), *_ = [m for key, m in view.masks.items() if key[0] == where]
        kept = np.ascontiguousarray(rows[mask])
        found[f"filter that keeps {share} %"] = {
            "first time, seconds": float(f"{first:.3g}"),
            "batch, to bare on all": in_turn(
                bare, lambda where=where: gallery.search_vectors(queries, K, where=where)
            ),
            "nearest, to bare on kept": in_turn(
                lambda kept=kept: bare(among=kept),
                lambda mask=mask: view.nearest(queries, K, keep=mask),
            ),
            "single, to bare on all": in_turn(
                each(lambda one: bare(unit(one))),
                each(lambda one, where=where: gallery.search_vectors(one, K, where=where)),
            ),
        }
    return found


def peers(rows: np.ndarray, queries: np.ndarray) -> dict[str, Any]:
    """HNSW of others, as they come: build, batch and single seconds, recall."""
    asked, found = unit(queries), {}
    for name in ("hnswlib", "usearch"):
        try:
            module: Any = importlib.import_module(name if name == "hnswlib" else "usearch.index")
        except ImportError:
            print(f"{name}: not here (pip install {name}); left out")
            continue
        if name == "hnswlib":
            index = module.Index("ip", rows.shape[1])
            index.init_index(len(rows), M=16, ef_construction=100)
            index.set_ef(64)
            build = seconds(lambda index=index: index.add_items(rows))
            ask = lambda some, index=index: index.knn_query(some, K)[0]  # noqa: E731
        else:
            index = module.Index(ndim=rows.shape[1], metric="ip", dtype="f32")
            build = seconds(lambda index=index: index.add(np.arange(len(rows)), rows))
            ask = lambda some, index=index: index.search(some, K).keys  # noqa: E731
        at = np.asarray(ask(asked)).astype(np.int64).reshape(len(asked), -1)
        values = [
            rows[line].astype(np.float64) @ query for line, query in zip(at, asked, strict=True)
        ]
        found[name] = {
            "build_s": round(build, 1),
            "batch": in_turn(lambda: knn(asked, rows, K), lambda ask=ask: ask(asked), 3),
            "single": in_turn(
                lambda: [knn(asked[n : n + 1], rows, K) for n in range(20)],
                lambda ask=ask: [ask(asked[n : n + 1]) for n in range(20)],
                3,
            ),
            "recall@10": recall(values[:50], rows, queries[:50]),
        }
    return found


def changes(gallery: Gallery, dim: int) -> dict[str, Any]:
    """Vectors a second that are on the disk."""
    vectors, codes, _ = simulated(5120, dim, 1)
    first = 10**7
    found = {}
    # Folders come object by object; mixed, every transaction touches 256 objects' sums.
    together = as_features(vectors, np.sort(codes), first - 10**6)
    found["add, 256 a transaction, object by object"] = 5120 / seconds(
        lambda: gallery.add(together)
    )
    taken = seconds(lambda: gallery.add(as_features(vectors, codes, first)))
    found["add, 256 a transaction, objects mixed"] = 5120 / taken
    parts = [
        as_features(vectors[n : n + 1], codes[n : n + 1], first + 6000 + n) for n in range(300)
    ]
    found["add one by one"] = 300 / seconds(lambda: [gallery.add(one) for one in parts])
    ids = gallery.engine.ids(after=gallery.find([f"/nowhere/{first}.jpg"])[0] - 1)
    batches = [ids[n : n + 256] for n in range(0, 5120, 256)]
    found["remove, 256 a transaction"] = 5120 / seconds(
        lambda: [gallery.remove(b) for b in batches]
    )
    singles = ids[5120:]
    found["remove one by one"] = len(singles) / seconds(
        lambda: [gallery.remove([i]) for i in singles]
    )
    return {key: round(value) for key, value in found.items()}


OPENING = """
import sys, time
start = time.perf_counter()
import numpy as np
from resight.search.gallery import Gallery
def memory():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return [int(lines[key].split()[0]) // 1024 for key in ("RssAnon", "RssFile")]
imported, before = time.perf_counter(), memory()
gallery = Gallery.open(sys.argv[1])
query = np.random.default_rng(0).normal(size=(1, gallery.engine.meta()["dim"])).astype(np.float32)
gallery.search_vectors(query)
done, after = time.perf_counter(), memory()
own, mapped = (b - a for a, b in zip(before, after))
print(round(imported - start, 2), round(done - imported, 3), own, mapped)
"""


def opening(folder: Path) -> dict[str, Any]:
    lines = [
        subprocess.run(
            [sys.executable, "-c", OPENING, str(folder)], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    imports, answer, own, mapped = np.median(np.array(lines, float), axis=0).tolist()
    found = {"imports_s": imports, "to_first_answer_s": answer}
    return found | {"own_MiB": own, "mapped_MiB": mapped}


def live(count: int, dim: int) -> dict[str, Any]:
    """All that is measured on a gallery of this many vectors."""
    vectors, codes, queries = simulated(count, dim)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as place:
        folder = Path(place) / "g"
        gallery = Gallery.create(folder, tell=print)
        filled = seconds(lambda: gallery.add(as_features(vectors, codes)))
        build = seconds(lambda: gallery.views.get("image"))
        size = (folder / "gallery.sqlite").stat().st_size
        kept = sum(f.stat().st_size for f in (folder / "index").glob("image*"))
        found: dict[str, Any] = {
            "filled, vectors/s": round(count / filled),
            "build_s": round(build, 2),
        }
        found |= {"database_MiB": size >> 20, "index_MiB": kept >> 20}
        found["opening"] = opening(folder)
        print("opening:", json.dumps(found["opening"]), flush=True)
        found["search"] = search(gallery, queries)
        print("search:", json.dumps(found["search"]), flush=True)
        found["levels"] = levels(vectors, codes)
        print("levels:", json.dumps(found["levels"]), flush=True)
        found["changes a second"] = changes(gallery, dim)
        print("changes a second:", json.dumps(found["changes a second"]), flush=True)
        if count <= 200_000:
            found["peers"] = peers(unit(vectors), queries)
        gallery.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", nargs="*", type=Path, default=[])
    parser.add_argument("--large", action="store_true", help="a million of 512 dimensions, too")
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    versions = {"python": platform.python_version(), "resight": resight.__version__}
    versions |= {"faiss": faiss.__version__, "numpy": np.__version__}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {faiss.omp_get_max_threads()} threads"
    found: dict[str, Any] = {"machine": machine, "versions": versions}
    for folder in options.features:
        features = Features.load(folder)
        use = features.valid & features.images.table["object"].is_not_null().to_numpy()
        rows = np.flatnonzero(use)
        names = features.images.table["object"].to_numpy()[rows].astype(str)
        codes = np.unique(names, return_inverse=True)[1]
        found[folder.name] = levels(np.asarray(features[rows], np.float32), codes)
    found[f"simulated {options.count:,} x 256"] = live(options.count, 256)
    if options.large:
        found["simulated 1,000,000 x 512"] = live(1_000_000, 512)
    print(json.dumps(found, indent=2))
    (HERE / "results" / "gallery.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
