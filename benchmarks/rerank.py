"""What a second look gains, set by set: mAP and R@1 beside the plain search, with paired tests.

    python benchmarks/rerank.py signs/index.csv grocery/index.csv:shop corridor/ --json FILE

Frozen features: a packaged network, whitened on the rows that are not test rows, no label used.
PATH.csv:store takes only the rows of that camera, each against all others; a folder with query/,
ref/ and ground_truth_new.npy is place recognition by its own truth. Each chain is measured on the
same features; differences with 95 % intervals and p-values over objects, as `resight compare` has
them. `ready` is what is made of the gallery once, `ms` a query's part of all else. `--json` keeps
the figures, `--table` prints those kept as Markdown.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

import resight
from resight.data.imageset import ImageSet, normalise
from resight.evaluate.per_query import query_groups
from resight.evaluate.protocols import Protocol
from resight.evaluate.rules.truth import chosen_for
from resight.evaluate.run import looked_at_again
from resight.evaluate.scores import Scores, evaluate
from resight.evaluate.uncertainty import paired
from resight.features.compute import EmbedOptions
from resight.features.write import embed_images
from resight.graph.second import prepare

HOWS = ("aqe", "dba", "kreciprocal", "diffusion", "aqe+diffusion", "spatial", "diffusion+spatial")


def place_set(folder: Path) -> tuple[ImageSet, Protocol]:
    """query/ and ref/ in the order of their names; the truth names rows of ref for each query."""
    parts = {name: sorted((folder / name).iterdir()) for name in ("query", "ref")}
    truth = np.load(folder / "ground_truth_new.npy", allow_pickle=True)
    right = [[parts["ref"][int(r)].name for r in np.atleast_1d(row[1])] for row in truth]
    table = pl.DataFrame(
        {
            "path": [f"{name}/{path.name}" for name, paths in parts.items() for path in paths],
            "role": ["query"] * len(parts["query"]) + ["gallery"] * len(parts["ref"]),
            "name": [path.name for paths in parts.values() for path in paths],
            "right": right + [[]] * len(parts["ref"]),
        }
    )
    protocol = Protocol("query-gallery", positives=("right",))
    return ImageSet(normalise(table), folder, str(folder)), protocol


def read(text: str) -> tuple[ImageSet, Protocol | None, str]:
    """The set, its protocol where its table does not say it, and its name."""
    path, _, camera = text.partition(":")
    if Path(path).is_dir():
        return *place_set(Path(path)), Path(path).name
    images, name = resight.load_images(path), Path(path).parent.name
    if camera == "":
        return images, None, name
    images = images.where(pl.col("camera") == camera)
    none = pl.lit(None, pl.String)
    table = images.table.with_columns(none.alias("role"), none.alias("camera"))
    return ImageSet(normalise(table), images.root, images.source), None, f"{name}, {camera}"


def features_of(images: ImageSet, size: int) -> tuple[NDArray[np.float32], ImageSet]:
    """Whitened features of the rows that are measured, and those rows."""
    test = (images.table["split"] == "test").to_numpy()
    embedder = resight.fit_embedder(
        images, "auto", method="whitening", size=size, unlabelled=True, workers=0,
        tell=lambda line: None,
    )  # fmt: skip
    if test.any():
        images = images.rows(np.flatnonzero(test).tolist())
    found = embed_images(embedder, images, options=EmbedOptions(workers=0))
    return np.asarray(found[0 : len(images)], np.float32), images


def values(scores: Scores) -> NDArray[np.float64]:
    """(2, Q): AP and whether the first hit is right."""
    table = scores.per_query
    first = (table["first_rank"] == 1).fill_null(False).to_numpy()
    return np.stack([table["AP"].to_numpy(), first.astype(float)])


def one_set(text: str, hows: list[str], size: int, transductive: bool) -> dict[str, Any]:
    """Figures by chain."""
    images, protocol, _ = read(text)
    features, images = features_of(images, size)
    protocol = protocol or chosen_for(images.table, "image", None)
    plain = evaluate(features, images, protocol=protocol)
    groups = query_groups(plain.per_query)
    gallery = features[plain.parts[0].matches.gallery]
    told: dict[str, Any] = {"none": [plain.mAP, plain.recall(1)]}
    print(f"  {'none':20} mAP {100 * plain.mAP:5.1f}  R@1 {100 * plain.recall(1):5.1f}", flush=True)
    for how in hows:
        began = time.perf_counter()
        if "spatial" not in how:
            prepare(gallery, how)
        ready = time.perf_counter() - began
        for jointly in (False, True) if transductive and "spatial" not in how else (False,):
            if jointly and not ("kreciprocal" in how or "diffusion" in how):
                continue
            (asked,) = looked_at_again([protocol], how, jointly)
            began = time.perf_counter()
            scores = evaluate(features, images, protocol=asked)
            rest = time.perf_counter() - began - ready * (not jointly)
            found = paired(values(plain), values(scores), groups)
            name = how + ", transductive" * jointly
            told[name] = {
                "mAP": scores.mAP, "R@1": scores.recall(1), "gain": found.mean.tolist(),
                "interval": found.interval.tolist(), "p": found.p.tolist(),
                "ready": round(ready, 3), "ms": round(1000 * rest / scores.per_query.height, 2),
            }  # fmt: skip
            print(f"  {name:20} {line(told[name])}", flush=True)
    return {"queries": plain.per_query.height, "gallery": plain.gallery, "hows": told}


def line(one: dict[str, Any]) -> str:
    """A chain's figures in words."""
    said = []
    for at, metric in enumerate(("mAP", "R@1")):
        low, high = (100 * end for end in one["interval"][at])
        gain = f"{100 * one['gain'][at]:+.1f} [{low:+.1f}, {high:+.1f}] p {one['p'][at]:.3f}"
        said.append(f"{metric} {100 * one[metric]:5.1f} {gain}")
    return "  ".join(said) + f"  ready {one['ready']:.2f} s, {one['ms']:.1f} ms a query"


def table(kept: dict[str, Any]) -> str:
    """Markdown: a row a chain, a column a set."""
    names = [name for name in kept if name != "machine"]
    hows = list(dict.fromkeys(how for name in names for how in kept[name]["hows"]))
    rows = ["| | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for how in hows:
        cells = []
        for name in names:
            one = kept[name]["hows"].get(how)
            if one is None:
                cells.append("")
            elif how == "none":
                cells.append(" / ".join(f"{100 * v:.1f}" for v in one))
            else:
                stars = ["" if p < 0.05 else "°" for p in one["p"]]
                pairs = zip(one["gain"], stars, strict=True)
                cells.append(" / ".join(f"{100 * gain:+.1f}{star}" for gain, star in pairs))
        rows.append(f"| {how} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """The sets, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--rerank", default=";".join(HOWS), help="chains, with ; between them")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--transductive", action="store_true", help="that form too, where it is")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for text in options.sets:
        name = read(text)[2]
        print(f"{name}, {options.size} px", flush=True)
        hows = options.rerank.split(";")
        kept[name] = one_set(text, hows, options.size, options.transductive)
        if options.json:
            options.json.write_text(json.dumps(kept, indent=1) + "\n")
    if options.table:
        print(table(kept))


if __name__ == "__main__":
    main()
