"""Decoders: a few processes, each with one photo at a time, replaced when one dies or hangs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.serve.beside import environment
from resight.serve.problems import Problem

LENGTH = 4
START_SECONDS = 60.0


@dataclass(frozen=True)
class Decoded:
    """A photo: the picture for the network (H, W, 3) uint8; format and upright size of the whole.
    `seconds`: how long decoding took; `waited`: for a decoder."""

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int
    seconds: float
    waited: float


class _Process:
    """One decoder. Not for two at a time."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "resight.serve.decoder"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,  # Ctrl-C is for the service, which ends it when it is done
        )
        await asyncio.wait_for(self._read(), START_SECONDS)

    async def ask(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        assert self.process is not None and self.process.stdin is not None
        text = json.dumps(head | {"bytes": len(body)}).encode()
        self.process.stdin.write(len(text).to_bytes(LENGTH, "big") + text)
        self.process.stdin.write(body)
        await self.process.stdin.drain()
        return await self._read()

    async def _read(self) -> tuple[dict[str, Any], bytes]:
        assert self.process is not None and self.process.stdout is not None
        out = self.process.stdout
        length = int.from_bytes(await out.readexactly(LENGTH), "big")
        head = json.loads(await out.readexactly(length))
        return head, await out.readexactly(head["bytes"])

    async def kill(self) -> None:
        if self.process is None:
            return
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()
        self.process = None


class Decoders:
    """`count` decoders; `seconds`: what a photo may take."""

    def __init__(
        self, count: int, seconds: float, replaced: Callable[[], None] = lambda: None
    ) -> None:
        self._seconds, self._replaced = seconds, replaced
        self._all = [_Process() for _ in range(count)]
        self._idle: asyncio.LifoQueue[_Process] = asyncio.LifoQueue()
        self._starting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """Start all of them."""
        await asyncio.gather(*(one.start() for one in self._all))
        for one in self._all:
            self._idle.put_nowait(one)

    async def close(self) -> None:
        """End all of them."""
        self._closed = True
        for task in list(self._starting):
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*(one.kill() for one in self._all))

    def pids(self) -> list[int]:
        """Of those that live."""
        return [one.process.pid for one in self._all if one.process is not None]

    async def decode(self, photo: bytes, head: dict[str, Any]) -> Decoded:
        """Decode a photo. Raises Problem: 415 no image, 422 one that can't be used."""
        answer, body, seconds, waited = await self._asked(photo, head)
        height, width = answer["shape"]
        pixels = np.frombuffer(body, np.uint8).reshape(height, width, 3)
        return Decoded(pixels, answer["format"], answer["width"], answer["height"], seconds, waited)

    async def picture(self, photo: bytes, head: dict[str, Any]) -> bytes:
        """A smaller JPEG of a photo, of "side" pixels. Raises Problem as `decode` does."""
        return (await self._asked(photo, head))[1]

    async def look(self, photo: bytes, head: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """What there is to see in a photo, by the "look" of the head. Raises Problem likewise."""
        return (await self._asked(photo, head))[:2]

    async def _asked(
        self, photo: bytes, head: dict[str, Any]
    ) -> tuple[dict[str, Any], bytes, float, float]:
        """A decoder's answer, the seconds that it took, and that it was waited for."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for last in (False, True):  # one that died while it had nothing to do is no fault of ours
            one = await self._idle.get()
            started = loop.time()
            try:
                answer, body = await asyncio.wait_for(one.ask(head, photo), self._seconds)
                break
            except TimeoutError:
                await one.kill()
                detail = f"photo: takes longer than {self._seconds:g} s to decode"
                raise Problem(422, detail) from None
            except (asyncio.IncompleteReadError, OSError, ValueError):
                await one.kill()
                if last:
                    raise Problem(422, "photo: can't be decoded") from None
            except asyncio.CancelledError:  # its answer would be taken for the next one's
                await one.kill()
                raise
            finally:
                self._back(one)
        if "error" in answer:
            status = 415 if answer["unknown"] else 422
            raise Problem(status, f"photo: {answer['error']}")
        return answer, body, loop.time() - started, started - begun

    def _back(self, one: _Process) -> None:
        if one.process is not None:
            self._idle.put_nowait(one)
            return
        self._replaced()
        task = asyncio.get_running_loop().create_task(self._anew(one))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _anew(self, one: _Process) -> None:
        while not self._closed:
            try:
                await one.start()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                await one.kill()
                await asyncio.sleep(1)
                continue
            self._idle.put_nowait(one)
            return
