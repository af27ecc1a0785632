"""Loops that are compiled on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiled on first use without the interpreter's lock, and kept on disk where it can be."""
    try:
        return numba.njit(function, cache=True, nogil=True, **options)  # type: ignore[no-any-return]
    except RuntimeError:  # nowhere to keep it
        return numba.njit(function, nogil=True, **options)  # type: ignore[no-any-return]
