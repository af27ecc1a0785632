"""Benchmarks in the layout that their official files unpack to, one small module each."""

from __future__ import annotations

from resight.data.layouts import (
    deepfashion,
    dukemtmc,
    market1501,
    sop,
    street2shop,
    vehicleid,
    veri,
)
from resight.data.layouts.layout import Layout

# In this order a folder is tried; the first that recognises it reads it.
LAYOUTS: tuple[Layout, ...] = (
    market1501.LAYOUT,
    dukemtmc.LAYOUT,
    deepfashion.LAYOUT,
    street2shop.LAYOUT,
    sop.LAYOUT,
    vehicleid.LAYOUT,
    veri.LAYOUT,
)
