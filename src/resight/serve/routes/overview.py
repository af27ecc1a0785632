"""/v1/map and /v1/doubtful: the gallery from above."""

from __future__ import annotations

import gzip
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from resight.serve.access import Searcher, The
from resight.serve.answers import DoubtfulAnswer, MapAnswer, problems
from resight.serve.doubts import doubtful as _doubtful
from resight.serve.mapping import packed
from resight.serve.routes.images import Limit, Offset
from resight.serve.uploads import Text

router = APIRouter(tags=["overview"])


@router.get(
    "/v1/map",
    summary="All images on a plane",
    response_model=MapAnswer,
    responses=problems(),
)
def map_(
    request: Request,
    service: The,
    caller: Searcher,
    by: Annotated[Text, Query(examples=["object"])] = "object",
) -> Response:
    """Like images near each other, coloured by a column. Of more than 50,000 an even sample.

    Made when it is first asked for, and again when the gallery has changed, by a process beside
    the service: "making" says that one is under way, and what there is is given meanwhile.
    """
    made, making = service.overviews.get()
    body = packed(service.catalogue, made, making, by)
    headers = {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        body = gzip.decompress(body)
    return Response(body, media_type="application/json", headers=headers)


@router.get(
    "/v1/doubtful",
    summary="Images to look at: nearly equal ones, and those far from their object",
    response_model=DoubtfulAnswer,
    responses=problems(),
)
def doubtful(
    service: The,
    caller: Searcher,
    kind: Annotated[Literal["pairs", "outliers"], Query(examples=["pairs"])] = "pairs",
    least: Annotated[
        float, Query(ge=0.9, le=1, description="Of pairs: the least similarity.")
    ] = 0.98,
    offset: Offset = 0,
    limit: Limit = 50,
) -> JSONResponse:
    """Pairs: of two objects, or of the same file, nearly equal to the network; the nearest first.

    Outliers: images far from their object's others, compared with the spread of all images; the
    farthest first. Made as the map is.
    """
    made, making = service.overviews.get()
    told = _doubtful(service.catalogue, made, kind, least, offset, limit)
    return JSONResponse(told | {"making": making, "kind": kind})
