"""How long `import resight` and `resight --help` take, beside the bare interpreter.

    python benchmarks/startup.py

Medians of 15 runs in turn; the floor is `python -c pass`. Fails if torch is imported.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import resight": ["-c", "import resight"],
    "resight --help": ["-m", "resight.cli.main", "--help"],
    "resight train --help": ["-m", "resight.cli.main", "train", "--help"],
    "import torch": ["-c", "import torch"],
}


def main() -> None:
    """Time, print, and write benchmarks/results/startup.json."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(15):
        for name, words in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
            times[name].append(time.perf_counter() - start)
    code = "import sys, resight.cli.main; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    result = {name: round(statistics.median(runs), 3) for name, runs in times.items()}
    for name, seconds in result.items():
        print(f"{name:24} {seconds:.3f} s")
    path = Path(__file__).parent / "results" / "startup.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
