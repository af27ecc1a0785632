"""Training without labels, killed (kill -9) at any place: goes on to the same weights and pages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dying import DYING, PLACES
from test_resume import losses, same, weights
from unlabelled_sets import OPTIONS, folder

from resight.data.imageset import ImageSet
from resight.data.sources import load_images
from resight.errors import UserError
from resight.models.embedder import Embedder
from resight.train import start
from resight.train.loop import Stopped, Watcher


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return load_images(folder(tmp_path_factory.mktemp("photos") / "all", 8, 4))


@pytest.fixture(scope="module")
def whole(photos: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    start.start(DYING, photos, out, OPTIONS, Watcher())
    return out


@pytest.fixture(scope="module")
def killed(photos: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for each place, killed there."""
    out = tmp_path_factory.mktemp("killed")
    words = [sys.executable, str(Path(__file__).with_name("dying.py")), photos.source, str(out)]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("place", [*PLACES, "twice"])
def test_killed_and_resumed_equals_uninterrupted(whole: Path, killed: Path, place: str) -> None:
    out = killed / place
    np.random.default_rng().random()
    start.resume(out, OPTIONS, Watcher())
    for stage in ("stage-1", "stage-2"):
        assert same(weights(out / stage), weights(whole / stage))
        assert losses(out / stage) == losses(whole / stage) and len(losses(out / stage)) == 4
        assert not list((out / stage).glob("memory*")), "what only training needed is still there"
        assert not (out / stage / "features").exists()
    model = "embedder/model.safetensors"
    assert (out / model).read_bytes() == (whole / model).read_bytes()
    assert not (out / "first").exists() and (out / "evidence.html").is_file()


def test_a_finished_run_is_not_resumed(whole: Path) -> None:
    with pytest.raises(UserError, match=r"this run is finished; its embedder is .*embedder"):
        start.resume(whole, OPTIONS, Watcher())
    assert Embedder.load(whole).dim == 8


def test_changed_images_are_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 6, 3)

    def stop(done: int, total: int, text: str) -> None:
        if "epoch" in text:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        start.start(DYING, load_images(source), tmp_path / "run", OPTIONS, Watcher(step=stop))
    (source / "000-0.png").write_bytes(b"something else")
    with pytest.raises(UserError, match="fingerprints differ"):
        start.resume(tmp_path / "run", OPTIONS, Watcher())
