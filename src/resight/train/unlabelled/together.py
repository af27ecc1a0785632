"""Several processes: one of them makes the files, the others wait until they are there.

A collective call gives up after some minutes; embedding a million images takes hours. So the
others look for a file, which all processes can see, as they do the run's folder.
"""

from __future__ import annotations

import time
from pathlib import Path

from accelerate import PartialState

_SECONDS = 0.2


def main() -> bool:
    """Whether this is the only process, or the one of several that makes the files."""
    return bool(PartialState().is_main_process)


def wait_for(path: Path) -> None:
    """Come back when the file is there."""
    while not path.is_file():
        time.sleep(_SECONDS)


def own_folder(name: str) -> str:
    """The name of a folder that each process has for itself: of the main one as it is."""
    rank = int(PartialState().process_index)
    return f"{name}-{rank}" if rank else name
