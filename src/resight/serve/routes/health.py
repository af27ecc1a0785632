"""Whether it lives, whether it can answer, and how it is doing."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from resight.serve.access import Keeper, The
from resight.serve.answers import problems

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process lives")
async def healthz() -> JSONResponse:
    """Always 200."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", summary="Whether it can answer", responses={503: problems()[503]})
def readyz(service: The) -> JSONResponse:
    """200 once embedder and gallery are open."""
    service.gallery.engine.version()
    return JSONResponse({"status": "ready"})


@router.get(
    "/metrics", summary="Metrics for Prometheus", response_class=Response, responses=problems()
)
def metrics(service: The, caller: Keeper) -> Response:
    """Latency by stage, queue, batches, hits, no-matches, what was turned away."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
