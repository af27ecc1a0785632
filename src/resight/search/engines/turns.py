"""One writer at a time, across processes: a locked file that says who has it."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
            where = self._path.parent if self._path is not None else "the gallery in memory"
            raise UserError(
                f"{where}: another thread is writing; waited {self._wait:g} s, try again when it "
                "is done"
            )
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
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{self._path}: can't be written ({error.strerror})") from None
        try:
            self._wait_for(handle)
        except BaseException:
            os.close(handle)
            raise
        with suppress(OSError):  # a full disk is no reason to keep the turn for good
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} ({who})".encode(), 0)
        return handle

    def _wait_for(self, handle: int) -> None:
        assert self._path is not None
        start, told = time.monotonic(), False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                waited = time.monotonic() - start
                if waited > self._wait:
                    raise UserError(
                        f"{self._path.parent}: {self._holder()} is writing; waited {waited:.0f} s, "
                        "try again when it is done"
                    ) from None
                if waited > 1 and not told:
                    print(f"waiting for {self._holder()}", file=sys.stderr)
                    told = True
                time.sleep(0.002 if waited < 0.1 else 0.05)

    def _holder(self) -> str:
        assert self._path is not None
        try:
            return self._path.read_text(errors="replace")[:200] or "another process"
        except OSError:
            return "another process"
