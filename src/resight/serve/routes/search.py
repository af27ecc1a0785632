"""POST /v1/search: by photo, by an image of the gallery, by an object's name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from resight.graph.rerank import Chain, Spatial
from resight.graph.rerank import parse as parse_chain
from resight.search.hits import Hits
from resight.search.incoming import full_path
from resight.search.searching import said
from resight.serve.access import Searcher, The
from resight.serve.answers import SearchAnswer, problems
from resight.serve.batching import Found, Options, Query
from resight.serve.catalogue import hit_json
from resight.serve.problems import Problem, missing
from resight.serve.service import Service
from resight.serve.uploads import Asked, search_of

router = APIRouter(tags=["search"])

_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "photo": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "k": {"type": "integer", "minimum": 1, "default": 10},
        "level": {"type": "string", "enum": ["image", "object", "both"]},
        "where": {"type": "string"},
        "exclude_cameras": {"type": "array", "items": {"type": "string"}},
        "region": {"type": "string", "description": "x1,y1,x2,y2 in pixels", "example": "0,0,9,9"},
        "alpha": {"type": "number"},
        "rerank": {"type": "string", "default": "none", "example": "diffusion"},
    },
}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "application/json": {
            "schema": Asked.model_json_schema(),
            "examples": {
                "by image": {"value": {"image": 1, "k": 5}},
                "by object": {"value": {"object": "object 00", "k": 3, "level": "object"}},
            },
        },
    },
}


@router.post(
    "/v1/search",
    summary="The objects most similar to a photo",
    response_model=SearchAnswer,
    responses=problems(404, 408, 413, 415, 504),
    openapi_extra={"requestBody": _BODY},
)
async def search(request: Request, service: The, caller: Searcher) -> JSONResponse:
    """Photos (1 to 8 of one thing, as one query), or an image of the gallery, or an object.

    "no_match" is true where the nearest comes no nearer than things that are not in the gallery do.
    """
    loop = asyncio.get_running_loop()
    begun, until = loop.time(), service.until()
    async with service.gate.entered():
        asked, photos = await search_of(request, service.settings.photos)
        if asked.k > service.settings.k:
            raise Problem(422, f"k: at most {service.settings.k}")
        own, vectors = await asyncio.to_thread(
            lambda: (service.gallery.level, len(service.gallery))
        )
        chain = parse_chain(asked.rerank)
        step = chain.spatial
        if step is not None and asked.object is not None:
            raise Problem(422, "rerank: spatial compares photos, and an object's name is none")
        options = Options(
            asked.k if step is None else max(asked.k, step.top),
            asked.level or own,
            asked.where,
            tuple(asked.exclude_cameras),
            asked.alpha,
            str(chain if step is None else Chain(chain.steps[:-1])),
        )
        left, cameras = until - loop.time(), bool(options.exclude_cameras)
        await service.looks.check(options.rerank, vectors, cameras, left)
        if photos:
            found, seconds = await service.search(photos, asked.region, options, until)
        else:
            found = await _known(service, asked, options, until)
            seconds = {"queue": found.queue, "decode": 0.0, "embed": 0.0, "search": found.search}
        hits = found.hits
        if step is not None:
            started = loop.time()
            hits = await _verified(service, hits, photos, asked, step, until)
            seconds["verify"] = loop.time() - started
    seconds["total"] = loop.time() - begun
    _count(service, hits, seconds)
    told = {"request": request.scope["resight.request"], "no_match": hits.no_match}
    told |= {"p_value": hits.p_value, "alpha": hits.alpha, "level": options.level}
    told |= {"rerank": asked.rerank}
    told |= {"hits": [hit_json(hit) for hit in hits]}
    seconds = {"verify": 0.0} | seconds
    told |= {"milliseconds": {stage: round(1000 * s, 3) for stage, s in seconds.items()}}
    return JSONResponse(told)


async def _verified(
    service: Service,
    hits: Hits,
    photos: list[bytes],
    asked: Asked,
    step: Spatial,
    until: float,
) -> Hits:
    """The hits after spatial verification against the photos, or those of the gallery's image."""
    if asked.image is not None:
        photos = [await service.sights.photo(asked.image)]
    hits = await service.sights.verified(hits, photos, asked.region, step, asked.k, until)
    return said(hits, f", re-ranked by {asked.rerank}")


async def _known(service: Service, asked: Asked, options: Options, until: float) -> Found:
    """A search by what the gallery has. The image itself, or the object, is no answer."""
    engine = service.gallery.engine
    if asked.image is not None:
        image = asked.image

        def of_image() -> Query:
            row = service.catalogue.row(image)
            _, _, vectors = engine.vectors([image])
            if not len(vectors):
                raise missing(f"image {image}")
            path = full_path(row, {root.id: root for root in engine.roots()})
            return Query(options, until, vector=np.asarray(vectors[0]), exclude=path or None)

        return await service.batcher.ask(await asyncio.to_thread(of_image))
    name = asked.object
    assert name is not None
    sums = await asyncio.to_thread(engine.sums, [name])
    if not sums:
        raise missing("this object")
    total = np.sum([one.total for one in sums], axis=0).astype(np.float32)
    wider = replace(options, k=options.k + 1)
    found = await service.batcher.ask(Query(wider, until, vector=total))
    others = [hit for hit in found.hits if hit.object != name][: options.k]
    hits = tuple(replace(hit, rank=rank) for rank, hit in enumerate(others, 1))
    return replace(found, hits=Hits(hits))  # p-values are of photos, and this was none


def _count(service: Service, hits: Hits, seconds: dict[str, float]) -> None:
    metrics = service.metrics
    for stage, value in seconds.items():
        metrics.stages.labels(stage).observe(value)
    metrics.hits.inc(len(hits))
    if hits.no_match:
        metrics.no_matches.inc()
