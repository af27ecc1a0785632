"""Benchmarks in the layout that their official files unpack to, one small module each."""

from __future__ import annotations

from resight.data.layouts import market1501
from resight.data.layouts.layout import Layout

# In this order a folder is tried; the first that recognises it reads it.
LAYOUTS: tuple[Layout, ...] = (market1501.LAYOUT,)
