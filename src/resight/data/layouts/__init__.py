"""Benchmarks in the layout that their official files unpack to, one small module each."""

from __future__ import annotations

from resight.data.layouts import (
    deepfashion,
    dukemtmc,
    gldv2,
    ijbc,
    inat2018,
    instre,
    market1501,
    revisitop,
    sop,
    street2shop,
    vehicleid,
    veri,
    vggface2,
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
    revisitop.ROXFORD5K,
    revisitop.RPARIS6K,
    gldv2.LAYOUT,
    instre.LAYOUT,
    inat2018.LAYOUT,
    vggface2.LAYOUT,
    ijbc.LAYOUT,
)
