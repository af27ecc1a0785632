"""Larger pictures than thumbnails, made from the photos where they still are."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from resight.search.engines.contract import Engine, Row
from resight.search.incoming import full_path
from resight.serve.decoders import Decoders
from resight.serve.problems import Problem
from resight.serve.settings import Settings

SIDE = 480  # pixels of the longer side
ROOM = 64 * 2**20  # bytes of pictures that are kept
_WAITING = 64  # pictures being made or waited for; beyond, small ones do
Key = tuple[int, str | None, Any]


def photo_of(engine: Engine, row: Row, largest: int) -> bytes | None:
    """The file of an image; None where it is gone, too large, another one, or not below its root.

    A link in a root that leads out of it is not followed: what is served is what the gallery was
    given, and nothing else of the machine.
    """
    roots = {root.id: root for root in engine.roots()}
    root = roots.get(row.place.root) if row.place is not None else None
    if root is None:
        return None
    try:
        top, path = Path(root.path).resolve(strict=True), Path(full_path(row, roots))
        path = path.resolve(strict=True)
        if not path.is_relative_to(top) or not path.is_file():
            return None
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > largest or row.bytes not in (None, size):
                return None
            return file.read(largest)
    except (OSError, ValueError, RuntimeError):
        return None


class Renditions:
    """Makes them, one at a time, so that searches have the other decoders; keeps the last ones."""

    def __init__(self, engine: Engine, decoders: Decoders, settings: Settings) -> None:
        self._engine, self._decoders, self._settings = engine, decoders, settings
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._bytes = 0
        self._one = asyncio.Semaphore(max(1, settings.decoders // 2))
        self._waiting = 0

    async def get(self, row: Row) -> bytes | None:
        """A JPEG of `SIDE` pixels; None where there can't be one now: the thumbnail must do."""
        key = row.id, row.content, row.place.box if row.place is not None else None
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if self._waiting >= _WAITING:
            return None
        self._waiting += 1
        try:
            async with self._one:
                return self._kept.get(key) or await self._made(row, key)
        finally:
            self._waiting -= 1

    async def _made(self, row: Row, key: Key) -> bytes | None:
        largest = self._settings.bytes
        photo = await asyncio.to_thread(photo_of, self._engine, row, largest)
        if photo is None:
            return None
        head: dict[str, Any] = {"side": SIDE, "region": key[2]}
        head |= {"pixels": self._settings.pixels, "frames": self._settings.frames}
        try:
            jpeg = await self._decoders.picture(photo, head)
        except Problem:  # damaged since, or too large for the service: no fault of who asks
            return None
        self._kept[key] = jpeg
        self._bytes += len(jpeg)
        while self._bytes > ROOM:
            self._bytes -= len(self._kept.popitem(last=False)[1])
        return jpeg
