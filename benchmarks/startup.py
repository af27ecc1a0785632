"""How long each verb takes to answer: its --help, and its smallest real job.

    python benchmarks/startup.py [--repeats 5] [VERB ...]

Each in a process of its own, on a set of 16 tiny pictures with timm's smallest network, nothing
downloaded. Beside them the bare interpreter and the imports that the verbs stand on. Medians of the
repeats, in turn, of the clock and of the processor: on a machine with other work the second says
more. What a verb does itself (reading, embedding, training a step) is in its time. Writes
benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAIN = ["-m", "resight.cli.main"]
NETWORK = ["test_resnet", "set/index.csv", "--weights", "none", "--size", "32", "--workers", "0"]
SHORT = ["--backbone", "test_resnet", "--weights", "none", "--size", "32", "--workers", "0"]
FLOOR = {
    "python -c pass": ["-c", "pass"],
    "import resight": ["-c", "import resight"],
    "import torch": ["-c", "import torch"],
    "import torch, timm": ["-c", "import torch, timm"],
}
DRAW = ["--objects", "4", "--pictures", "4", "--pixels", "32", "--workers", "1"]
JOBS: dict[str, list[str]] = {
    "demo-data": ["demo-data", "--out", "drawn{n}", *DRAW],
    "data check": ["data", "check", "set/index.csv", "--workers", "1"],
    "recipes": ["recipes"],
    "protocols": ["protocols"],
    "embed": ["embed", *NETWORK, "--out", "features{n}"],
    "fit": ["fit", *NETWORK, "--out", "fitted{n}", "--method", "raw", "--depths", "4"],
    "train": ["train", "set/index.csv", *SHORT, "--out", "run{n}", "--recipe", "ctl", "--steps",
              "1", "--set", "ids=2", "--set", "val_share=0.3"],
    "index": ["index", "features", "--out", "gallery{n}"],
    "search": ["search", "gallery", "set/0/0.png"],
    "evaluate MODEL": ["evaluate", *NETWORK],
    "evaluate FEATURES": ["evaluate", "features"],
    "compare": ["compare", "evaluation", "second"],
    "report": ["report", "evaluation", "--out", "page{n}.html"],
}  # fmt: skip
PREPARED = (
    ["embed", *NETWORK, "--out", "features"],
    ["index", "features", "--out", "gallery"],
    ["evaluate", "features", "--out", "evaluation"],
    ["evaluate", "features", "--out", "second"],
    ["search", "gallery", "set/0/0.png"],  # the first one makes the graph that the others use
)


def main() -> None:
    """Prepare, time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verbs", nargs="*", help="only these; by default all")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    commands = dict(FLOOR)
    commands |= {"resight --help": [*MAIN, "--help"]}
    for name, words in JOBS.items():
        verb = [word for word in words[: 2 if words[0] == "data" else 1]]
        commands[f"{' '.join(verb)} --help"] = [*MAIN, *verb, "--help"]
        commands[name] = [*MAIN, *words]
    if args.verbs:
        commands = {k: v for k, v in commands.items() if any(k.startswith(w) for w in args.verbs)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "set")
        for words in PREPARED:
            timed([*MAIN, *words], folder)
        found: dict[str, list[tuple[float, float]]] = {key: [] for key in commands}
        for repeat in range(args.repeats):
            for key, words in commands.items():
                found[key].append(timed([w.replace("{n}", str(repeat)) for w in words], folder))
    result = {
        key: {
            "wall": round(statistics.median(wall for wall, _ in runs), 3),
            "cpu": round(statistics.median(cpu for _, cpu in runs), 3),
            "least_wall": round(min(wall for wall, _ in runs), 3),
        }
        for key, runs in found.items()
    }
    for key, one in result.items():
        print(f"{key:24} {one['wall']:7.3f} s, processor {one['cpu']:7.3f} s")
    path = Path(__file__).parent / "results" / "startup.json"
    content = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    content |= {"load": round(os.getloadavg()[0], 1), "repeats": args.repeats, "seconds": result}
    if args.verbs and path.is_file():  # the others stay as they were
        before = json.loads(path.read_text()).get("seconds", {})
        content["seconds"] = before | result
    path.write_text(json.dumps(content, indent=2) + "\n")


def draw(folder: Path) -> None:
    """Four objects of four pictures, with a table."""
    import numpy as np
    from PIL import Image

    rows = ["path,object"]
    for number in range(4):
        (folder / str(number)).mkdir(parents=True)
        for shot in range(4):
            rng = np.random.default_rng([number, shot])
            pixels = np.full((32, 32, 3), 60 * number) + rng.integers(0, 60, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / str(number) / f"{shot}.png")
            rows.append(f"{number}/{shot}.png,{number}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")


def timed(words: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor that `python WORDS` takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{wall:7.2f} s  {' '.join(words)}", file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu


if __name__ == "__main__":
    main()
