"""A process beside the service: what takes long is made there, while searches go on."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from resight.serve.keys import VARIABLE
from resight.serve.links import SECRET

log = logging.getLogger("resight.serve")
_LEAST_REST, _AFTER_FAILURE = 2.0, 60.0  # seconds
_SECRETS = (VARIABLE, SECRET)


def environment() -> dict[str, str]:
    """Ours, without what other processes need not know."""
    return {name: value for name, value in os.environ.items() if name not in _SECRETS}


class Beside:
    """At most one process of a module at a time, with pauses in between. For one thread at a time.

    `name`: of what it makes, for the log. `rest`: between two of them, as many times what the last
    took; longer after a failure.
    """

    def __init__(self, name: str, module: str, rest: float) -> None:
        self._name, self._module, self._rest = name, module, rest
        self._process: subprocess.Popen[bytes] | None = None
        self._begun, self._next = 0.0, 0.0

    def running(self) -> bool:
        """Whether it is at work."""
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            return True
        took = time.monotonic() - self._begun
        self._next = time.monotonic() + max(_LEAST_REST, self._rest * took)
        if code:
            assert self._process.stderr is not None
            text = self._process.stderr.read(2000).decode(errors="replace")
            log.error(self._name, extra={"told": {"error": text[-500:], "code": code}})
            self._next = time.monotonic() + _AFTER_FAILURE
        self._let_go()
        return False

    def start(self, words: Sequence[str]) -> bool:
        """Start it, unless it rests; whether it is at work now."""
        if self.running():
            return True
        self._begun = time.monotonic()
        if self._begun < self._next:
            return False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            log.error(self._name, extra={"told": {"error": str(error)}})
            self._next = self._begun + _AFTER_FAILURE
            return False
        return True

    def _let_go(self) -> None:
        if self._process is not None and self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None

    def close(self) -> None:
        """End the process, if one runs."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._let_go()
