"""The model's queue: photos of all clients go through it together.

decoded ──▶ waiting ──▶ a batch through the model ──▶ searched, those that ask alike together

The model has a thread of its own, searching another, so that one batch is searched while the next
is embedded. A batch waits for others only where some are on their way (`coming`), and never longer
than `wait`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from resight.search.centroids import joined
from resight.search.hits import Hits
from resight.serve.problems import Problem

Pictures = list[NDArray[np.uint8]]
Vectors = NDArray[np.float32]
Embed = Callable[[Pictures], Vectors]
Find = Callable[[Vectors, "Options", Sequence[str | None]], list[Hits]]


@dataclass(frozen=True)
class Options:
    """What is asked beside the photo; queries that agree in it are searched together."""

    k: int
    level: str
    where: str | None = None
    exclude_cameras: tuple[str, ...] = ()
    alpha: float | None = None
    rerank: str = "none"


@dataclass
class Query:
    """Pictures of one thing (H, W, 3), or its vector (D,); answered by `until` (loop's clock).

    `exclude`: the path of an image that is no answer.
    """

    options: Options
    until: float
    pictures: Pictures = field(default_factory=list)
    vector: Vectors | None = None
    exclude: str | None = None


@dataclass
class Found:
    """Hits, and the seconds that its batch waited, was embedded and searched."""

    hits: Hits
    queue: float = 0.0
    embed: float = 0.0
    search: float = 0.0


@dataclass
class _Item:
    query: Query
    answer: asyncio.Future[Found]
    arrived: float
    queue: float = 0.0
    embed: float = 0.0


class Batcher:
    """See above. `embed`: pictures -> (N, D), in the model's thread; `find`: a search, in its."""

    def __init__(
        self, embed: Embed, find: Find, size: int, wait: float, told: Callable[[int], None]
    ) -> None:
        self._embed, self._find, self._told = embed, find, told
        self._size, self._wait = size, wait
        self.coming = 0  # photos that are being decoded
        self._open = 0  # queries without an answer
        self._items: deque[_Item] = deque()
        self._more = asyncio.Event()
        self._model = ThreadPoolExecutor(1, "model")
        self._search = ThreadPoolExecutor(1, "search")
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._server = self._loop.create_task(self._serve())

    async def ask(self, query: Query) -> Found:
        """The answer. Raises Problem 504 after its time, UserError for what can't be searched."""
        item = _Item(query, self._loop.create_future(), self._loop.time())
        if query.vector is not None:
            self._start_search([item], query.vector[None])
        else:
            self._items.append(item)
            self._more.set()
        self._open += 1
        try:
            return await asyncio.wait_for(item.answer, max(0.0, query.until - self._loop.time()))
        except TimeoutError:
            raise Problem(504, "no answer in time; try again later") from None
        finally:
            self._open -= 1

    def nudge(self) -> None:
        """Look again whether anyone is on his way."""
        self._more.set()

    async def close(self) -> None:
        """Finish what was asked, then end the threads."""
        while self._open or self._items or self._tasks:
            await asyncio.sleep(0.01)
        self._server.cancel()
        await asyncio.gather(self._server, return_exceptions=True)
        self._model.shutdown()
        self._search.shutdown()

    async def _serve(self) -> None:
        while True:
            batch = await self._next()
            if not batch:
                continue
            started = self._loop.time()
            pictures = [picture for item in batch for picture in item.query.pictures]
            self._told(len(pictures))
            try:
                vectors = await self._loop.run_in_executor(self._model, self._embed, pictures)
                things = joined(vectors, [len(item.query.pictures) for item in batch])
            except Exception as error:
                _fail(batch, error)
                continue
            ended = self._loop.time()
            for item in batch:
                item.queue, item.embed = started - item.arrived, ended - started
            self._start_search(batch, things)

    async def _next(self) -> list[_Item]:
        """The next batch, without those that are too late."""
        while not self._items:
            self._more.clear()
            await self._more.wait()
        latest = self._loop.time() + self._wait
        while self.coming > 0 and sum(len(i.query.pictures) for i in self._items) < self._size:
            left = latest - self._loop.time()
            if left <= 0:
                break
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), left)
            except TimeoutError:
                break
        batch: list[_Item] = []
        photos, now = 0, self._loop.time()
        while self._items:
            more = len(self._items[0].query.pictures)
            if batch and photos + more > self._size:
                break
            item = self._items.popleft()
            if not item.answer.done() and item.query.until > now:
                batch.append(item)
                photos += more
        return batch

    def _start_search(self, batch: list[_Item], vectors: Vectors) -> None:
        task = self._loop.create_task(self._searched(batch, vectors))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _searched(self, batch: list[_Item], vectors: Vectors) -> None:
        groups: dict[Options, list[int]] = {}
        for at, item in enumerate(batch):
            groups.setdefault(item.query.options, []).append(at)
        for options, rows in groups.items():
            items = [batch[at] for at in rows]
            exclude = [item.query.exclude for item in items]
            started = self._loop.time()
            try:
                found = await self._loop.run_in_executor(
                    self._search, self._find, vectors[rows], options, exclude
                )
            except Exception as error:
                _fail(items, error)
                continue
            seconds = self._loop.time() - started
            for item, hits in zip(items, found, strict=True):
                if not item.answer.done():
                    item.answer.set_result(Found(hits, item.queue, item.embed, seconds))


def _fail(items: list[_Item], error: Exception) -> None:
    for item in items:
        if not item.answer.done():
            item.answer.set_exception(error)
