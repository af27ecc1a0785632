"""Closed forms on all depths of a frozen network: what each gains, and what it costs.

    python benchmarks/fit.py signs/index.csv logos/index.csv ... --json benchmarks/results/fit.json

For each set: one pass of the network over all images, then each way fitted to the training rows and
measured on the test rows, which no way has seen. mAP / R@1 at image level by the set's own rules.
Beside it the seconds: the bare network (the floor), decoding included, and all fits together.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch

from resight.data.imageset import ImageSet
from resight.data.sources import load_images
from resight.evaluate.scores import evaluate
from resight.features.compute import EmbedOptions
from resight.features.write import embed_images
from resight.models.closed_form import project
from resight.models.depths import depths_of, usual_depths
from resight.models.fitted import with_parts
from resight.models.open import open_embedder
from resight.train.fitting.candidates import Candidate, usual_dims
from resight.train.fitting.sums import Sums, columns_of


def ways(found: list, count: int) -> dict[str, Candidate]:
    """What is compared, by name."""
    most, last = usual_dims(count), (found[-1].number,)
    every, but, quarter = (usual_depths(found, leave_out=k) for k in (0, 1, None))
    return {
        "last map": Candidate("raw", last),
        "last map, whitened": Candidate("whitening", last, 1, most),
        "all depths, whitened": Candidate("whitening", every, 1, most),
        "all but the last, whitened": Candidate("whitening", but, 1, most),
        "without the last quarter, whitened": Candidate("whitening", quarter, 1, most),
        "– joined with neighbours": Candidate("joined", quarter, 1, most),
        "– neighbours (the default without labels)": Candidate("neighbours", quarter, 1, most),
        "last map, discriminant": Candidate("discriminant", last, 1, most),
        "all depths, discriminant": Candidate("discriminant", every, 1, most),
        "without the last quarter, discriminant": Candidate("discriminant", quarter, 1, most),
        "– to 64 dimensions": Candidate("discriminant", quarter, 1, 64),
        "– on a 2 x 2 grid": Candidate("discriminant", quarter, 2, most),
        "– on a 2 x 2 grid, to 64": Candidate("discriminant", quarter, 2, 64),
    }


def one_set(images: ImageSet, backbone: str, weights: str, size: int) -> dict:
    """Scores by way, and seconds."""
    base = open_embedder(backbone, weights=weights, size=(size, size))
    found = depths_of(base.backbone, (size, size))
    test = (images.table["split"] == "test").to_numpy()
    fitted = ways(found, int((~test).sum()))
    parts = sorted({p for way in fitted.values() for p in way.parts}, key=lambda p: p[::-1])
    probe = with_parts(base, parts)
    began = time.perf_counter()
    features = embed_images(probe, images, options=EmbedOptions(workers=0))
    embedding = time.perf_counter() - began
    batch = torch.zeros(64, 3, size, size)
    probe.embed_tensor(batch)
    began = time.perf_counter()
    for _ in range(5):
        probe.embed_tensor(batch)
    bare = (time.perf_counter() - began) / 320 * len(images)
    codes = {name: k for k, name in enumerate(images.objects())}
    objects = np.array([codes.get(name, -1) for name in images.table["object"]])
    cameras = None
    if not images.table["camera"].null_count():
        cameras = np.unique(images.table["camera"].to_numpy(), return_inverse=True)[1]
    began = time.perf_counter()
    sums = Sums(features, probe.maps, features.valid & ~test, objects, cameras)
    sums.prepare(list(fitted.values()))
    pairs = {name: sums.fit(way) for name, way in fitted.items()}
    seconds = {"decoding and network": embedding, "bare network": bare}
    seconds["all fits"] = time.perf_counter() - began
    rows = np.flatnonzero(test)
    held, shown = np.asarray(features[rows], np.float32), images.rows(rows.tolist())
    scores = {}
    for name, way in fitted.items():
        vectors = project(held[:, columns_of(probe.maps, way, held.shape[1])], pairs[name])
        done = evaluate(vectors, shown)
        scores[name] = [round(100 * done.mAP, 1), round(100 * done.recall(1), 1)]
        print(f"  {name:44}{scores[name][0]:5.1f} / {scores[name][1]:.1f}", flush=True)
    return {"images": len(images), "scores": scores, "seconds": seconds}


def main() -> None:
    """The sets, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", help="tables of images with splits")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--camera", help="take the rows of this camera only, each against all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for path in options.sets:
        images = load_images(Path(path))
        name = Path(path).parent.name
        if options.camera:
            images = images.where(pl.col("camera") == options.camera)
            table = images.table.with_columns(
                pl.lit(None, pl.String).alias("role"), pl.lit(None, pl.String).alias("camera")
            )
            images = ImageSet(table, images.root, images.source)
        print(f"{name}, {options.backbone}, {options.size} px", flush=True)
        key = f"{name}, {options.backbone}, {options.size} px"
        made[key] = one_set(images, options.backbone, options.weights, options.size)
        print(f"  seconds: {made[key]['seconds']}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
