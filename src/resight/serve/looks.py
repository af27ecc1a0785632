"""Second looks at neighbourhoods: when a service gives them.

Their loops are compiled where they never ran before, which takes seconds: apart from searching, so
that other searches do not wait.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import numpy as np

from resight.graph.rerank import parse as parse_chain
from resight.serve.problems import Problem

# Beyond so many vectors a look takes too long to be made ready after a change.
RERANKED = 5_000
NAMES = ("kreciprocal", "diffusion")


class Looks:
    """The loops of second looks, compiled once in a thread of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._compiled: Future[None] | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> Future[None]:
        """Start, unless that was done before."""
        with self._lock:
            if self._compiled is None:
                self._compiled = Future()
                self._thread = threading.Thread(target=self._work, name="looks", daemon=True)
                self._thread.start()
            return self._compiled

    def _work(self) -> None:
        from resight.graph.second import rerank

        assert self._compiled is not None
        try:
            rows = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
            for name in NAMES:
                rerank(rows[:2], rows, name, k=5)
        finally:  # what failed here fails in a search, and is told there
            self._compiled.set_result(None)

    async def check(self, rerank: str, vectors: int, seconds: float) -> None:
        """Let a search of so many vectors pass once its chain can be had.

        Raises Problem where it can't, or after so many seconds.
        """
        if parse_chain(rerank).look is None:
            return
        if vectors > RERANKED:
            raise Problem(
                422, f"rerank: this gallery has more than {RERANKED:,} vectors; aqe goes with any"
            )
        try:
            done = asyncio.shield(asyncio.wrap_future(self.begin()))
            await asyncio.wait_for(done, max(0.0, seconds))
        except TimeoutError:
            raise Problem(
                503, "rerank: this is made ready; try again in a moment", {"Retry-After": "5"}
            ) from None

    def close(self) -> None:
        """Wait for the thread: nothing is compiled while the process ends."""
        if self._thread is not None:
            self._thread.join()
