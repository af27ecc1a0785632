"""The model's queue: together, in order, in time, and never more than fits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resight.errors import UserError
from resight.search.centroids import joined
from resight.search.hits import Hit, Hits
from resight.serve.batching import Batcher, Options, Query
from resight.serve.problems import Problem
from service import client_of, is_problem, photo, send

OPTIONS = Options(3, "image")


class Model:
    """Counts batches; a picture's vector is its first pixel."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.batches = seconds, list[int]()
        self.asked: list[tuple[int, Options]] = []

    def embed(self, pictures: Any) -> Any:
        self.batches.append(len(pictures))
        time.sleep(self.seconds)
        return np.array([[p[0, 0, 0], 1] for p in pictures], np.float32)

    def find(self, vectors: Any, options: Options, exclude: Any) -> list[Hits]:
        self.asked.append((len(vectors), options))
        if options.where == "wrong":
            raise UserError("a wrong filter")
        return [Hits((Hit(1, str(int(v[0])), 1.0, "", None, 1),)) for v in vectors]


def query(number: int, until: float, **how: Any) -> Query:
    return Query(Options(3, "image", **how), until, [np.full((2, 2, 3), number, np.uint8)])


def run(
    model: Model, work: Callable[[Batcher, float], Coroutine[Any, Any, Any]], wait: float = 0.0
) -> Any:
    async def go() -> Any:
        batcher = Batcher(model.embed, model.find, 8, wait, lambda n: None)
        try:
            return await work(batcher, asyncio.get_running_loop().time() + 30)
        finally:
            await batcher.close()

    return asyncio.run(go())


def test_each_gets_its_own_answer() -> None:
    async def work(batcher: Batcher, until: float) -> Any:
        return await asyncio.gather(*(batcher.ask(query(n, until)) for n in range(50)))

    model = Model(0.01)
    found = run(model, work)
    assert [one.hits[0].object for one in found] == [str(n) for n in range(50)]
    assert sum(model.batches) == 50 and max(model.batches) <= 8 and len(model.batches) <= 9


def test_one_alone_waits_for_nobody() -> None:
    async def work(batcher: Batcher, until: float) -> float:
        started = time.monotonic()
        await batcher.ask(query(1, until))
        return time.monotonic() - started

    assert run(Model(), work, wait=5.0) < 4


def test_waits_for_those_on_their_way() -> None:
    async def work(batcher: Batcher, until: float) -> None:
        batcher.coming = 1
        first = asyncio.ensure_future(batcher.ask(query(1, until)))
        await asyncio.sleep(0.05)
        batcher.coming = 0
        await asyncio.gather(first, batcher.ask(query(2, until)))

    model = Model()
    run(model, work, wait=20.0)
    assert model.batches == [2]


def test_a_mistake_of_one_is_not_the_others() -> None:
    async def work(batcher: Batcher, until: float) -> Any:
        asked = [query(1, until), query(2, until, where="wrong"), query(3, until)]
        return await asyncio.gather(*map(batcher.ask, asked), return_exceptions=True)

    found = run(Model(), work)
    assert isinstance(found[1], UserError)
    assert [found[at].hits[0].object for at in (0, 2)] == ["1", "3"]


def test_what_is_too_late_is_not_embedded() -> None:
    async def work(batcher: Batcher, until: float) -> Any:
        now = asyncio.get_running_loop().time()
        slow = asyncio.ensure_future(batcher.ask(query(1, until)))
        await asyncio.sleep(0.02)
        with pytest.raises(Problem) as told:
            await batcher.ask(query(2, now + 0.1))
        assert told.value.status_code == 504
        await slow

    model = Model(0.5)
    run(model, work)
    assert model.batches == [1]


def test_closing_finishes_what_was_asked() -> None:
    async def work() -> Any:
        model = Model(0.05)
        batcher = Batcher(model.embed, model.find, 2, 0.0, lambda n: None)
        until = asyncio.get_running_loop().time() + 30
        asked = [asyncio.ensure_future(batcher.ask(query(n, until))) for n in range(7)]
        await asyncio.sleep(0)
        await batcher.close()
        return [one.result().hits[0].object for one in asked]

    assert asyncio.run(work()) == [str(n) for n in range(7)]


def test_together_is_the_centroid() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    found = joined(rows, [1, 3])
    for one, part in zip(found, (rows[:1], rows[1:]), strict=True):
        mean = part.astype(np.float64).sum(0)
        assert np.allclose(one, mean / np.linalg.norm(mean), atol=1e-6)


def _slowly(client: Any, seconds: float) -> None:
    service = client.app.state.service
    whole = service.batcher._embed

    def slow(pictures: Any) -> Any:
        time.sleep(seconds)
        return whole(pictures)

    service.batcher._embed = slow


def test_a_full_queue_says_when_to_come_again(folder: Path) -> None:
    with client_of(folder, queue=2, batch=1) as client:
        _slowly(client, 1.0)
        got: list[Any] = []
        threads = [
            threading.Thread(target=lambda n=n: got.append(send(client, photo(n))))
            for n in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = sorted(one.status_code for one in got)
        assert codes == [200, 200, 429, 429, 429, 429]
        for one in got:
            if one.status_code == 429:
                assert is_problem(one, 429) and int(one.headers["retry-after"]) >= 1
        assert send(client, photo(1)).status_code == 200
        assert 'resight_rejected_total{reason="busy"} 4.0' in client.get("/metrics").text


def test_a_deadline(folder: Path) -> None:
    with client_of(folder, deadline=2.0) as client:
        assert send(client, photo(1)).status_code == 200
        _slowly(client, 4.0)
        assert is_problem(send(client, photo(1)), 504)
