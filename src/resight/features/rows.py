"""What features must offer to whoever reads them block by block."""

from __future__ import annotations

from typing import Any, Protocol


class Rows(Protocol):
    """Features (N, D): an array, a memory map, a sharded array of our own; slices give arrays."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> Any: ...
