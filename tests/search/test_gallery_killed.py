"""A gallery whose process is killed (kill -9) while it changes: nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gallery_sets import features_of

from resight.features.store import Features
from resight.search.gallery import Gallery


def environment() -> dict[str, str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


def test_killed_at_random_instants(tmp_path: Path) -> None:
    """benchmarks/gallery_kills.py does the same 200 times."""
    script = Path(__file__).with_name("gallery_dying.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "--kills", "12"],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    died = json.loads(done.stdout)
    assert sum(died.values()) == 12 and died.keys() & {"add", "remove", "move", "compact"}
    assert not (tmp_path / "g" / "gallery.sqlite.damaged").exists()


ADDING = """
import os, sys
from test_gallery_killed import Gallery, some
def progress(done, total):
    if done == 256:
        os.kill(os.getpid(), 9)
Gallery.open(sys.argv[1]).add(some()[1], progress=progress)
"""


def some() -> tuple[Any, Features]:
    rows = np.random.default_rng(0).normal(size=(700, 8)).astype(np.float32)
    return rows, features_of(rows, [f"o{n // 3}" for n in range(700)])


def test_an_add_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    Gallery.create(folder).close()
    words = [sys.executable, "-c", ADDING, str(folder)]
    assert subprocess.run(words, env=environment(), timeout=300).returncode == -9
    rows, given = some()
    with Gallery.open(folder) as gallery:
        assert gallery.engine.counts()[0] == 256
        gallery.add(given)
        assert (gallery.added.unchanged, len(gallery.added.added)) == (256, 444)
        assert gallery.engine.counts() == (700, 234)
        found = gallery.search_vectors(rows, 1)
        assert [hits[0].path for hits in found] == [f"/g/{n}.png" for n in range(700)]
