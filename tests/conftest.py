"""What all tests share: one thread, a tiny network, a tiny labelled image set."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: exact repetition, and no contention
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Graphs are made where they are tested: for each small network of a test that would take long.
os.environ.setdefault("RESIGHT_RUNTIME", "torch")

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from command import TINY

# The same examples each time, so that a change is judged by the change; HYPOTHESIS_PROFILE=explore
# looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Files of long tests. On several cores a file goes whole to one worker (`make test`), so that what
# its tests share is made once; those begun last should be short.
LONG = (
    "train/test_unlabelled_killed.py",
    "train/test_unlabelled.py",
    "train/test_graph_recipe.py",
    "train/test_resume.py",
    "evaluate/test_share.py",
    "train/test_processes.py",
    "train/test_unlabelled_folders.py",
    "cli/test_sweep_verb.py",
    "cli/test_evaluate_verb.py",
    "test_gpu_benchmark.py",
    "test_tutorials.py",
    "serve/test_page.py",
    "serve/test_page_above.py",
    "serve/test_page_axe.py",
    "test_notebooks.py",
    "cli/test_push_verb.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first; all else in the order it had."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture
def quick_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are set up and not drawn, for tests in which they are a side matter."""

    def blank(figure: Any, file: Any, **how: Any) -> None:
        file.write("<svg></svg>")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", blank)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 objects with 5 pictures each: a colour and a pattern, noise on top."""
    folder = tmp_path_factory.mktemp("shapes")
    for number in range(12):
        rng = np.random.default_rng([7, number])
        base = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((12, 12, 1)))
        (folder / f"object {number:02d}").mkdir()
        for shot in range(5):
            noisy = base + rng.normal(0, 40, base.shape)
            picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
            picture.save(folder / f"object {number:02d}" / f"foto_ä{shot}.png")
    return folder


@pytest.fixture(scope="session")
def run_folder(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run on `shapes`."""
    from resight.data.sources import load_images
    from resight.train.loop import LoopOptions, Watcher
    from resight.train.recipes.ctl import CTLSettings
    from resight.train.start import start

    out = tmp_path_factory.mktemp("runs") / "run"
    settings = CTLSettings(
        backbone=TINY, weights="none", size=(32, 32), epochs=2, ids=4, images=3, lr=1e-3
    )
    start(settings, load_images(shapes), out, LoopOptions(workers=0), Watcher())
    return out


@pytest.fixture(scope="session")
def embedder():
    """A tiny embedder at 32 x 32 with a neck that does something. Copy it before changing it."""
    import torch

    from resight.data.transforms import Preprocess
    from resight.models.embedder import Embedder, EmbedderConfig

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Embedder(EmbedderConfig(backbone=TINY, preprocess=Preprocess(size=(32, 32))))
        # Blocks of colour: the neck then brings out what differs, as in a trained network.
        f = model.eval()(torch.rand(64, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3))[0]
        model.neck.running_mean.copy_(f.detach().mean(0))
        model.neck.running_var.copy_(f.detach().var(0))
    return model
