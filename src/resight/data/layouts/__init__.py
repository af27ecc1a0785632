"""Benchmarks in the layout that their official files unpack to, one small module each."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import polars as pl

from resight.data.layouts import market1501


class Layout(Protocol):
    """What a layout module offers."""

    def recognise(self, folder: Path) -> bool:
        """Whether `folder` looks like this benchmark."""

    def read(self, folder: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """The table of its images (paths relative to `folder`), and notes about it."""


LAYOUTS: tuple[Layout, ...] = (market1501,)
