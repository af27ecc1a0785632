"""What goes wrong, as problem+json: one clear line, nothing of the server's inside."""

from __future__ import annotations

import logging
import re
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from resight.errors import UserError

log = logging.getLogger("resight.serve")
TYPE = "application/problem+json"
TITLES = {
    400: "Not understood",
    401: "A key is needed",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    408: "Too slow",
    409: "In the way of another change",
    413: "Too large",
    415: "Not an image",
    422: "Not valid",
    429: "Too many requests",
    500: "A fault of the service",
    503: "Not ready",
    504: "Took too long",
}
_PATH = re.compile(r"(?<![\w<.])(?:/[^\s/:;,'\"()]+){2,}/?")


class Problem(HTTPException):
    """An answer that is no success. `detail` is one line for who asked."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None):
        super().__init__(status, detail, headers)


def missing(what: str) -> Problem:
    """404."""
    return Problem(404, f"{what}: not in this gallery")


def busy(detail: str, seconds: int = 1) -> Problem:
    """429."""
    return Problem(429, detail, {"Retry-After": str(max(1, seconds))})


def told(error: UserError) -> str:
    """A UserError's text without the paths of the server."""
    lines = _PATH.sub("(a path)", str(error)).splitlines()
    return (lines[0] if lines else "")[:500]


def answer(
    status: int, detail: str, request: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The response itself."""
    title = TITLES.get(status, "Not possible")
    body = {"type": "about:blank", "title": title, "status": status}
    body |= {"detail": _clean(detail), "request": request}
    return JSONResponse(body, status, headers, media_type=TYPE)


def _clean(text: str) -> str:
    """One line that JSON and a terminal can take."""
    text = text.encode(errors="replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:500]


def from_validation(errors: Any) -> str:
    """The first fault that pydantic found, as "name: what is wrong"."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = str(first["msg"]).removeprefix("Value error, ")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place[:80]}: {message}{more}" if place else f"{message}{more}"


def add_handlers(app: FastAPI) -> None:
    """Every error of a route becomes problem+json."""

    def request_id(request: Request) -> str:
        return str(request.scope.get("resight.request", ""))

    @app.exception_handler(StarletteHTTPException)
    async def _http(request: Request, error: StarletteHTTPException) -> JSONResponse:
        text = {404: "there is nothing here", 405: "not with this method"}
        own = isinstance(error, Problem) or error.status_code not in text
        detail = str(error.detail) if own else text[error.status_code]
        headers = dict(error.headers) if error.headers else None
        return answer(error.status_code, detail, request_id(request), headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(422, from_validation(error.errors()), request_id(request))

    @app.exception_handler(ValidationError)
    async def _wrong(request: Request, error: ValidationError) -> JSONResponse:
        return answer(422, from_validation(error.errors()), request_id(request))

    @app.exception_handler(UserError)
    async def _user(request: Request, error: UserError) -> JSONResponse:
        if _PATH.match(str(error)):  # begins with a place: the gallery itself is in trouble
            log.error("gallery", extra={"told": {"error": str(error)}})
            detail = "the gallery can't do this now; the service's log says why"
            return answer(503, detail, request_id(request), {"Retry-After": "5"})
        return answer(422, told(error), request_id(request))

    @app.exception_handler(ClientDisconnect)
    async def _gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return answer(400, "the request broke off", request_id(request))
