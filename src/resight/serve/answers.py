"""The shapes of the answers, for the OpenAPI and for clients."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Box = tuple[float, float, float, float]


class ProblemAnswer(BaseModel):
    """Why something was not done."""

    type: str
    title: str
    status: int
    detail: str = Field(description="One line.")
    request: str = Field(description="The id of the request, as in the service's log.")


class ImageAnswer(BaseModel):
    """An image of the gallery."""

    image: int
    object: str | None
    camera: str | None
    split: str | None
    box: Box | None
    columns: dict[str, Any]
    width: int | None
    height: int | None
    thumbnail: str | None
    name: str = Field(description="The name of its file, without folders.")


class AddedAnswer(ImageAnswer):
    """The image added, or the one that has the same content."""

    known: bool = Field(description="Whether the same content was there before.")


class HitAnswer(BaseModel):
    """An object found."""

    rank: int
    object: str | None
    similarity: float
    probability: float | None
    p_value: float | None
    image: int
    images: int
    box: Box | None
    camera: str | None
    columns: dict[str, Any]
    thumbnail: str | None
    why: str
    score: float | None = Field(description="What hits stand by, where they were re-ranked.")
    inliers: int | None = Field(description="Points that agree, where pictures were compared.")
    photo: int = Field(description="Which of the query's photos agrees best, from 0.")
    matches: list[tuple[float, float, float, float]] = Field(
        description="x1, y1 in the query and x2, y2 in the image, pixels of the upright pictures."
    )


class Milliseconds(BaseModel):
    """How long each stage of a search took."""

    queue: float
    decode: float
    embed: float
    search: float
    verify: float
    total: float


class SearchAnswer(BaseModel):
    """Hits, best first; `no_match` null: the gallery is not calibrated at this level."""

    request: str
    no_match: bool | None
    p_value: float | None
    alpha: float | None
    level: str
    rerank: str
    hits: list[HitAnswer]
    milliseconds: Milliseconds


class Page(BaseModel):
    """The head of a page of a list; `next`: the offset of the following one."""

    total: int
    next: int | None


class ImagesAnswer(Page):
    """Images."""

    images: list[ImageAnswer]


class ObjectEntry(BaseModel):
    """An object, with how many images it has, and one of them."""

    object: str
    images: int
    thumbnail: str | None


class ObjectsAnswer(Page):
    """Objects, by name."""

    objects: list[ObjectEntry]


class ObjectAnswer(ImagesAnswer):
    """An object and its images."""

    object: str


class PairAnswer(BaseModel):
    """Two images that are nearly equal."""

    images: tuple[ImageAnswer, ImageAnswer]
    similarity: float
    same_file: bool


class OutlierAnswer(ImageAnswer):
    """An image, and how similar it is to its object's others."""

    similarity: float


class DoubtfulAnswer(Page):
    """Of one kind; `current`: of the gallery as it is now; `usual`: what outliers lie below."""

    kind: Literal["pairs", "outliers"]
    making: bool
    current: bool
    usual: float | None
    pairs: list[PairAnswer]
    outliers: list[OutlierAnswer]


class MapAnswer(BaseModel):
    """Positions in [-1, 1], each (x, y, image), and what they are coloured by.

    `of`: for each point which of `names` (-1: none). Where a column holds many numbers both are
    empty, and `values` has the number of each point.
    """

    making: bool
    current: bool
    method: str | None
    images: int
    columns: list[str]
    by: str
    points: list[tuple[float, float, int]]
    names: list[str]
    of: list[int]
    values: list[float | None] | None


class ScoreAnswer(BaseModel):
    """The headline of a protocol's scores; figures are fractions, `interval` that of `primary`."""

    protocol: str
    title: str
    level: str
    primary: str
    figures: dict[str, float]
    interval: tuple[float | None, float | None] | None
    queries: int | None
    gallery: int | None


class ReportAnswer(BaseModel):
    """A report; `page`: the address of its page, for ten minutes and without a key."""

    report: str
    kind: Literal["evaluation", "page"]
    title: str
    when: str | None
    page: str | None
    scores: list[ScoreAnswer]


class ReportsAnswer(Page):
    """Reports."""

    reports: list[ReportAnswer]


class ThumbnailsAnswer(BaseModel):
    """Small pictures, by image: JPEGs as base64."""

    thumbnails: dict[str, str]


class ModelAnswer(BaseModel):
    """The embedder."""

    backbone: str
    size: tuple[int, int]
    dim: int
    fingerprint: str


class CalibratedAnswer(BaseModel):
    """What "no match" promises at a level."""

    alpha: float
    objects: int
    stale: bool
    smallest_alpha: float


class ColumnAnswer(BaseModel):
    """A column that filters can ask for, with its most frequent values."""

    name: str
    kind: Literal["text", "number"]
    values: list[str | float | int | bool]


class LimitsAnswer(BaseModel):
    """Of a request."""

    bytes: int
    pixels: int
    photos: int
    k: int


class GalleryAnswer(BaseModel):
    """The gallery as it is now."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    level: str
    images: int
    objects: int
    vectors: int
    dimensions: int
    model: ModelAnswer
    calibrated: dict[str, CalibratedAnswer]
    columns: list[ColumnAnswer]
    role: Literal["search", "write", "admin"]
    limits: LimitsAnswer
    offers: list[str] = Field(description="What this service can do: doubtful, map, reports, ...")


class FeedbackAnswer(BaseModel):
    """The number of an answer that was kept."""

    feedback: int


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer beside success, for the OpenAPI."""
    from resight.serve.problems import TITLES

    schema = {"$ref": "#/components/schemas/ProblemAnswer"}
    content = {"application/problem+json": {"schema": schema}}
    always = (401, 403, 422, 429, 503)
    return {
        status: {"description": TITLES[status], "content": content}
        for status in sorted({*always, *statuses})
    }
