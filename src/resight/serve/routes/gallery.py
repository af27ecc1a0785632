"""GET /v1/gallery: its state."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from resight.serve.access import Searcher, The
from resight.serve.answers import GalleryAnswer, problems
from resight.serve.offers import offers

router = APIRouter(tags=["gallery"])


@router.get(
    "/v1/gallery",
    summary="The gallery, and what this key may do",
    response_model=GalleryAnswer,
    responses=problems(),
)
def gallery(service: The, caller: Searcher) -> JSONResponse:
    """Counts, model, calibration, columns for filters, and the limits of a request."""
    settings = service.settings
    limits = {"bytes": settings.bytes, "pixels": settings.pixels}
    limits |= {"photos": settings.photos, "k": settings.k}
    told = {"role": caller.role, "limits": limits, "offers": offers(service)}
    return JSONResponse(service.catalogue.state() | told)
