"""An undo journal: what slots held at a checkpoint, written down before they are overwritten.

So a store of 10 GB goes back to a checkpoint exactly without ever being copied: the cost is what
was overwritten since. A journal is a file of records of one length, in the order of writing. A
process that dies in the middle of a record leaves a part of one at the end; it is ignored, as its
slot was not yet overwritten. (A machine that loses power may lose more: nothing waits for the
disk here.)
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FILE = re.compile(r"journal-((\d+)-[0-9a-f]+)")
_PART = 2**25  # bytes read back at once


def names(folder: Path) -> list[str]:
    """The checkpoints that `folder` can go back to, from the oldest to the newest."""
    found = [match for path in folder.iterdir() if (match := _FILE.fullmatch(path.name))]
    return [match[1] for match in sorted(found, key=lambda match: int(match[2]))]


def begin(folder: Path) -> str:
    """Start an empty journal after all others; its name was never used before."""
    last = names(folder)[-1:]
    number = int(last[0].partition("-")[0]) + 1 if last else 1
    name = f"{number:08d}-{secrets.token_hex(4)}"
    (folder / f"journal-{name}").touch()
    return name


def remove(folder: Path, name: str) -> None:
    """Delete a journal."""
    (folder / f"journal-{name}").unlink(missing_ok=True)


class Journal:
    """One journal, with the records in it; `record` is their dtype, `slot` a field of it."""

    def __init__(self, folder: Path, name: str, record: np.dtype[Any], slots: int):
        self.path = folder / f"journal-{name}"
        self._record = record
        self._count = self.path.stat().st_size // record.itemsize
        self._has = np.zeros(slots, np.bool_)
        if self._count:  # mapped: of each record only the page with its slot is read
            self._has[np.memmap(self.path, record, "r", shape=self._count)["slot"]] = True

    def lacks(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of different slots (n,) that the journal doesn't hold yet."""
        missing: NDArray[np.int64] = slots[~self._has[slots]]
        return missing

    def append(self, records: NDArray[Any]) -> None:
        """Write records (n,) of the journal's dtype; when this returns, they survive kill -9."""
        end = self._count * self._record.itemsize
        with open(self.path, "r+b") as file:
            file.truncate(end)  # without the part of a record that a dying process left
            file.seek(end)
            file.write(records.tobytes())
        self._count += len(records)
        self._has[records["slot"]] = True

    def parts(self) -> Iterator[NDArray[Any]]:
        """The whole records, (n,) at a time."""
        most = max(1, _PART // self._record.itemsize)
        with open(self.path, "rb") as file:
            for start in range(0, self._count, most):
                yield np.fromfile(file, self._record, min(most, self._count - start))
