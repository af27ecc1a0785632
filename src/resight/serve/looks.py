"""Second looks at neighbourhoods: when a service gives them.

Nobody who searches plainly waits for them. Their loops are compiled in a thread of their own where
they never ran before; what they need of a large gallery is made by a process beside the service.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from resight.graph.rerank import Chain, Diffusion
from resight.graph.rerank import parse as parse_chain
from resight.search.elsewhere import Elsewhere
from resight.serve.beside import Beside
from resight.serve.problems import Problem

# Vectors up to which any look is made ready within a search; and up to which diffusion goes, which
# bears changes beside what was made ready.
RERANKED, DIFFUSED = 5_000, 100_000
NAMES = ("kreciprocal", "diffusion")


class Looks:
    """The second looks of a gallery in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._lock = threading.Lock()
        self._compiled: Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._beside = Beside("second look", "resight.search.made_ready", rest=1.0)

    @property
    def elsewhere(self) -> Elsewhere:
        """For the gallery's views: whom to ask."""
        return Elsewhere(RERANKED, self._make)

    def begin(self) -> Future[None]:
        """Compile, unless that was begun before."""
        with self._lock:
            if self._compiled is None:
                self._compiled = Future()
                self._thread = threading.Thread(target=self._compile, name="looks", daemon=True)
                self._thread.start()
            return self._compiled

    def _compile(self) -> None:
        from resight.graph.second import rerank

        assert self._compiled is not None
        try:
            rows = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
            for name in NAMES:
                rerank(rows[:2], rows, name, k=5)
        finally:  # what failed here fails in a search, and is told there
            self._compiled.set_result(None)

    def _make(self, view: str, chain: Chain) -> None:
        """Have a chain made ready over a view, where that is not under way."""
        with self._lock:
            self._beside.start([str(self._folder), view, chain.derived])

    @staticmethod
    def offered(vectors: int) -> list[str]:
        """The names of those that go with so many vectors."""
        return [name for name in NAMES if vectors <= (RERANKED, DIFFUSED)[name == "diffusion"]]

    async def check(self, rerank: str, vectors: int, cameras: bool, seconds: float) -> None:
        """Let a search of so many vectors pass once its chain can be had; `cameras`: some left out.

        Raises Problem where it can't, or after so many seconds.
        """
        chain = parse_chain(rerank)
        if chain.look is None:
            return
        if vectors > RERANKED:
            plain = str(Diffusion())  # a graph for each of its parameters would be too much
            if vectors > DIFFUSED or chain.derived != plain or cameras:
                what = f"aqe and {plain}" if vectors <= DIFFUSED else "aqe"
                raise Problem(
                    422,
                    f"rerank: with {vectors:,} vectors a service takes {what}, "
                    "and no cameras left out",
                )
        try:
            done = asyncio.shield(asyncio.wrap_future(self.begin()))
            await asyncio.wait_for(done, max(0.0, seconds))
        except TimeoutError:
            raise not_yet() from None

    def close(self) -> None:
        """Wait for the thread: nothing is compiled while the process ends; end the process."""
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._beside.close()


def not_yet() -> Problem:
    """503."""
    said = "rerank: this second look is being made ready; try again in a moment"
    return Problem(503, said, {"Retry-After": "5"})
