"""/v1/feedback: right or wrong, kept for training."""

from __future__ import annotations

from pathlib import Path as File
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from resight.search.engines.contract import Row
from resight.search.incoming import full_path
from resight.serve.access import Searcher, The
from resight.serve.answers import FeedbackAnswer, problems
from resight.serve.problems import Problem
from resight.serve.service import Service
from resight.serve.uploads import BIGGEST, Answered, body_json, kind_of, multipart, parsed

router = APIRouter(tags=["feedback"])
_ANSWER = Answered.model_json_schema()
_FORM = {
    "type": "object",
    "required": ["answer"],
    "properties": {
        "photo": {"type": "string", "format": "binary"},
        "answer": {
            "type": "string",
            "description": "JSON: hit, right, query_image, request",
            "example": '{"hit": 1, "right": true, "query_image": 2}',
        },
    },
}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "application/json": {
            "schema": _ANSWER,
            "examples": {"right": {"value": {"hit": 1, "right": True, "query_image": 2}}},
        },
    },
}


@router.post(
    "/v1/feedback",
    summary="Say that a hit is right, or wrong",
    status_code=201,
    response_model=FeedbackAnswer,
    responses=problems(404, 408, 413, 415, 504),
    openapi_extra={"requestBody": _BODY},
)
async def say(request: Request, service: The, caller: Searcher) -> JSONResponse:
    """Of the photo that comes along, or of an image of the gallery (query_image)."""
    until = service.until()
    async with service.gate.entered():
        kind = kind_of(request)
        photo: bytes | None = None
        if kind == "multipart":
            form = await multipart(request, 1)
            fields = form.only({"answer"})
            answer = Answered.model_validate(parsed(fields.get("answer", ""), "answer"))
            photo = form.photos[0] if form.photos else None
        elif kind == "json":
            answer = Answered.model_validate(await body_json(request))
        else:
            raise Problem(415, "Content-Type: multipart/form-data or application/json is needed")
        if (photo is None) == (answer.query_image is None):
            raise Problem(422, "one of photo and query_image is needed")
        format_ = (await service.decode(photo, until)).format if photo is not None else ""
        number = await service.write(_keep, service, answer, photo, format_)
    return JSONResponse({"feedback": number}, 201)


def _keep(service: Service, answer: Answered, photo: bytes | None, format_: str) -> int:
    hit = service.catalogue.row(answer.hit)
    box: Any = None
    if photo is None:
        assert answer.query_image is not None
        asked = service.catalogue.row(answer.query_image)
        photo, format_ = _file_of(service, asked)
        box = asked.place.box if asked.place is not None else None
    told = box, answer.hit, hit.object, answer.right, answer.request
    return service.feedback.add(photo, format_, *told)


def _file_of(service: Service, row: Row) -> tuple[bytes, str]:
    """An image's file and its format. Raises Problem where it is gone."""
    path = full_path(row, {root.id: root for root in service.gallery.engine.roots()})
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF", "jp2": "JPEG2000"}
    ending = File(path).suffix[1:].lower()
    try:
        return File(path).read_bytes(), kinds.get(ending, ending.upper())
    except OSError:
        raise Problem(422, f"image {row.id}: its file is not where it was") from None


@router.delete(
    "/v1/feedback/{number}", summary="Take it back", status_code=204, responses=problems(404)
)
async def take_back(
    service: The, caller: Searcher, number: Annotated[int, Path(ge=1, le=BIGGEST, examples=[1])]
) -> Response:
    """Forget an answer."""
    async with service.gate.entered():
        if not await service.write(service.feedback.remove, number):
            raise Problem(404, f"feedback {number}: there is no such answer")
    return Response(status_code=204)
