"""Files that are either whole or absent: write beside, flush to disk, rename."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from resight.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; it becomes `path` on success and vanishes on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        if error.filename is None or Path(str(error.filename)) == temporary:
            error.filename = str(path)  # the name that the user knows
        raise
    except Exception:
        # Libraries that write by themselves have errors of their own for a full disk.
        if shutil.disk_usage(path.parent).free < 2**20:
            raise OSError(errno.ENOSPC, "no space left on the disk", str(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_open(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes `path` when the block ends without an error."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with atomic_open(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path`, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON to `path`, whole or not at all; NaN becomes null."""
    write_text(path, json.dumps(strict_json(content), indent=2, ensure_ascii=False) + "\n")


def strict_json(content: Any) -> Any:
    """The same with null for NaN and infinities, which JSON doesn't have."""
    if isinstance(content, dict):
        return {key: strict_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [strict_json(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; `what` names it in the error.

    Raises UserError when the file is absent or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {what} was expected here") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {what} was expected here") from None


def check_folder(path: Path, what: str, *, mark: str, force: bool = False) -> None:
    """Check that `path` can take new output: absent, empty, or (with `force`) ours to replace.

    `mark` is a file that only our own output of this kind holds. Raises UserError otherwise.
    """
    if path.is_file():
        raise UserError(f"{path}: is a file; {what} needs a folder")
    if not _holds_something(path):
        return
    if not (path / mark).is_file():
        raise UserError(f"{path}: holds other files; give an empty or new folder for {what}")
    if not force:
        raise UserError(f"{path}: already holds {what}; give another --out, or --force to replace")


def fresh_folder(path: Path, what: str, *, mark: str, force: bool = False) -> None:
    """`check_folder`, then remove what `force` allows to replace: never anything else."""
    check_folder(path, what, mark=mark, force=force)
    if _holds_something(path):  # an empty one may be a mounted disk
        shutil.rmtree(path)


def _holds_something(path: Path) -> bool:
    """Whether there are files that are more than what a killed `atomic_path` left."""
    return path.exists() and any(
        not (entry.name.startswith(".") and entry.name.endswith(".part"))
        for entry in path.iterdir()
    )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
