"""`resight serve` as it is run: stopped, killed, several processes, and by its client."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from resight.client import Client, ServiceError
from resight.search.check import FAULT, check
from resight.search.gallery import Gallery
from service import photo


def test_the_client(folder: Path, served: Callable[..., Any], one: bytes, shapes: Path) -> None:
    address, process = served(folder)
    with Client(address) as client:
        assert client.gallery()["images"] == 60
        assert client.search(one, k=2)["hits"][0]["object"] == "object 03"
        several = client.search(sorted((shapes / "object 04").iterdir()), exclude_cameras=["c1"])
        assert several["hits"][0]["object"] == "object 04"
        assert client.search(image=1, level="image")["hits"][0]["object"] == "object 00"
        assert client.search(object="object 01", where="object != 'object 02'")["hits"]
        assert client.search(one, region=(0, 0, 40, 40))["hits"]
        made = client.add(photo(1), "a/b", columns={"n": 1})
        assert client.move(made["image"], "mug")["object"] == "mug"
        assert [one["object"] for one in client.objects("mug")] == ["mug"]
        assert [one["image"] for one in client.images_of("mug")] == [made["image"]]
        assert len(list(client.images(limit=7))) == 61
        assert client.thumbnail(made["image"])[:2] == b"\xff\xd8"
        number = client.feedback(1, True, photo=photo(2))
        client.take_back(number)
        client.remove(made["image"])
        with pytest.raises(ServiceError, match="404") as told:
            client.image(made["image"])
        assert told.value.request
    # Stopped while it works: what was accepted is answered.
    got: list[int] = []

    def ask() -> None:
        got.append(httpx.post(f"{address}/v1/search", files={"photo": one}, timeout=60).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while "resight_queue_length 0.0" in httpx.get(f"{address}/metrics", timeout=60).text:
        if got:
            break
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert process.wait(60) in (0, -signal.SIGTERM, 143)
    assert got and set(got) == {200}


def test_two_processes_write(folder: Path, served: Callable[..., Any]) -> None:
    address, process = served(folder, "--processes", "2")
    made: list[int] = []

    def add(part: int) -> None:
        with Client(address) as client:
            for number in range(6):
                made.append(client.add(photo(100 * part + number), f"new {part}")["image"])

    threads = [threading.Thread(target=add, args=(part,)) for part in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 24
    with Client(address) as client:
        for part in range(1, 5):
            assert len(list(client.images_of(f"new {part}"))) == 6
            first = client.search(photo(100 * part), level="image")["hits"][0]
            assert first["object"] == f"new {part}"
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    with Gallery.open(folder) as gallery:
        assert not [found for found in check(gallery) if found.kind == FAULT]
        assert len(gallery.engine.ids()) == 84


def test_killed_while_adding(folder: Path, served: Callable[..., Any]) -> None:
    address, process = served(folder)
    kept: list[tuple[int, int]] = []
    stop = threading.Event()

    def add(part: int) -> None:
        with Client(address) as client:
            for number in range(10_000):
                if stop.is_set():
                    return
                try:
                    kept.append(
                        (
                            1000 * part + number,
                            client.add(photo(1000 * part + number), f"n {part}")["image"],
                        )
                    )
                except (httpx.HTTPError, ServiceError):
                    return

    threads = [threading.Thread(target=add, args=(part,)) for part in range(1, 4)]
    for thread in threads:
        thread.start()
    while len(kept) < 12:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join()
    time.sleep(0.5)
    with Gallery.open(folder) as gallery:
        rows = {row.id: row for row in gallery.engine.rows(gallery.engine.ids())}
        for number, image in kept:
            assert rows[image].object == f"n {number // 1000}"
            found = gallery.search(photo(number), k=1, level="image")[0][0]
            assert found.image == image and found.similarity > 0.9999
            assert Path(found.path).read_bytes() == photo(number)
