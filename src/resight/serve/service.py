"""The service itself: the gallery, the model, the decoders, and who may use them when."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from resight.data.transforms import Preprocess
from resight.models.export.session import share_cores, threads
from resight.search.elsewhere import NotReady
from resight.search.gallery import Gallery
from resight.search.hits import Hits
from resight.serve.batching import Batcher, Found, Options, Pictures, Query, Vectors
from resight.serve.catalogue import Catalogue
from resight.serve.decoders import Decoded, Decoders
from resight.serve.feedback import Feedback
from resight.serve.keys import Keys
from resight.serve.links import Links
from resight.serve.looks import Looks, not_yet
from resight.serve.metrics import Metrics
from resight.serve.overviews import Overviews
from resight.serve.problems import Problem
from resight.serve.renditions import Renditions
from resight.serve.reports import Reports
from resight.serve.settings import Settings
from resight.serve.sights import Sights
from resight.serve.uploads import Gate, Region
from resight.serve.writing import Writing

log = logging.getLogger("resight.serve")


class Service:
    """One process's part of a service. `open` and `close` in its event loop."""

    gallery: Gallery
    catalogue: Catalogue
    writing: Writing
    feedback: Feedback
    decoders: Decoders
    batcher: Batcher
    overviews: Overviews
    renditions: Renditions
    sights: Sights
    preprocess: Preprocess

    def __init__(self, folder: Path, settings: Settings, keys: Keys) -> None:
        self.folder, self.settings, self.keys = folder, settings, keys
        self.metrics = Metrics()
        self.reports, self.links, self.looks = Reports(settings.reports), Links(), Looks(folder)
        self.gate = Gate(settings.queue, self.metrics.queue.set)
        self.ready = False
        self._generation = 0
        self._writer = ThreadPoolExecutor(1, "writer")

    async def open(self) -> None:
        """Open gallery, embedder and decoders. Raises UserError where one can't be."""
        settings = self.settings
        decoded = self.metrics.decoders.inc
        self.decoders = Decoders(settings.decoders, settings.decode_seconds, decoded)
        starting = asyncio.ensure_future(self.decoders.start())
        try:
            await asyncio.to_thread(self._open)
        finally:
            await starting
        self.renditions = Renditions(self.gallery.engine, self.decoders, settings)
        self.sights = Sights(self.gallery.engine, self.decoders, settings)
        told = self.metrics.batches.observe
        self.batcher = Batcher(self._embed, self._find, settings.batch, settings.wait, told)
        self.ready = True

    def _open(self) -> None:
        share_cores(self.settings.processes)
        settings = self.settings
        self.gallery = Gallery.open(
            self.folder, settings.device, tell=_note, runtime=settings.runtime
        )
        self.gallery.views.elsewhere = self.looks.elsewhere
        self._load()
        self.catalogue = Catalogue(self.gallery)
        self.writing = Writing(self.gallery)
        self.overviews = Overviews(self.folder.absolute(), self.gallery.engine)
        self.feedback = Feedback(self.folder / "feedback", self.settings.feedback)
        self._embed([np.zeros((*self.preprocess.size, 3), np.uint8)])  # the first one is slow
        self.gallery.views.get(self.gallery.level)

    def _load(self) -> None:
        self._generation = int(self.gallery.engine.meta()["generation"])
        self.gallery.forget_embedder()
        network = self.gallery.network()
        if network.runtime == "torch" and self.settings.processes > 1:
            import torch

            torch.set_num_threads(threads())
        self.preprocess = network.preprocess

    async def close(self) -> None:
        """Finish what was accepted, then let go of everything."""
        self.ready = False
        while self.gate.inside:
            await asyncio.sleep(0.01)
        await self.batcher.close()
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self.overviews.close)
        await asyncio.to_thread(self.looks.close)
        await asyncio.to_thread(self.sights.close)
        await self.decoders.close()
        self.gallery.close()
        self.metrics.close()

    # Searching ----------------------------------------------------------------------------

    def until(self) -> float:
        """When a request that comes now must be answered, by the loop's clock."""
        return asyncio.get_running_loop().time() + self.settings.deadline

    async def decode(self, photo: bytes, until: float, region: Region | None = None) -> Decoded:
        """A photo as a picture for the network. Raises Problem."""
        head: dict[str, Any] = {
            "preprocess": self.preprocess.model_dump(mode="json"),
            "region": region,
        }
        head |= {"pixels": self.settings.pixels, "frames": self.settings.frames}
        left = until - asyncio.get_running_loop().time()
        try:
            return await asyncio.wait_for(self.decoders.decode(photo, head), max(0.0, left))
        except TimeoutError:
            raise Problem(504, "no answer in time; try again later") from None

    async def search(
        self, photos: Sequence[bytes], region: Region | None, options: Options, until: float
    ) -> tuple[Found, dict[str, float]]:
        """The hits for photos of one thing, and the seconds of each stage."""
        batcher = self.batcher
        batcher.coming += 1
        try:
            decoded = await asyncio.gather(*(self.decode(p, until, region) for p in photos))
        finally:
            batcher.coming -= 1
            batcher.nudge()
        pictures: Pictures = [one.pixels for one in decoded]
        found = await batcher.ask(Query(options, until, pictures))
        seconds = {"queue": max(one.waited for one in decoded) + found.queue}
        seconds |= {"decode": max(one.seconds for one in decoded)}
        return found, seconds | {"embed": found.embed, "search": found.search}

    def _embed(self, pictures: Pictures) -> Vectors:
        """(N, D) of pictures (H, W, 3), in the model's thread."""
        embedder = self.gallery.network()
        if embedder.runtime == "onnx":
            return embedder.embed_all(pictures)
        import torch

        normalise = embedder.preprocess.normalise
        tensors = [normalise(torch.from_numpy(p.copy()).permute(2, 0, 1)) for p in pictures]
        if len({tensor.shape for tensor in tensors}) == 1:
            return embedder.embed_tensor(torch.stack(tensors)).cpu().numpy()
        return np.concatenate([embedder.embed_tensor(t[None]).cpu().numpy() for t in tensors])

    def _find(
        self, vectors: Vectors, options: Options, exclude: Sequence[str | None]
    ) -> list[Hits]:
        """A search, in its thread."""
        if int(self.gallery.engine.meta()["generation"]) != self._generation:
            self._load()
            raise Problem(
                503, "the gallery was given another embedder; try again", {"Retry-After": "1"}
            )
        try:
            return self.gallery.search_vectors(
                vectors,
                options.k,
                level=options.level,
                where=options.where,
                exclude_cameras=options.exclude_cameras,
                alpha=options.alpha,
                rerank=options.rerank,
                exclude=exclude if any(exclude) else None,
            )
        except NotReady:
            raise not_yet() from None

    # Writing ------------------------------------------------------------------------------

    async def write(self, work: Any, *what: Any) -> Any:
        """Run a change in the writer's thread; durable when it returns."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._written, work, what)

    def _written(self, work: Any, what: tuple[Any, ...]) -> Any:
        if int(self.gallery.engine.meta()["generation"]) != self._generation:
            self._load()
        return work(*what)


def _note(line: str) -> None:
    log.info("gallery", extra={"told": {"note": line, "at": time.time()}})
