"""One writer at a time, across processes: a locked file that says who has it."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resight.errors import UserError


class Turns:
    """Turns at writing. `path` None: within this process only. `wait`: seconds until it gives up.

    The lock is the operating system's: it ends with the process that holds it, however that ends.
    """

    def __init__(self, path: Path | None, wait: float = 60.0):
        self._path, self._wait = path, wait
        self._inside = threading.RLock()
        self._depth = 0

    @contextmanager
    def taken(self, who: str) -> Iterator[None]:
        """Hold the turn; inside itself it does nothing.

        Raises UserError when another writer holds it for longer than we wait.
        """
        if not self._inside.acquire(timeout=self._wait):
            raise UserError(f"{self._path}: another thread has been writing for {self._wait:g} s")
        try:
            if self._depth or self._path is None:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            handle = self._open(who)
            self._depth = 1
            try:
                yield
            finally:
                self._depth = 0
                os.close(handle)  # and with it the lock
        finally:
            self._inside.release()

    def _open(self, who: str) -> int:
        assert self._path is not None
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        start, told = time.monotonic(), False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - start
                if waited > self._wait:
                    holder = self._holder()
                    os.close(handle)
                    raise UserError(
                        f"{self._path.parent}: {holder} is writing; waited {waited:.0f} s, try "
                        "again when it is done"
                    ) from None
                if waited > 1 and not told:
                    print(f"waiting for {self._holder()}", file=sys.stderr)
                    told = True
                time.sleep(0.002 if waited < 0.1 else 0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} ({who})".encode(), 0)
        return handle

    def _holder(self) -> str:
        assert self._path is not None
        try:
            return self._path.read_text(errors="replace")[:200] or "another process"
        except OSError:
            return "another process"
