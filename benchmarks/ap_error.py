"""How far is Smooth-AP from the true AP? The paper's figure 4, on any model and images.

    python benchmarks/ap_error.py signs/index.csv --split test --size 64 \
        --weights mobilenetv2_100.safetensors

Batches of P objects x M images are drawn from the features of a model. For each temperature: the
mean over queries of |smooth AP − AP|, for both definitions of the loss. The released one keeps the
query among its own positives; it is held against the AP that counts the query (what it tends to)
and against the AP of retrieval (what one wants). Writes benchmarks/results/ap_error.json and
docs/ap_error.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure

import resight
from resight.features.compute import EmbedOptions
from resight.losses.smooth_ap import smooth_ap
from resight.models.open import open_embedder

HERE = Path(__file__).parent
PAPER, RELEASED, RETRIEVAL = "paper", "released", "released, against retrieval"
LINES = {
    PAPER: ("the paper's definition", "#2a78d6", "-"),
    RELEASED: ("as released (query among its positives)", "#d95f2b", "-"),
    RETRIEVAL: ("as released, against the AP without the query", "#d95f2b", "--"),
}


def true_ap(x: torch.Tensor, labels: torch.Tensor, include_query: bool) -> torch.Tensor:
    """AP of each row against the others, or against all with itself first: (B,) float64."""
    x = torch.nn.functional.normalize(x.double(), dim=1)
    # Above all others, or below and no positive: last places change no AP.
    s = (x @ x.T).fill_diagonal_(torch.inf if include_query else -torch.inf)
    same = labels[:, None] == labels
    same.fill_diagonal_(include_query)
    hits = same.gather(1, s.argsort(1, descending=True)).double()
    precision = hits.cumsum(1) / torch.arange(1, len(x) + 1)
    return (precision * hits).sum(1) / hits.sum(1)


def draw(owners: np.ndarray, ids: int, images: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a batch: `images` of each of `ids` objects."""
    names, counts = np.unique(owners, return_counts=True)
    enough = names[counts >= images]
    chosen = rng.choice(enough, min(ids, len(enough)), replace=False)
    return np.concatenate(
        [rng.choice(np.flatnonzero(owners == name), images, replace=False) for name in chosen]
    )


def errors(
    features: np.ndarray, owners: np.ndarray, temperatures: list[float], args: argparse.Namespace
) -> dict[str, Any]:
    """Per line of the plot the mean error by temperature, and the true mean APs."""
    rng = np.random.default_rng(args.seed)
    sums = {name: np.zeros(len(temperatures)) for name in LINES}
    exact = np.zeros(2)
    for _ in range(args.batches):
        rows = draw(owners, args.ids, args.images, rng)
        x, labels = torch.from_numpy(features[rows]).double(), torch.from_numpy(owners[rows])
        without, among = (true_ap(x, labels, include) for include in (False, True))
        exact += [without.mean(), among.mean()]
        for place, temperature in enumerate(temperatures):
            paper, released = (
                smooth_ap(x, labels, temperature=temperature, include_query=include)
                for include in (False, True)
            )
            for name, found, truth in [
                (PAPER, paper, without),
                (RELEASED, released, among),
                (RETRIEVAL, released, without),
            ]:
                sums[name][place] += (found - truth).abs().mean()
    return {
        "AP without the query": round(exact[0] / args.batches, 5),
        "AP with the query": round(exact[1] / args.batches, 5),
        "batch": len(rows),
        "mean error": {
            name: [float(f"{value:.4g}") for value in total / args.batches]
            for name, total in sums.items()
        },
    }


def plot(content: dict[str, Any], path: Path) -> None:
    """Error against temperature, one line a definition."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.spines["right"].set_visible(False)
        for name, (label, color, style) in LINES.items():
            values = content["mean error"][name]
            axes.plot(content["temperatures"], values, style, color=color, label=label)
        axes.axvline(0.01, color="0.6", linewidth=0.8, linestyle=":")
        axes.annotate("default", (0.01, 1), xycoords=("data", "axes fraction"), color="0.4")
        axes.set(xscale="log", xlabel="temperature τ", ylabel="mean |smooth AP − AP|")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.legend(loc="upper left", framealpha=1, edgecolor="none")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def main() -> None:
    """Parse, embed, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder of images or a CSV file, labelled")
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--model", default="mobilenetv2_100", help="an embedder or a backbone")
    parser.add_argument("--weights", help="for a backbone's name")
    parser.add_argument("--size", type=int, help="for a backbone's name")
    parser.add_argument("--ids", type=int, default=96, help="P, objects in a batch")
    parser.add_argument("--images", type=int, default=4, help="M, images of an object")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--points", type=int, default=33, help="temperatures from 1e-4 to 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "ap_error.json")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs" / "ap_error.png")
    args = parser.parse_args()
    images = resight.load_images(args.data).where(pl.col("object").is_not_null())
    if args.split:
        images = images.where(pl.col("split") == args.split)
    size = (args.size, args.size) if args.size else None
    embedder = open_embedder(args.model, weights=args.weights, size=size, tell=print)
    found = resight.embed_images(embedder, images, options=EmbedOptions(workers=args.workers))
    usable = np.flatnonzero(found.valid)
    owners = images.table["object"].cast(pl.Categorical).to_physical().to_numpy().astype(np.int64)
    if np.unique(owners[usable], return_counts=True)[1].max(initial=0) < args.images:
        raise SystemExit(f"{args.data}: no object has {args.images} images; give fewer --images")
    temperatures = [float(f"{t:.4g}") for t in np.logspace(-4, 0, args.points)]
    content: dict[str, Any] = {
        "images": Path(args.data).resolve().parent.name + "/" + Path(args.data).name,
        "split": args.split,
        "model": Path(args.model).name,
        "weights": Path(args.weights).name if args.weights else None,
        "size": args.size,
        "objects a batch": args.ids,
        "images an object": args.images,
        "batches": args.batches,
        "seed": args.seed,
        "temperatures": temperatures,
    }
    content |= errors(found[usable], owners[usable], temperatures, args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(content, indent=2) + "\n")
    plot(content, args.plot)
    for place, temperature in enumerate(temperatures):
        cells = [f"{name} {content['mean error'][name][place]:.4f}" for name in LINES]
        print(f"τ {temperature:<10g}", "   ".join(cells))


if __name__ == "__main__":
    main()
