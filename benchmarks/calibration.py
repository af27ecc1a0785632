"""Does "not in the gallery" keep its promise on objects that it has not seen?

    resight fit auto signs/index.csv --size 64 --unlabelled --out fits/signs
    resight embed fits/signs signs-test.csv --out features/signs
    python benchmarks/calibration.py features/signs features/logos features/emoji

For each set, at image and object level, 200 times: a third of the objects is held out at random,
the others are the gallery and calibrate it by leaving one object out. Then

    false matches   held-out objects that are answered with a match (the mean over objects of the
                    share of their images), for each alpha; the promise is a mean of at most alpha
    found           images of the gallery, left out one at a time, whose first hit is right and is
                    not answered "no match"
    ECE             of the probability of the first hit, learned from the gallery's objects, on the
                    images of the held-out ones (all objects are searched); beside it what perfect
                    probabilities would have by chance

for both variants of the p-value. "within": the mean is at most alpha + twice the standard error
of 200 splits. Only rows of the split test are used, where there are splits. The similarities of
all images to all objects are computed once. Writes benchmarks/results/calibration.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from resight.features.store import Features
from resight.search.calibration import calibrate, no_match
from resight.search.isotonic import HitProbability, expected_calibration_error
from resight.search.left_out import Nearest, gaps, nearest, object_similarity

HERE = Path(__file__).parent
ALPHAS = (0.01, 0.05, 0.1)
VARIANTS = ("drawn", "share")


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) and codes (N,) of the labelled test images of a features folder."""
    features = Features.load(folder)
    table = features.images.table
    use = features.valid & table["object"].is_not_null().to_numpy()
    splits = table["split"].to_numpy()
    if (splits == "test").any():
        use &= splits == "test"
    rows = np.flatnonzero(use)
    codes = np.unique(table["object"].to_numpy()[rows].astype(str), return_inverse=True)[1]
    return np.asarray(features[rows], np.float32), codes


def whole_table(features: np.ndarray, objects: np.ndarray, level: str) -> np.ndarray:
    """(N, P): each image against each object, itself left out of its own."""
    itself = np.arange(len(objects))
    blocks = object_similarity(features, features, objects, level, own=objects, itself=itself)
    return np.concatenate([block for _, block in blocks])


def one_split(
    table: np.ndarray, objects: np.ndarray, everything: Nearest, share: float, seed: int
) -> dict[str, Any]:
    """Rates of one split: {(variant, alpha): (false matches, found)} and the ECE's parts."""
    rng = np.random.default_rng(seed)
    n_objects = table.shape[1]
    held = np.zeros(n_objects, np.bool_)
    held[rng.permutation(n_objects)[: round(share * n_objects)]] = True
    unknown = held[objects]
    column = np.cumsum(~held) - 1  # codes within the gallery
    own = column[objects[~unknown]]
    known = nearest(table[~unknown][:, ~held], own, k=2)
    asked = nearest(table[unknown][:, ~held], np.full(int(unknown.sum()), -1), k=2)
    weights = 1 / np.bincount(objects)[objects[unknown]]
    weights /= weights.sum()
    possible = known.possible
    rates: dict[str, Any] = {}
    for variant in VARIANTS:
        learned = calibrate(known.other, own, variant, seed)
        strange = learned.p_values(asked.other, asked.other_object)
        mine = learned.p_values(known.similarity[:, 0], known.objects[:, 0])
        for alpha in ALPHAS:
            matched = float(weights @ ~no_match(strange, alpha))
            found = float((known.right[:, 0] & ~no_match(mine, alpha))[possible].mean())
            rates[variant, alpha] = (matched, found)
    gap = gaps(everything.similarity)
    fitted = HitProbability.fit(
        everything.similarity[~unknown],
        gap[~unknown],
        everything.right[~unknown],
        everything.possible[~unknown],
    )
    test = unknown & everything.possible
    p = fitted(everything.similarity[test, :1], gap[test, :1])[:, 0]
    chance = [expected_calibration_error(p, rng.random(len(p)) < p) for _ in range(5)]
    error = expected_calibration_error(p, everything.right[test, 0])
    return {
        "rates": rates,
        "ece": (error, np.mean(chance)),
        "p": p,
        "right": everything.right[test, 0],
    }


def measure(folder: Path, splits: int, share: float) -> dict[str, Any]:
    """All figures of one set."""
    features, objects = load(folder)
    content: dict[str, Any] = {
        "images": len(objects),
        "objects": int(objects.max()) + 1,
        "held out": round(share * (int(objects.max()) + 1)),
    }
    for level in ("image", "object"):
        started = time.process_time()
        table = whole_table(features, objects, level)
        everything = nearest(table, objects)
        found = [one_split(table, objects, everything, share, seed) for seed in range(splits)]
        content[level] = {variant: {} for variant in VARIANTS}
        for variant in VARIANTS:
            for alpha in ALPHAS:
                pairs = np.array([split["rates"][variant, alpha] for split in found])
                error = pairs[:, 0].std(ddof=1) / np.sqrt(splits)
                content[level][variant][str(alpha)] = {
                    "false matches": round(float(pairs[:, 0].mean()), 4),
                    "standard error": round(float(error), 4),
                    "within": bool(pairs[:, 0].mean() <= alpha + 2 * error),
                    "found": round(float(pairs[:, 1].mean()), 4),
                }
        error, chance = np.mean([split["ece"] for split in found], axis=0)
        p, right = (np.concatenate([split[name] for split in found]) for name in ("p", "right"))
        content[level] |= {
            "right": round(float(everything.right[everything.possible, 0].mean()), 4),
            "ECE": round(float(error), 4),
            "ECE by chance": round(float(chance), 4),
            "ECE of all splits together": round(expected_calibration_error(p, right), 4),
            "seconds": round(time.process_time() - started, 1),
        }
    return content


def show(name: str, content: dict[str, Any]) -> None:
    """A table of one set."""
    print(f"{name}: {content['images']} images, {content['objects']} objects")
    for level in ("image", "object"):
        for variant in VARIANTS:
            cells = [
                f"α {alpha}: {row['false matches']:.4f} ± {row['standard error']:.4f}"
                f"{' ' if row['within'] else '!'} found {row['found']:.3f}"
                for alpha, row in content[level][variant].items()
            ]
            print(f"  {level:6} {variant:5}", "   ".join(cells))
        one = content[level]
        print(
            f"  {level:6} first hit right {one['right']:.3f}; ECE {one['ECE']:.4f} a split (by "
            f"chance {one['ECE by chance']:.4f}), {one['ECE of all splits together']:.4f} together"
        )


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", nargs="+", type=Path, help="features folders, labelled")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--share", type=float, default=1 / 3, help="of the objects held out")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "calibration.json")
    args = parser.parse_args()
    content: dict[str, Any] = {"splits": args.splits, "share": round(args.share, 4), "sets": {}}
    for folder in args.features:
        content["sets"][folder.name] = measure(folder, args.splits, args.share)
        show(folder.name, content["sets"][folder.name])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
