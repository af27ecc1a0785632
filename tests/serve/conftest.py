"""A gallery of `shapes`, as a service in this process or in one of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import photo


@pytest.fixture(scope="session")
def kept(shapes: Path, embedder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated gallery of `shapes`. Copy it before changing it."""
    from resight.search.gallery import Gallery

    folder = tmp_path_factory.mktemp("kept") / "gallery"
    with Gallery.create(folder, embedder, "object") as gallery:
        gallery.add(shapes)
        gallery.calibrate("object")
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(kept, tmp_path / "shop"))


@pytest.fixture(scope="module")
def shared(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for a whole file."""
    return Path(shutil.copytree(kept, tmp_path_factory.mktemp("shared") / "shop"))


@pytest.fixture
def one(shapes: Path) -> bytes:
    """A photo of object 03 that the gallery has."""
    return (shapes / "object 03" / "foto_ä2.png").read_bytes()


@pytest.fixture
def new() -> Callable[[int], bytes]:
    """Photos that the gallery has not, by number."""
    return photo


@pytest.fixture
def served() -> Iterator[Callable[..., tuple[str, subprocess.Popen[str]]]]:
    """Start `resight serve FOLDER WORDS`: its address, and the process."""
    yield from _starting()


@pytest.fixture(scope="module")
def serving() -> Iterator[Callable[..., tuple[str, subprocess.Popen[str]]]]:
    """The same, for all tests of a file."""
    yield from _starting()


def _starting() -> Iterator[Callable[..., tuple[str, subprocess.Popen[str]]]]:
    running: list[subprocess.Popen[str]] = []

    def start(folder: Path, *words: str) -> tuple[str, subprocess.Popen[str]]:
        command = [sys.executable, "-m", "resight.cli.main", "serve", str(folder), "--port", "0"]
        process = subprocess.Popen(
            [*command, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        running.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), address
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                if httpx.get(f"{address}/readyz", timeout=120).status_code == 200:
                    return address, process
            except httpx.HTTPError:
                time.sleep(0.2)
        raise AssertionError("never ready")

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
