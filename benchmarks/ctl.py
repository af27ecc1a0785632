"""Does training help, and does CTL help? On real images, three seeds, image and object level.

    python benchmarks/ctl.py --weights mobilenetv2_100.safetensors --work runs/ctl \
        --set signs=signs/index.csv:96 --set emoji=emoji/index.csv:112

For each set: the weights as they come, the recipe without CTL (ctl_weight 0) and with it, each
trained with three seeds from the same weights; test rows by the set's own protocol. Runs that are
finished are not repeated. Writes benchmarks/results/ctl.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "small.yaml"
VARIANTS = {"without CTL": 0, "with CTL": 1}
NUMBERS = ("mAP", "R@1")


def resight(*words: str, threads: int) -> str:
    """Run the command line and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "resight.cli.main", *words],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"resight {' '.join(words)}\n{done.stderr}")
    return done.stdout


def scores(*words: str, threads: int) -> dict[str, float]:
    """mAP and R@1 at both levels, as fractions."""
    found = json.loads(resight("evaluate", *words, "--json", "--workers", "0", threads=threads))
    numbers = {f"image {name}": found[name] for name in NUMBERS}
    numbers |= {f"object {name}": found["object_level"][name] for name in NUMBERS}
    return numbers | {"protocol": found["protocol"], "queries": found["queries"]}


def trained(
    data: str, size: str, run: Path, ctl_weight: int, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Train (unless done) and evaluate one run."""
    result = run / "test.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    start = time.monotonic()
    resight(
        *("train", data, "--config", str(RECIPE), "--weights", args.weights, "--size", size),
        *("--seed", str(seed), "--set", f"ctl_weight={ctl_weight}", "--workers", "0"),
        *("--out", str(run), "--force", *args.train),
        threads=args.threads,
    )
    minutes = (time.monotonic() - start) / 60
    found = scores(str(run), data, threads=args.threads) | {"minutes": round(minutes, 1)}
    result.write_text(json.dumps(found))
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds, in percent."""
    keys = [key for key in runs[0] if isinstance(runs[0][key], float) and key != "minutes"]
    table = {}
    for key in keys:
        values = [100 * run[key] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        table[key] = {"mean": round(statistics.mean(values), 2), "sd": round(spread, 2)}
    return table


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="ImageNet weights for mobilenetv2_100")
    parser.add_argument("--set", action="append", required=True, help="NAME=IMAGES:SIZE")
    parser.add_argument("--work", type=Path, default=Path("runs/ctl"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads a run")
    parser.add_argument("--train", nargs="*", default=[], help="more words for resight train")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "ctl.json")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = []
        for one in args.set:
            name, _, rest = one.partition("=")
            data, _, size = rest.rpartition(":")
            plain = pool.submit(
                scores, "mobilenetv2_100", data, "--weights", args.weights, "--size", size,
                threads=args.threads,
            )  # fmt: skip
            for seed in range(args.seeds):
                for variant, weight in VARIANTS.items():
                    run = args.work / f"{name}-{weight}-{seed}"
                    job = pool.submit(trained, data, size, run, weight, seed, args)
                    waiting.append((name, variant, job))
            waiting.append((name, "weights as they come", plain))
        for name, variant, job in waiting:
            results.setdefault(name, {}).setdefault(variant, []).append(job.result())
            print(name, variant, job.result(), flush=True)
    content = {
        name: {
            variant: {"summary": summary(runs), "runs": runs} for variant, runs in variants.items()
        }
        for name, variants in results.items()
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(content, indent=2) + "\n")
    for name, variants in content.items():
        print(f"\n{name}: percent, mean ± standard deviation of {args.seeds} seeds")
        for variant, found in variants.items():
            cells = [f"{k} {v['mean']:.1f} ± {v['sd']:.1f}" for k, v in found["summary"].items()]
            print(f"  {variant:22}", "   ".join(cells))


if __name__ == "__main__":
    main()
