"""Checksums: what is read is what was written, or the file is named.

A sum is SHA-256 (hex) over the bytes of a file. The JSON that marks a folder keeps those of its
large files under "sums", by file name. Folders of the time before have none: a file without a
sum is taken as it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from resight.errors import UserError


class Summed:
    """An open binary file, as something to write to: all that is written is summed up."""

    def __init__(self, file: IO[bytes]):
        self._file, self._digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        """Write, as the file does."""
        self._digest.update(content)
        return self._file.write(content)

    def passed(self, content: bytes) -> None:
        """Sum up what stands in the file already."""
        self._digest.update(content)

    def sum(self) -> str:
        """The sum of what was written so far."""
        return self._digest.hexdigest()


def file_sum(path: str | Path) -> str:
    """SHA-256 (hex) of a file. Raises OSError when it can't be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums_in(record: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, str]:
    """The sums that the JSON of a folder holds, by file name: of these files, or of all.

    A file that has none, as in folders of older versions, is left out.
    """
    found = record.get("sums") or {}
    return {name: str(found[name]) for name in (found if names is None else names) if name in found}


def differing(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """Those of the named files that are not what was written, or are gone; in order."""

    def wrong(name: str) -> bool:
        try:
            return file_sum(folder / name) != sums[name]
        except OSError:
            return True

    if len(sums) < 2:
        return [name for name in sums if wrong(name)]
    # hashlib lets go of the interpreter's lock.
    with ThreadPoolExecutor(min(8, len(sums), os.cpu_count() or 1)) as pool:
        return [name for name, bad in zip(sums, pool.map(wrong, sums), strict=True) if bad]


def verify(folder: Path, sums: Mapping[str, str], remedy: str) -> None:
    """Raise UserError naming the first file that is not what was written; `remedy` remakes it."""
    bad = differing(folder, sums)
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(
            f"{folder / bad[0]}: damaged, not what was written (its checksum differs){more}; "
            f"{remedy}"
        )
