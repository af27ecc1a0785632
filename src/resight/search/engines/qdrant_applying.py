"""A change of a Qdrant gallery, written down as a whole, and made.

Qdrant has no transactions. So a change is first written down as a whole: parts, then a head that
says how many (the intent). From the head on it counts as acknowledged: whoever finds it, after a
crash, applies it from the start, which is harmless as every step can be made twice. Without a
head nothing was changed, and the parts are thrown away. Other readers may see a change half
applied for a moment, before the version says that it is there.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from qdrant_client import models

from resight.search.engines.qdrant_link import Link, floats, key, where

META, HEAD = key("meta"), key("intent")
_PART = 4_000_000  # characters of an intent in one record


def write_down(link: Link, change: dict[str, Any]) -> None:
    """The intent: once this returns, the change counts."""
    text = json.dumps(change, ensure_ascii=False)
    parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
    points = [
        models.PointStruct(id=key("intent", n), vector={}, payload={"kind": "intent", "text": part})
        for n, part in enumerate(parts)
    ]
    link.put(link.book, points, size=1)
    payload = {"kind": "intent", "parts": len(parts), "version": change["state"]["version"]}
    link.put(link.book, [models.PointStruct(id=HEAD, vector={}, payload=payload)])


def read_back(link: Link) -> dict[str, Any] | None:
    """An intent that counts and was not applied to its end."""
    heads = link.get(link.book, [HEAD])
    if not heads:
        return None
    ids = [key("intent", n) for n in range(heads[0].payload["parts"])]
    found = {str(point.id): point.payload["text"] for point in link.get(link.book, ids)}
    change: dict[str, Any] = json.loads("".join(found[id_] for id_ in ids))
    return change


def apply(link: Link, base: str, change: dict[str, Any]) -> None:
    """Make a change, or make it again; the version comes last, and then the intent goes."""
    state = change["state"]
    for generation, dim in state["dims"].items():
        make_images(link, f"{base}-{generation}", dim)
    current = str(state["generation"])
    payloads = {int(id_): one for id_, one in change["payloads"].items()}
    vectors = {
        str(g): {int(id_): _decoded(text) for id_, text in some.items()}
        for g, some in change["vectors"].items()
    }
    for generation in state["dims"]:
        collection, come = f"{base}-{generation}", vectors.get(generation, {})
        points = _whole(link, f"{base}-{current}", payloads, come)
        if generation == current:
            bare = [id_ for id_ in change["new"] if id_ not in come]
            points += [models.PointStruct(id=i, vector={}, payload=payloads[i]) for i in bare]
        link.put(collection, points)
        done = {int(point.id) for point in points}
        left = [id_ for id_ in payloads if id_ not in done]
        there = {int(point.id) for point in link.get(collection, left, with_payload=False)}
        labels = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload=payloads[id_], points=[id_])
            )
            for id_ in left
            if id_ in there
        ]
        for start in range(0, len(labels), 256):
            with link.using() as client:
                client.batch_update_points(collection, labels[start : start + 256], wait=True)
        link.delete(collection, change["delete"])
    records = change["records"].items()
    link.put(link.book, [models.PointStruct(id=at, vector={}, payload=one) for at, one in records])
    link.delete(link.book, change["strike"])
    for generation, objects in change["summed"].items():
        if (dim := state["dims"].get(str(generation))) is not None:
            set_centroids(link, f"{base}-{generation}-objects", int(generation), objects, dim)
    if current in state["dims"]:
        point_alias(link, base, f"{base}-{current}")
    link.put(link.book, [models.PointStruct(id=META, vector={}, payload=state)])
    forget(link)


def set_centroids(
    link: Link, collection: str, generation: int, objects: list[int], dim: int
) -> None:
    """The unit centroids (CTL, section 3.3) of these objects, from their sums."""
    with link.using() as client:
        if not client.collection_exists(collection):
            unit = models.VectorParams(size=dim, distance=models.Distance.DOT)
            client.create_collection(collection, vectors_config={"unit": unit})
    totals: dict[int, Any] = {}
    for start in range(0, len(objects), 512):
        part = objects[start : start + 512]
        some = where(kind="sum", generation=generation, object=part)
        for page in link.pages(link.book, some, with_payload=["object", "total"]):
            for one in (point.payload for point in page):
                total = np.frombuffer(base64.b64decode(one["total"]), np.float64)
                totals[one["object"]] = totals.get(one["object"], 0.0) + total
    points = []
    for object_, total in totals.items():
        length = float(np.sqrt(total @ total)) or 1.0
        unit_row = {"unit": floats(total / length)}
        payload = {"object_id": object_}
        points.append(models.PointStruct(id=object_, vector=unit_row, payload=payload))
    link.put(collection, points)
    link.delete(collection, [object_ for object_ in objects if object_ not in totals])


def forget(link: Link) -> None:
    """Throw the intent away, its head first."""
    link.delete(link.book, [HEAD])
    with link.using() as client:
        client.delete(link.book, models.FilterSelector(filter=where(kind="intent")), wait=True)


def _decoded(text: str) -> list[float]:
    return np.frombuffer(base64.b64decode(text), np.float32).tolist()  # type: ignore[no-any-return]


def _whole(
    link: Link, current: str, payloads: dict[int, Any], come: dict[int, list[float]]
) -> list[Any]:
    """Points with payload and both vectors: as it came, and of unit length."""
    missing = [id_ for id_ in come if id_ not in payloads]
    stored = {int(p.id): p.payload for p in link.get(current, missing, with_payload=True)}
    points = []
    for id_, raw in come.items():
        payload = payloads.get(id_) or stored.get(id_)
        if payload is not None:
            wide = np.asarray(raw, np.float64)
            unit = wide / (float(np.sqrt(wide @ wide)) or 1.0)
            both = {"raw": raw, "unit": floats(unit)}
            points.append(models.PointStruct(id=id_, vector=both, payload=payload))
    return points


def make_images(link: Link, collection: str, dim: int) -> None:
    """A collection of images, if it is not there: one graph, over the unit vectors."""
    with link.using() as client:
        if client.collection_exists(collection):
            return
        client.create_collection(
            collection,
            vectors_config={
                "raw": models.VectorParams(
                    size=dim,
                    distance=models.Distance.DOT,
                    on_disk=True,
                    hnsw_config=models.HnswConfigDiff(m=0),
                ),
                "unit": models.VectorParams(size=dim, distance=models.Distance.DOT),
            },
        )
    texts = ("place", "path", "content", "object", "camera", "split")
    link.index(collection, texts, ("object_id", "changed", "bytes"))


def point_alias(link: Link, alias: str, collection: str) -> None:
    """Let the gallery's name mean this collection, in one step."""
    with link.using() as client:
        found = {one.alias_name: one.collection_name for one in client.get_aliases().aliases}
        if found.get(alias) == collection:
            return
        steps: list[Any] = []
        if alias in found:
            gone = models.DeleteAlias(alias_name=alias)
            steps.append(models.DeleteAliasOperation(delete_alias=gone))
        made = models.CreateAlias(collection_name=collection, alias_name=alias)
        steps.append(models.CreateAliasOperation(create_alias=made))
        client.update_collection_aliases(steps)
