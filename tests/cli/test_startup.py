"""What a verb does not need it does not import: seconds before every answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import TINY, resight

# Costly, and needed by nothing but what is named: compiled networks, training, plots.
NEVER = ("torch._dynamo", "torch._inductor", "sympy", "tensorboard", "accelerate", "matplotlib")
NO_NETWORK = (*NEVER, "torchvision", "timm")
NO_TORCH = (*NO_NETWORK, "torch")
JOBS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "search": (["search", "gallery", "set/object 00/foto_ä0.png"], NO_TORCH),
    "search by torch": (
        ["search", "gallery", "set/object 00/foto_ä0.png", "--runtime", "torch"],
        NEVER,
    ),
    "embed": (["embed", "model", "set", "--out", "new"], NO_TORCH),
    "embed by torch": (
        ["embed", "model", "set", "--out", "other", "--workers", "0", "--runtime", "torch"],
        NEVER,
    ),
    "index": (["index", "model", "set", "--out", "third"], NO_TORCH),
    "gallery add": (["gallery", "add", "gallery", "more"], NO_TORCH),
    "index features": (["index", "features", "--out", "fourth"], NO_TORCH),
    "fit": (["fit", "features", "--out", "fitted", "--method", "whitening"], NEVER),
    "evaluate a model": (["evaluate", "model", "set", "--workers", "0"], NEVER),
    "evaluate features": (["evaluate", "features"], NO_NETWORK),
    "evaluate vectors": (["evaluate", "f.npy", "set"], NO_TORCH),
    "gallery info": (["gallery", "info", "gallery"], NO_TORCH),
    "gallery add nothing": (["gallery", "add", "gallery", "set"], NO_TORCH),
    "gallery remove": (["gallery", "remove", "gallery", "--object", "object 01"], NO_TORCH),
    "gallery calibrate": (["gallery", "calibrate", "gallery", "--alpha", "0.2"], NO_TORCH),
    "gallery export": (["gallery", "export", "gallery", "--out", "exported"], NEVER),
    "compare": (["compare", "evaluation", "second"], NO_TORCH),
    "report": (
        ["report", "evaluation", "--out", "page.html"],
        ("torch", *(m for m in NO_NETWORK if m != "matplotlib")),
    ),
    "data check": (["data", "check", "set"], NO_NETWORK),
    "protocols": (["protocols"], NO_TORCH),
    "train --help": (["train", "--help"], (*NO_TORCH, "numpy", "polars", "rich")),
}
CHILD = """
import json, sys
sys.argv = ["resight", *sys.argv[1:]]
from resight.cli.main import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
# What only holds the place of another module (resight.lightly) has no specification.
there = [name for name, one in sys.modules.items() if getattr(one, "__spec__", None)]
print("\\n" + json.dumps(sorted(there)))
"""


@pytest.fixture(scope="module")
def place(shapes: Path, embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a model, and what is made of both."""
    import numpy as np

    from resight.models.embedder import Embedder
    from resight.models.export.choose import for_use

    folder = tmp_path_factory.mktemp("startup")
    (folder / "set").symlink_to(shapes)
    embedder.save(folder / "model")
    for_use(Embedder.load(folder / "model"), "onnx")  # as a large set would make it
    (folder / "more").mkdir()
    shutil.copy(shapes / "object 01" / "foto_ä0.png", folder / "more")
    with open(folder / "more" / "foto_ä0.png", "ab") as file:
        file.write(b"another content")
    words = [str(folder / "model"), str(shapes), "--workers", "0"]
    features, vectors = str(folder / "features"), folder / "f.npy"
    assert resight("embed", *words, "--out", features) == 0
    assert resight("index", features, "--out", str(folder / "gallery")) == 0
    np.save(vectors, np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    for name in ("evaluation", "second"):
        words = [str(vectors), str(shapes), "--out", str(folder / name)]
        assert resight("evaluate", *words) == 0
    return folder


@pytest.mark.parametrize("name", JOBS)
def test_nothing_needless_is_imported(name: str, place: Path) -> None:
    words, without = JOBS[name]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        cwd=place, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "RESIGHT_RUNTIME": "auto"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout.splitlines()[-1])
    found = [m for m in without if m in modules]
    assert not found


COMPILER = f"""
import sys, torch
from resight import lightly
timm, v2 = lightly.timm(), lightly.transforms()
def imported():
    return getattr(sys.modules["torch._dynamo"], "__file__", None) is not None
network = timm.create_model({TINY!r}, num_classes=0)
lightly.be_deterministic(True)
assert torch.are_deterministic_algorithms_enabled()
def step(optimizer):
    optimizer.zero_grad()
    network(torch.ones(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
"""


def _child(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILER + code], capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_training_imports_no_compiler_and_learns_the_same() -> None:
    _child("""
def trained():
    torch.manual_seed(0)
    for part in network.modules():
        getattr(part, "reset_parameters", lambda: None)()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 / (1 + s))
    for _ in range(3):
        step(optimizer)
        schedule.step()
    return torch.cat([p.detach().reshape(-1).clone() for p in network.parameters()])
without = trained()
assert not imported() and "torch._inductor" not in sys.modules
import torch._dynamo.config
assert imported() and "torch._inductor" in sys.modules
assert torch.equal(trained(), without) and torch.isfinite(without).all()
lightly.be_deterministic(False)
assert not torch.are_deterministic_algorithms_enabled()
""")


def test_the_compiler_is_there_when_it_is_asked_for() -> None:
    _child("""
optimizer = torch.optim.SGD(network.parameters(), 0.1)
step(optimizer)
from torchvision.ops import roi_align
assert not imported()
one = torch.ones(2)
assert torch.equal(torch.compile(lambda x: x + 1, backend="eager")(one), one + 1)
assert imported() and "site-packages" in torch._dynamo.__file__
import torch._dynamo
assert torch._dynamo.disable(len)("ab") == 2
step(optimizer)  # made before it was there
roi_align(torch.rand(1, 3, 8, 8), torch.tensor([[0, 0.0, 0, 4, 4]]), 2)
""")


def test_looking_through_all_modules_imports_nothing() -> None:
    _child("""
import inspect, pickle
inspect.getmodule(inspect.currentframe())
inspect.stack()
assert not imported()
""")
