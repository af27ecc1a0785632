"""Spatial verification of hits: pictures are seen by the decoders, and compared in a thread.

Whatever opens a file of a stranger is one of the decoders; here are points and descriptors only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from resight.graph.rerank import Spatial
from resight.search.engines.contract import Engine, Row
from resight.search.hits import Hits
from resight.search.verifying import KEPT, Seen, verified
from resight.serve.decoders import Decoders
from resight.serve.problems import Problem
from resight.serve.renditions import photo_of
from resight.serve.settings import Settings
from resight.serve.uploads import Region
from resight.spatial.local import LocalFeatures

Head = dict[str, Any]


def unpacked(head: Head, body: bytes) -> Seen:
    """What a decoder saw (`decoder.answer` with "look")."""
    n, wide = head["points"], head["dim"]
    points = np.frombuffer(body, np.float32, 2 * n).reshape(n, 2)
    described = np.frombuffer(body, np.uint8, n * wide, offset=points.nbytes).reshape(n, wide)
    features = LocalFeatures(points, described, tuple(head["size"]))
    return Seen(features, np.array(head["scale"]), np.array(head["start"]))


class Sights:
    """Sees photos, and remembers those of the gallery."""

    def __init__(self, engine: Engine, decoders: Decoders, settings: Settings) -> None:
        self._engine, self._decoders, self._settings = engine, decoders, settings
        self._kept: OrderedDict[tuple[Any, ...], Seen | None] = OrderedDict()
        self._compare = ThreadPoolExecutor(1, "compare")

    async def verified(
        self,
        hits: Hits,
        photos: Sequence[bytes],
        region: Region | None,
        step: Spatial,
        k: int,
        until: float,
    ) -> Hits:
        """See `resight.search.verifying.verified`. Raises Problem 504 at `until` (loop's clock)."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(until):
                asked = [await self._see(photo, region, step) for photo in photos]
                ids = [hit.image for hit in hits.hits[: step.top]]
                rows = {row.id: row for row in await asyncio.to_thread(self._engine.rows, ids)}
                shown = await asyncio.gather(*(self._known(rows.get(id_), step) for id_ in ids))
                return await loop.run_in_executor(
                    self._compare, verified, hits, asked, shown, step, k
                )
        except TimeoutError:
            raise Problem(504, "no answer in time; try again later") from None

    async def photo(self, image: int) -> bytes:
        """The photo of an image of the gallery. Raises Problem where it is gone."""
        rows = await asyncio.to_thread(self._engine.rows, [image])
        found = await self._photo(rows[0]) if rows else None
        if found is None:
            raise Problem(422, f"rerank: spatial needs the photo of image {image}, which is gone")
        return found

    async def _photo(self, row: Row) -> bytes | None:
        return await asyncio.to_thread(photo_of, self._engine, row, self._settings.bytes)

    async def _see(self, photo: bytes, region: Region | None, step: Spatial) -> Seen:
        head: Head = {"look": step.options().model_dump(), "region": region}
        head |= {"pixels": self._settings.pixels, "frames": self._settings.frames}
        return unpacked(*await self._decoders.look(photo, head))

    async def _known(self, row: Row | None, step: Spatial) -> Seen | None:
        """Of an image of the gallery; None where it is gone, or not what it was."""
        if row is None:
            return None
        box = row.place.box if row.place is not None else None
        key = row.id, row.content, box, step.options()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        photo = await self._photo(row)
        try:
            seen = await self._see(photo, box, step) if photo is not None else None
        except Problem:  # damaged since, or too large for the service
            seen = None
        self._kept[key] = seen
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return seen

    def close(self) -> None:
        """Wait for what is being compared."""
        self._compare.shutdown()
