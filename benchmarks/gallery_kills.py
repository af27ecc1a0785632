"""Kills (kill -9) a process that changes a gallery at 200 random instants, and looks what is left.

    python benchmarks/gallery_kills.py

Adds, removes, moves and compacts, one of them favoured in turn. After each death the gallery is
opened: everything acknowledged is there bit for bit, what was begun is there wholly or not at all,
`check` finds no fault, and searches find. Stops at the first that is not so. What is counted is in
which change the process died. Writes benchmarks/results/gallery_kills.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "tests" / "search" / "gallery_dying.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        words = ["--kills", str(options.kills), "--seed", str(options.seed)]
        done = subprocess.run(
            [sys.executable, str(SCRIPT), place, *words],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise SystemExit("a gallery was not what was acknowledged; see above")
    found = {
        "kills": options.kills,
        "died_while": dict(sorted(json.loads(done.stdout).items())),
        "lost": 0,
        "not_opened": 0,
        "faults": 0,
        "seconds": round(time.perf_counter() - start),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "sqlite": sqlite3.sqlite_version,
    }
    print(json.dumps(found, indent=2))
    (HERE / "results" / "gallery_kills.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
