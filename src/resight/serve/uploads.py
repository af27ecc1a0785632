"""What a request brings: its fields checked, its photos as bytes, nothing decoded here."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile

from resight.errors import UserError
from resight.graph.rerank import Spatial
from resight.graph.rerank import parse as parse_chain
from resight.serve.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BIGGEST = 2**63 - 1  # of an id


def _plain(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("holds a control character")
    return text


def _named(text: str) -> str:
    if not text.strip():
        raise ValueError("an object needs a name")
    return text


Text = Annotated[str, Field(max_length=2000), AfterValidator(_plain)]
Name = Annotated[str, Field(max_length=500), AfterValidator(_plain), AfterValidator(_named)]
Id = Annotated[int, Field(ge=1, le=BIGGEST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Region = tuple[Finite, Finite, Finite, Finite]


def _box(region: Region) -> Region:
    if region[0] >= region[2] or region[1] >= region[3]:
        raise ValueError("not x1, y1, x2, y2 in pixels, with x1 < x2 and y1 < y2")
    return region


def _bounded(step: Spatial) -> None:
    """What a stranger may ask of the processor; and no file of the server's is named by him."""
    if step.detector != "sift" or step.weights is not None:
        raise ValueError("a service matches by sift")
    if step.top > 50 or not 64 <= step.side <= 1024:
        raise ValueError("spatial: top is at most 50 in a service, side 64 to 1024")


def _second(text: str) -> str:
    """A chain in its own spelling; of the steps that a service offers."""
    try:
        chain = parse_chain(text)
    except UserError as error:
        raise ValueError(str(error)) from None
    if chain.dba is not None:
        raise ValueError("a service re-ranks by aqe, kreciprocal, diffusion and spatial")
    if chain.spatial is not None:
        _bounded(chain.spatial)
    return str(chain)


class Asked(BaseModel):
    """A search: by photos of one thing, by an image of the gallery, or by an object's name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"image": 1, "k": 5}, {"object": "object 00", "k": 3}]},
    )

    photos: Annotated[list[str], Field(min_length=1, max_length=64)] | None = Field(
        None, description="Photos of one thing, each a file as base64."
    )
    image: Id | None = Field(None, description="Id of an image of the gallery.")
    object: Name | None = Field(None, description="Name of an object of the gallery.")
    k: Annotated[int, Field(ge=1, le=10_000)] = Field(10, description="Objects wanted.")
    level: Literal["image", "object", "both"] | None = None
    where: Text | None = Field(None, description="A filter on columns: price < 20 and x = 'a'")
    exclude_cameras: Annotated[list[Text], Field(max_length=1000)] = []
    region: Annotated[Region, AfterValidator(_box)] | None = Field(
        None, description="Part of the upright photo: x1, y1, x2, y2 in pixels."
    )
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    rerank: Annotated[Text, AfterValidator(_second)] = Field(
        "none",
        description="A second look: none, aqe, kreciprocal, diffusion, spatial, aqe+diffusion:n=5",
    )


class Moved(BaseModel):
    """The object that an image is given to; null: unknown."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"object": "mug"}]})

    object: Name | None


_OWN = {"path", "object", "camera", "split", "role", "box", "id", "object_id", "bytes"}
_OWN |= {"width", "height"}


def _columns(columns: dict[str, Any]) -> dict[str, Any]:
    for name, value in columns.items():
        if not re.fullmatch(r"\w[\w .-]{0,63}", name) or name in _OWN:
            raise ValueError("a column's name is letters, digits, _ . - and none of our own")
        if isinstance(value, str):
            _plain(value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number must be finite")
        if isinstance(value, int) and abs(value) > BIGGEST:
            raise ValueError("a number is too large")
    return columns


Value = Annotated[str, Field(max_length=2000)] | bool | int | float


class Labels(BaseModel):
    """What is said of a photo that is added."""

    model_config = ConfigDict(extra="forbid")

    object: Name | None = None
    camera: Name | None = None
    columns: Annotated[dict[str, Value], Field(max_length=50), AfterValidator(_columns)] = {}


class Answered(BaseModel):
    """Right or wrong: of a hit, for the photo that comes along or an image of the gallery."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"hit": 1, "right": True, "query_image": 2}]},
    )

    hit: Id
    right: bool
    query_image: Id | None = None
    request: Annotated[Text, Field(max_length=64)] | None = None


@dataclass(frozen=True)
class Uploaded:
    """Fields by name and photos, of a multipart form."""

    fields: dict[str, list[str]]
    photos: list[bytes]

    def only(self, known: set[str]) -> dict[str, Any]:
        """Fields that may stand once, by name. Raises Problem for others."""
        for name, values in self.fields.items():
            if name not in known:
                raise Problem(
                    422, f"{name[:80]}: no such field; there are {', '.join(sorted(known))}"
                )
            if len(values) > 1:
                raise Problem(422, f"{name}: given {len(values)} times")
        return {name: values[0] for name, values in self.fields.items()}


def kind_of(request: Request) -> str:
    """multipart, json or "", by the request's Content-Type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return {"multipart/form-data": "multipart", "application/json": "json"}.get(kind, "")


@asynccontextmanager
async def _form(request: Request, photos: int) -> AsyncIterator[FormData]:
    try:
        form = await request.form(max_files=photos, max_fields=100, max_part_size=2**20)
    except Problem:
        raise
    except Exception as error:  # the parser's own, and what odd boundaries and names bring up
        from starlette.requests import ClientDisconnect

        if isinstance(error, ClientDisconnect):
            raise
        text = str(getattr(error, "detail", "")) or "not a form"
        raise Problem(422, f"multipart: {text}") from None
    try:
        yield form
    finally:
        await form.close()


async def multipart(request: Request, photos: int) -> Uploaded:
    """A form with at most this many photos (field "photo"). Raises Problem."""
    fields: dict[str, list[str]] = {}
    files: list[bytes] = []
    async with _form(request, photos) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != "photo":
                    raise Problem(422, f"{name[:80]}: no file is expected here, but in 'photo'")
                files.append(await value.read())
            elif name == "photo":
                raise Problem(422, "photo: a file is expected, with a file name")
            else:
                fields.setdefault(name, []).append(value)
    return Uploaded(fields, files)


async def body_json(request: Request) -> Any:
    """A JSON body. Raises Problem."""
    return parsed(await request.body(), "body")


def parsed(text: bytes | str, where: str) -> Any:
    """JSON. Raises Problem."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Problem(422, f"{where}: not valid JSON") from None


async def search_of(request: Request, photos: int) -> tuple[Asked, list[bytes]]:
    """A search and its photos, of a form or of JSON. Raises Problem and pydantic's errors."""
    kind = kind_of(request)
    if kind == "json":
        asked = Asked.model_validate(await body_json(request))
        files = [_unpacked(text, at) for at, text in enumerate(asked.photos or ())]
    elif kind == "multipart":
        form = await multipart(request, photos)
        cameras = form.fields.pop("exclude_cameras", [])
        known = {"k", "level", "where", "region", "alpha", "rerank", "image", "object"}
        values = {k: v for k, v in form.only(known).items() if v != ""}
        if "region" in values:
            values["region"] = values["region"].split(",")
        asked = Asked.model_validate(values | {"exclude_cameras": [c for c in cameras if c]})
        files = form.photos
    else:
        raise Problem(415, "Content-Type: multipart/form-data or application/json is needed")
    ways = bool(files) + (asked.image is not None) + (asked.object is not None)
    if ways != 1:
        raise Problem(422, "one of photo, image and object is needed")
    if len(files) > photos:
        raise Problem(422, f"photos: at most {photos}")
    if asked.region is not None and len(files) != 1:
        raise Problem(422, "region: goes with one photo")
    return asked, files


def _unpacked(text: str, at: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, f"photos.{at}: not base64") from None


class Gate:
    """How many requests are in work. `limit`: more are turned away."""

    def __init__(self, limit: int, changed: Callable[[int], None]) -> None:
        self._limit, self._changed = limit, changed
        self.inside = 0

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Be in work. Raises Problem 429 where too many are."""
        from resight.serve.problems import busy

        if self.inside >= self._limit:
            raise busy("the service is busy; try again shortly")
        self.inside += 1
        self._changed(self.inside)
        try:
            yield
        finally:
            self.inside -= 1
            self._changed(self.inside)
