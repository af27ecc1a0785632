"""Addresses that work without a key for a few minutes: a frame or a tab can't send one.

Signed with a secret that the processes of a service share and that ends with them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time

SECRET = "RESIGHT_SERVE_SECRET"
SECONDS = 600


class Links:
    """Signs what may be read, until when."""

    def __init__(self) -> None:
        given = os.environ.get(SECRET, "")
        self._secret = given.encode() or secrets.token_bytes(32)

    def query(self, what: str, now: float | None = None) -> str:
        """The query that opens `what` for some minutes."""
        until = int((time.time() if now is None else now) + SECONDS)
        return f"until={until}&sign={self._sign(what, until)}"

    def good(self, what: str, until: int, sign: str, now: float | None = None) -> bool:
        """Whether we signed this, and its time is not over."""
        right = hmac.compare_digest(self._sign(what, until).encode(), sign.encode())
        return right and (time.time() if now is None else now) <= until

    def _sign(self, what: str, until: int) -> str:
        text = f"{what}\n{until}".encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:40]
