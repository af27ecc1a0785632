"""Slow, obvious twins of protocols, metrics and centroids: loops over rows."""

from __future__ import annotations

import numpy as np


def lists(rows: list[dict], cross_camera: bool, roles: bool) -> list[dict]:
    """Per query row: its positives and junk (gallery rows), and the gallery, by a double loop."""
    result = []
    gallery = [i for i, row in enumerate(rows) if not roles or row["role"] != "query"]
    for q, query in enumerate(rows):
        if query["object"] is None or (roles and query["role"] == "gallery"):
            continue
        positives, junk = [], []
        for g in gallery:
            if rows[g]["object"] != query["object"]:
                continue
            same = query["camera"] is not None and query["camera"] == rows[g]["camera"]
            (junk if g == q or (cross_camera and same) else positives).append(g)
        result.append({"query": q, "positives": positives, "junk": junk, "gallery": gallery})
    return result


def object_rank(features: np.ndarray, rows: list[dict], found: dict, cross_camera: bool) -> int:
    """1 + the other objects whose centroid is nearer than the own object's, for one query."""
    query = rows[found["query"]]
    groups: dict = {}
    for g in found["gallery"]:
        name = rows[g]["object"] if rows[g]["object"] is not None else ("unknown", g)
        own = name == query["object"]
        if own and (g not in found["positives"]):
            continue
        groups.setdefault(name, []).append(features[g].astype(float))
    centroids = {name: np.mean(members, axis=0) for name, members in groups.items()}
    q = features[found["query"]].astype(float)
    cosine = {name: q @ c / np.linalg.norm(q) / np.linalg.norm(c) for name, c in centroids.items()}
    own = cosine.pop(query["object"])
    return 1 + sum(value > own for value in cosine.values())


def average_precision(hits: list[bool]) -> float:
    """Rectangular: the mean over the positives of the precision there."""
    found, total = 0, 0.0
    for place, hit in enumerate(hits, start=1):
        if hit:
            found += 1
            total += found / place
    return total / found
