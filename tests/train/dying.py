"""Trains without labels and is killed: `python dying.py PHOTOS OUT` makes OUT/<place> for each
place of `PLACES`, every one by a process of its own that dies (kill -9) as it begins that call.

The processes are forks of one that has imported everything and done nothing.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numba
from PIL import Image
from unlabelled_sets import OPTIONS, settings

from resight.data.sources import load_images
from resight.train import start
from resight.train.loop import Watcher

DYING = settings(steps=2, spatial={"top": 2, "side": 64, "points": 30})
U = "resight.train.unlabelled"
# What is being done: where the function is, its name, the how manyth call of it is the last.
PLACES: dict[str, tuple[str, str, int]] = {
    "a file's last move": ("resight.files:os", "replace", 4),  # of the features' record
    "folder of a stage": ("resight.train.rundir", "write_json", 2),
    "pool": ("resight.graph.pool_files:Appended", "append", 2),
    "verification": ("resight.spatial.store", "write_counts", 1),
    "filling the memory": ("resight.mining.memory:MemoryBank", "write", 1),
    "first epoch": (f"{U}.insclr.objective:InsCLRObjective", "_counts", 2),
    "checkpoint": ("resight.train.checkpoint", "save", 2),
    "after a checkpoint": (f"{U}.insclr.objective:InsCLRObjective", "kept", 1),
    "evidence": (f"{U}.insclr.method", "write_stage", 1),
    "cleaning up": (f"{U}.run", "_clean", 1),
    "second stage": (f"{U}.insclr.objective:InsCLRObjective", "_counts", 7),
    "last copy": (f"{U}.run", "_end", 1),
}


def dies_at(place: tuple[str, str, int], photos: Path, out: Path) -> int:
    """Train in a fork, which is killed there; its status as `waitpid` has it."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        module, _, inner = place[0].partition(":")
        where: Any = importlib.import_module(module)
        where = getattr(where, inner) if inner else where
        real = getattr(where, place[1])
        calls: list[int] = []

        def call(*args: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == place[2]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **named)

        setattr(where, place[1], call)
        signal.alarm(250)
        if (out / "run.json").is_file():
            start.resume(out, OPTIONS, Watcher())
        else:
            start.start(DYING, load_images(photos), out, OPTIONS, Watcher())
    finally:
        os._exit(1)  # it did not die where it should


if __name__ == "__main__":
    lazy = ("timm", "cv2", "jinja2", "matplotlib.pyplot", "matplotlib.backends.backend_svg")
    lazy += ("resight.graph.topk", "resight.evaluate.report.plots", "torch.utils.tensorboard")
    for name in lazy:
        importlib.import_module(name)  # once, not in every fork
    numba.njit(lambda: 0)()  # what numba needs to load compiled loops
    Image.init()
    source, folder = map(Path, sys.argv[1:])
    for name, there in PLACES.items():
        status = dies_at(there, source, folder / name)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (name, status)
    # Once more, while it goes on.
    twice = folder / "twice"
    dies_at((*PLACES["first epoch"][:2], 4), source, twice)
    dies_at((*PLACES["first epoch"][:2], 1), source, twice)
