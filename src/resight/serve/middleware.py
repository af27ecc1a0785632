"""Around every request: its id, the limits of its body, headers of the answer, log and counts."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resight.serve.keys import is_local
from resight.serve.metrics import Metrics
from resight.serve.problems import Problem, answer
from resight.serve.settings import Settings

log = logging.getLogger("resight.serve")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}


class Around:
    """See above; `local`: there are no keys, so only this machine may call."""

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, local: Callable[[], bool]
    ) -> None:
        self._app, self._settings, self._metrics, self._local = app, settings, metrics, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope["resight.request"] = request
        started, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                told = MutableHeaders(scope=message)
                told["X-Request-Id"] = request
                for name, value in HEADERS.items():
                    told.setdefault(name, value)  # a report has stricter ones
                if "cache-control" not in told:
                    static = scope["path"].startswith("/static/")  # asked about again, by ETag
                    told["Cache-Control"] = "no-cache" if static else "no-store"
            await send(message)

        try:
            self._check(scope, headers)
            await self._app(scope, self._limited(receive, started), sending)
        except Problem as problem:
            if not status:
                response = answer(
                    problem.status_code, str(problem.detail), request, dict(problem.headers or {})
                )
                await response(scope, receive, sending)
        except ClientDisconnect:
            status = status or 499
        except Exception as error:
            log.error("fault", exc_info=error, extra={"told": {"request": request}})
            if not status:
                detail = "something went wrong here; the service's log says what"
                await answer(500, detail, request)(scope, receive, sending)
        finally:
            self._told(scope, request, status, time.monotonic() - started)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raises Problem before anything of the body is read."""
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise Problem(400, "Content-Length: not a number")
        if len(length) > 15 or int(length) > self._settings.bytes:
            raise self._too_large()
        if not self._local():
            return
        if not is_local(headers.get("host", "")):
            raise Problem(403, "without keys only this machine may call, by the name localhost")
        origin = headers.get("origin")
        if origin is None or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return
        same = urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        if not same and origin not in self._settings.cors:
            raise Problem(403, "a page of another site may not call")

    def _limited(self, receive: Receive, started: float) -> Receive:
        """The body, as long as it is neither too large nor too slow."""
        settings, read, ended = self._settings, 0, False

        async def receiving() -> Message:
            nonlocal read, ended
            if ended:
                return await receive()
            left = settings.deadline - (time.monotonic() - started)
            try:
                message = await asyncio.wait_for(receive(), max(0.0, left))
            except TimeoutError:
                raise Problem(408, "the request came too slowly") from None
            read += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if read > settings.bytes:
                raise self._too_large()
            return message

        return receiving

    def _too_large(self) -> Problem:
        self._metrics.rejected.labels("bytes").inc()
        return Problem(413, f"a request may have {self._settings.bytes:,} bytes")

    def _told(self, scope: Scope, request: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        self._metrics.requests.labels(route, str(status)).inc()
        if status in (408, 415, 429, 504):
            reasons = {408: "slow", 415: "no image", 429: "busy", 504: "deadline"}
            self._metrics.rejected.labels(reasons[status]).inc()
        told = {"request": request, "method": scope["method"], "route": route, "status": status}
        told |= {"milliseconds": round(1000 * seconds, 1), "key": scope.get("resight.key")}
        log.info("request", extra={"told": told})
