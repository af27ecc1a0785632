"""What an image set of many rows costs before any image is read.

    python benchmarks/scale.py --rows 100000 --rows 1000000

A Parquet table of paths and objects, as a catalogue has them: read it, name all paths, take the
fingerprint that each long job begins with (it asks the disk for each file's length; here there are
none). Seconds and the memory of the process at its peak, each in a process of its own. Writes
benchmarks/results/scale.json; `tools/scale.py` reckons with it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import polars as pl

from peers.watch import machine

HERE = Path(__file__).parent


def table(folder: Path, rows: int, away: bool) -> Path:
    """A table of so many rows; of files only the first is there."""
    start = "s3://bucket/" if away else ""
    number = pl.int_range(rows)
    shop = pl.format(f"{start}photos/{{}}/{{}}.jpg", number // 1000, number).alias("path")
    (folder / "photos" / "0").mkdir(parents=True, exist_ok=True)
    (folder / "photos" / "0" / "0.jpg").touch()
    path = folder / f"{rows}-{away}.parquet"
    pl.select(shop, (number // 4).cast(pl.String).alias("object")).write_parquet(path)
    return path


def measured(path: Path, away: bool, answer: Connection) -> None:
    from resight.data import sources

    if away:
        sources.check_reachable = lambda images: None  # type: ignore[assignment]
        from resight.data import remote

        remote.need = lambda addresses: None  # type: ignore[assignment]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: dict[str, Any] = {}
    start = time.perf_counter()
    images = sources.load_images(path)
    found["read_s"] = time.perf_counter() - start
    start = time.perf_counter()
    images.full_paths()
    found["paths_s"] = time.perf_counter() - start
    start = time.perf_counter()
    images.fingerprint()
    found["fingerprint_s"] = time.perf_counter() - start
    found["MB"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    answer.send({name: round(value, 3) for name, value in found.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, action="append")
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for rows in arguments.rows or [100_000, 1_000_000]:
            for kind in ("files", "addresses"):
                path = table(Path(place), rows, kind == "addresses")
                ours, theirs = spawn.Pipe()
                job = spawn.Process(target=measured, args=(path, kind == "addresses", theirs))
                job.start()
                runs[f"{rows:,} {kind}"] = {"rows": rows} | ours.recv()
                job.join()
                print(f"{rows:,} {kind}: {runs[f'{rows:,} {kind}']}")
    content = {"machine": machine(), "runs": runs}
    (HERE / "results" / "scale.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
