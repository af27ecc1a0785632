"""Does a person's answer to a few pairs tell which embedder is better? Labels answer in his place.

    resight fit mobilenetv2_100 characters.csv --unlabelled --weights W --size 64 --out fitted
    resight embed mobilenetv2_100 characters.csv --weights W --size 64 --out features/plain
    resight embed fitted characters.csv --out features/fitted
    python benchmarks/asking.py features/fitted features/plain

Of two features folders of one labelled set: the true difference in precision at 1; then photos are
drawn many times for 40, 60 and 100 pairs, as `resight ask` draws them, and answered by the labels.
Writes benchmarks/results/asking.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from resight.evaluate.asking.design import inclusion, systematic
from resight.evaluate.asking.differing import differing
from resight.evaluate.asking.estimate import weighted_difference
from resight.features.store import Features

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--draws", type=int, default=300)
    given = parser.parse_args()
    a, b = Features.load(given.a), Features.load(given.b)
    found = differing(a, b, a.images, a.valid & b.valid)
    thing = np.array(a.images.table["object"].to_list())
    right = [(thing[one] == thing[found.rows]).astype(float) for one in (found.a, found.b)]
    d = right[0] - right[1]
    share = len(d) / found.photos
    result = {"photos": found.photos, "copies": found.copies, "differ": len(d)}
    result |= {"truth": round(float(d.mean() * share), 4), "draws": given.draws, "pairs": {}}
    useful, random = found.useful(), np.random.default_rng(0)
    for pairs in (40, 60, 100):
        n = pairs // 2
        p = inclusion(useful, n)
        estimates = []
        for _ in range(given.draws):
            rows = systematic(p, useful, random)
            estimates.append(weighted_difference(d[rows], p[rows], len(rows), len(d)))
        even = [d[random.choice(len(d), n, replace=False)].mean() for _ in range(given.draws)]
        value = np.array([one.value for one in estimates])
        result["pairs"][pairs] = {
            "mean": round(float(value.mean() * share), 4),
            "sd": round(float(value.std() * share), 4),
            "sd, all alike": round(float(np.std(even) * share), 4),
            "width": round(float(np.mean([one.high - one.low for one in estimates]) * share), 4),
            "held": float(np.mean([one.low <= d.mean() <= one.high for one in estimates])),
            "told": float(np.mean([one.low > 0 or one.high < 0 for one in estimates])),
        }
    print(json.dumps(result, indent=2))
    (HERE / "results" / "asking.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
