"""The overview of a gallery, made by another process while searches go on."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from resight.search.cache import FOLDER
from resight.search.engines.contract import Engine
from resight.search.overview import FILE, Overview, identity, load
from resight.serve.keys import VARIABLE
from resight.serve.links import SECRET

log = logging.getLogger("resight.serve")
# Between two of them, as many times what the last took; at least; and after a failure. Seconds.
_REST, _LEAST_REST, _AFTER_FAILURE = 5.0, 2.0, 60.0
_SECRETS = (VARIABLE, SECRET)


def environment() -> dict[str, str]:
    """Ours, without what other processes need not know."""
    return {name: value for name, value in os.environ.items() if name not in _SECRETS}


class Overviews:
    """The overview of the gallery in `folder`, kept up to date by what is asked of it."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._folder, self._engine = folder, engine
        self._lock = threading.Lock()
        self._kept: tuple[int, Overview] | None = None  # the file's time, and what it holds
        self._process: subprocess.Popen[bytes] | None = None
        self._begun, self._next = 0.0, 0.0

    def get(self) -> tuple[Overview | None, bool]:
        """What there is, perhaps of the gallery as it was; and whether a newer one is made."""
        with self._lock:
            meta = self._engine.meta()
            found = self._load(identity(meta))
            running = self._running()
            if not running and (found is None or found.told["version"] != meta["version"]):
                running = self._start()
            return found, running

    def _load(self, of: dict[str, object]) -> Overview | None:
        try:
            when = (self._folder / FOLDER / FILE).stat().st_mtime_ns
        except OSError:
            return None
        if self._kept is None or self._kept[0] != when:
            found = load(self._folder, of)
            self._kept = (when, found) if found is not None else None
        if self._kept is None or any(self._kept[1].told.get(k) != v for k, v in of.items()):
            return None
        return self._kept[1]

    def _running(self) -> bool:
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            return True
        took = time.monotonic() - self._begun
        self._next = time.monotonic() + max(_LEAST_REST, _REST * took)
        if code:
            assert self._process.stderr is not None
            text = self._process.stderr.read(2000).decode(errors="replace")
            log.error("overview", extra={"told": {"error": text[-500:], "code": code}})
            self._next = time.monotonic() + _AFTER_FAILURE
        self._let_go()
        return False

    def _start(self) -> bool:
        self._begun = time.monotonic()
        if self._begun < self._next:
            return False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "resight.search.overview", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            log.error("overview", extra={"told": {"error": str(error)}})
            self._next = self._begun + _AFTER_FAILURE
            return False
        return True

    def _let_go(self) -> None:
        if self._process is not None and self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None

    def close(self) -> None:
        """End the process, if one runs."""
        with self._lock:
            if self._process is not None:
                with suppress(ProcessLookupError):
                    self._process.kill()
                self._process.wait()
                self._let_go()
