"""Who asks: the key of a request, and what a route demands of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from resight.serve.keys import Role, allows
from resight.serve.problems import Problem, busy
from resight.serve.service import Service

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="A key of this service.")
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


@dataclass(frozen=True)
class Caller:
    """Who asks, and what he may do; `name` of his key."""

    role: Role
    name: str | None


def service_of(request: Request) -> Service:
    """The service that a request came to. Raises Problem where it isn't ready."""
    service: Service = request.app.state.service
    if not service.ready:
        raise Problem(503, "not ready yet, or about to end", {"Retry-After": "1"})
    return service


def need(role: Role) -> Callable[[Request, Bearer], Awaitable[Caller]]:
    """A dependency: the caller, who must have this role."""

    async def check(request: Request, given: Bearer) -> Caller:
        service: Service = request.app.state.service
        if not service.keys:
            return Caller("admin", None)
        key = service.keys.find(given.credentials) if given is not None else None
        if key is None:
            wrong = "this key is not known here" if given is not None else "a key is needed"
            raise Problem(401, wrong, {"WWW-Authenticate": "Bearer"})
        request.scope["resight.key"] = key.name
        wait = key.take(service.settings.rate)
        if wait:
            raise busy(f"more than {service.settings.rate} requests a minute with this key", wait)
        if not allows(key.role, role):
            raise Problem(403, f"a key of role {role} is needed; this one's is {key.role}")
        return Caller(key.role, key.name)

    return check


The = Annotated[Service, Depends(service_of)]
Searcher = Annotated[Caller, Depends(need("search"))]
Changer = Annotated[Caller, Depends(need("write"))]
Keeper = Annotated[Caller, Depends(need("admin"))]
