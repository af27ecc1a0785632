"""Real processes: the gradients of a batch that is spread over them are those of one process."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from stepping import batch, gradients, story

CASES = [
    {"recipe": "smooth_ap"},
    {"recipe": "smooth_ap", "loss": "ctl", "chunk": 2},
    {"recipe": "smooth_ap", "loss": "proxy_nca"},
    {"recipe": "ctl", "freeze_bn": True},
]
SPLITS = {2: [(5, 5), (3, 7)], 3: [(4, 3, 3), (1, 9, 0)]}


def work(rank: int, world: int, port: int, folder: str, paths: list[str]) -> None:
    """One of the processes: a part of the batch, a step, its gradients into a file."""
    sys.path[:0] = paths
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    images, labels = batch()
    results = []
    for sizes in SPLITS[world]:
        own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        results += [gradients(story(**case), images[own], labels[own]) for case in CASES]
    torch.save(results, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", SPLITS)
def test_gradients_equal_those_of_one_process(world: int, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (world, port, str(tmp_path), list(sys.path))
    # New processes, of a server that has imported torch once for all of them.
    mp.set_forkserver_preload(["torch", "timm", "accelerate", "numpy"])
    mp.start_processes(work, arguments, nprocs=world, start_method="forkserver")
    images, labels = batch()
    expected = [gradients(story(**case), images, labels) for case in CASES]
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        wanted = [(sizes, *one) for sizes in SPLITS[world] for one in expected]
        for (sizes, gradient, losses), (taken, told) in zip(wanted, found, strict=True):
            assert told == pytest.approx(losses, rel=1e-5)
            assert taken.keys() == gradient.keys()
            for name, value in gradient.items():
                near = 1e-4 * float(value.abs().max()) + 1e-7
                assert torch.allclose(taken[name], value, rtol=1e-4, atol=near), (sizes, name)
