"""/v1/objects: objects by name, and their images."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse

from resight.serve.access import Searcher, The
from resight.serve.answers import ObjectAnswer, ObjectsAnswer, problems
from resight.serve.routes.images import Limit, Offset
from resight.serve.uploads import Text

router = APIRouter(tags=["objects"])


@router.get("/v1/objects", summary="Objects", response_model=ObjectsAnswer, responses=problems())
def objects(
    service: The,
    caller: Searcher,
    like: Annotated[Text, Query(examples=["object"])] = "",
    offset: Offset = 0,
    limit: Limit = 50,
) -> JSONResponse:
    """Objects whose name contains `like`, by name."""
    return JSONResponse(service.catalogue.objects(like, offset, limit))


@router.get(
    "/v1/objects/{name:path}",
    summary="An object",
    response_model=ObjectAnswer,
    responses=problems(404),
)
def object_(
    service: The,
    caller: Searcher,
    name: Annotated[Text, Path(examples=["object 00"])],
    offset: Offset = 0,
    limit: Limit = 100,
) -> JSONResponse:
    """An object's images."""
    return JSONResponse(service.catalogue.object(name, offset, limit))
