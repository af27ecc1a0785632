"""Searching inside Qdrant: its graph for candidates, the stored vectors for the order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from resight.search.engines.contract import Near
from resight.search.engines.nearness import ordered
from resight.search.engines.qdrant_link import Link, floats, where
from resight.search.index import unit

_OVER = 16  # candidates beside those asked for: their order is settled in float64


def nearest(
    link: Link,
    base: str,
    generation: int,
    queries: NDArray[np.float32],
    fetch: int,
    level: str,
    exact: bool,
) -> list[Near]:
    """The `fetch` nearest images, or objects (images of no object stand alone)."""
    asked = unit(queries)
    images, objects = f"{base}-{generation}", f"{base}-{generation}-objects"
    if level == "image":
        found = _asked(link, images, asked, fetch, exact, "raw")
    else:
        alone = _asked(link, images, asked, fetch, exact, "raw", where(object_id=0))
        found = [[(-key, 0, row) for key, _, row in one] for one in alone]
        with link.using() as client:
            there = client.collection_exists(objects)
        if there:
            more = _asked(link, objects, asked, fetch, exact, "unit")
            found = [one + two for one, two in zip(found, more, strict=True)]
    return [ordered(query, one, fetch) for query, one in zip(asked, found, strict=True)]


def _asked(
    link: Link,
    collection: str,
    asked: NDArray[np.float32],
    fetch: int,
    exact: bool,
    vector: str,
    some: Any = None,
) -> list[list[Any]]:
    """(key, object, vector) of the candidates of each query."""
    effort = None if exact else max(200, 4 * (fetch + _OVER))
    found: list[list[Any]] = []
    for start in range(0, len(asked), 64):
        requests = [
            models.QueryRequest(
                query=floats(query),
                using="unit",
                limit=fetch + _OVER,
                filter=some,
                params=None if link.local else models.SearchParams(exact=exact, hnsw_ef=effort),
                with_payload=["object_id"],
                with_vector=[vector],
            )
            for query in asked[start : start + 64]
        ]
        with link.using() as client:
            answers = client.query_batch_points(collection, requests)
        for answer in answers:
            points = answer.points
            found.append(
                [(int(p.id), p.payload["object_id"], np.array(p.vector[vector])) for p in points]
            )
    return found
