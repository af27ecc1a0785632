"""Checkpoints: everything that the next step depends on, written whole or not at all."""

from __future__ import annotations

import pickle
import random
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resight.errors import UserError
from resight.files import atomic_path

# What zipfile and torch raise on broken files.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
)


def random_states() -> dict[str, Any]:
    """The states of all global random generators, as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, pending = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys)), position, has_gauss, gauss],
        "python": [version, list(words), pending],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Undo everything that happened to the generators since `random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    version, words, pending = states["python"]
    random.setstate((version, tuple(words), pending))


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing but tensors and plain values is unpickled.

    Raises UserError when it is absent or damaged.
    """
    anew = "start the run anew (--force)"
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums, and doesn't compare them
            bad = archive.testzip()
        if bad is not None:
            raise UserError(f"{path}: damaged, not what was written ({bad}); {anew}")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no checkpoint yet; {anew}") from None
    except _BROKEN as error:
        if isinstance(error, OSError) and error.filename is not None:  # not to be opened
            raise
        first = (str(error).strip().splitlines() or ["broken"])[0]
        raise UserError(f"{path}: damaged checkpoint ({first}); {anew}") from None
    return content
