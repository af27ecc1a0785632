"""/v1/images: read, add, move and remove images."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from resight.serve.access import Changer, Searcher, The
from resight.serve.answers import AddedAnswer, ImageAnswer, ImagesAnswer, ThumbnailsAnswer, problems
from resight.serve.catalogue import image_json
from resight.serve.problems import Problem
from resight.serve.uploads import BIGGEST, Id, Labels, Moved, Text, kind_of, multipart, parsed

router = APIRouter(tags=["images"])
ImageId = Annotated[int, Path(ge=1, le=BIGGEST, examples=[1])]
Offset = Annotated[int, Query(ge=0, le=2**31)]
Limit = Annotated[int, Query(ge=1, le=1000)]
_FORM = {
    "type": "object",
    "required": ["photo"],
    "properties": {
        "photo": {"type": "string", "format": "binary"},
        "object": {"type": "string"},
        "camera": {"type": "string"},
        "columns": {"type": "string", "description": "JSON: names and values", "example": "{}"},
    },
}
_BODY = {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}


@router.get("/v1/images", summary="Images", response_model=ImagesAnswer, responses=problems())
def images(
    service: The,
    caller: Searcher,
    where: Annotated[Text | None, Query(examples=["split is null"])] = None,
    offset: Offset = 0,
    limit: Limit = 50,
) -> JSONResponse:
    """All images, or those that pass a filter, by id."""
    return JSONResponse(service.catalogue.images(where or None, offset, limit))


@router.get(
    "/v1/images/{image}", summary="An image", response_model=ImageAnswer, responses=problems(404)
)
def image(service: The, caller: Searcher, image: ImageId) -> JSONResponse:
    """What is known of an image."""
    return JSONResponse(image_json(service.catalogue.row(image)))


@router.get(
    "/v1/images/{image}/thumbnail",
    summary="Its small picture",
    response_class=Response,
    responses=problems(404)
    | {200: {"content": {"image/jpeg": {}}}, 304: {"description": "Not changed"}},
)
def thumbnail(request: Request, service: The, caller: Searcher, image: ImageId) -> Response:
    """A JPEG."""
    jpeg = service.gallery.engine.thumbnail(image)
    return _jpeg(request, image, jpeg)


@router.get(
    "/v1/images/{image}/picture",
    summary="Its picture, larger",
    response_class=Response,
    responses=problems(404)
    | {200: {"content": {"image/jpeg": {}}}, 304: {"description": "Not changed"}},
)
async def picture(request: Request, service: The, caller: Searcher, image: ImageId) -> Response:
    """A JPEG whose longer side has 480 pixels; the small picture where the photo is gone."""
    row = await asyncio.to_thread(service.catalogue.row, image)
    jpeg = await service.renditions.get(row)
    if jpeg is None:
        jpeg = await asyncio.to_thread(service.gallery.engine.thumbnail, image)
    return _jpeg(request, image, jpeg)


@router.get(
    "/v1/thumbnails",
    summary="Many small pictures at once",
    response_model=ThumbnailsAnswer,
    responses=problems(),
)
def thumbnails(
    service: The,
    caller: Searcher,
    image: Annotated[list[Id], Query(min_length=1, max_length=200, examples=[[1, 2]])],
) -> JSONResponse:
    """Those that there are, of up to 200 images."""
    rows = service.gallery.engine.rows(sorted(set(image)), thumbnails=True)
    found = {
        str(row.id): base64.b64encode(row.thumbnail).decode("ascii")
        for row in rows
        if row.thumbnail is not None
    }
    return JSONResponse({"thumbnails": found})


def _jpeg(request: Request, image: int, jpeg: bytes | None) -> Response:
    if jpeg is None:
        raise Problem(404, f"image {image}: there is no picture of it")
    tag = f'"{hashlib.sha256(jpeg).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=600"}
    asked = [
        one.strip().removeprefix("W/")
        for one in request.headers.get("if-none-match", "").split(",")
    ]
    if tag in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    return Response(jpeg, media_type="image/jpeg", headers=headers)


@router.post(
    "/v1/images",
    summary="Add a photo",
    status_code=201,
    response_model=AddedAnswer,
    responses=problems(408, 413, 415, 504),
    openapi_extra={"requestBody": _BODY},
)
async def add(request: Request, service: The, caller: Changer) -> JSONResponse:
    """Answered when the photo is durable. The same content is never there twice."""
    until = service.until()
    async with service.gate.entered():
        if kind_of(request) != "multipart":
            raise Problem(415, "Content-Type: multipart/form-data is needed")
        form = await multipart(request, 1)
        values: dict[str, Any] = form.only({"object", "camera", "columns"})
        values = {name: text for name, text in values.items() if text != ""}
        if "columns" in values:
            values["columns"] = parsed(values["columns"], "columns")
        labels = Labels.model_validate(values)
        if not form.photos:
            raise Problem(422, "photo: is missing")
        photo = form.photos[0]
        decoded = await service.decode(photo, until)
        row, known = await service.write(service.writing.add, photo, decoded.format, labels)
    return JSONResponse(image_json(row) | {"known": known}, 201)


@router.patch(
    "/v1/images/{image}", summary="Move it", response_model=ImageAnswer, responses=problems(404)
)
async def move(service: The, caller: Changer, image: ImageId, to: Moved) -> JSONResponse:
    """Give an image to another object, or to none."""
    async with service.gate.entered():
        row = await service.write(service.writing.move, image, to.object)
    return JSONResponse(image_json(row))


@router.delete("/v1/images/{image}", summary="Remove it", status_code=204, responses=problems(404))
async def remove(service: The, caller: Changer, image: ImageId) -> Response:
    """Remove an image; a photo that came by upload is deleted."""
    async with service.gate.entered():
        await service.write(service.writing.remove, image)
    return Response(status_code=204)
