"""Spatial verification of the first hits: the query's photos beside the hits' own files."""

from __future__ import annotations

import io
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resight.data.addresses import to_open
from resight.data.decode import BadImage, decode
from resight.graph.rerank import Spatial
from resight.search.hits import Hit, Hits

if TYPE_CHECKING:
    from resight.spatial.local import LocalFeatures, SpatialOptions

Box = Sequence[float]
KEPT = 512  # pictures' features that are remembered: 70 MB at 1,000 keypoints
_SHOWN = 200  # matches a hit: what is drawn


@dataclass(frozen=True)
class Photo:
    """A picture to look at: a file or its bytes, and the part of it that is meant."""

    source: str | Path | bytes
    box: Box | None = None


def several(photos: Any) -> list[Any]:
    """One photo or several, as a list."""
    alone = isinstance(photos, str | Path | bytes | Image.Image)
    return [photos] if alone else list(photos)


def seeing(photo: object, region: Box | None = None) -> Photo:
    """A photo as `Gallery.search` takes it: a path, encoded bytes or a Pillow image."""
    if isinstance(photo, Image.Image):
        content = io.BytesIO()
        photo.save(content, "PNG")
        return Photo(content.getvalue(), region)
    assert isinstance(photo, str | Path | bytes)
    return Photo(photo, region)


@dataclass(frozen=True, eq=False)
class Seen:
    """Local features, and where their points lie in the upright picture: scale * point + start."""

    features: LocalFeatures
    scale: NDArray[np.float64]
    start: NDArray[np.float64]

    def places(self, rows: NDArray[np.integer]) -> NDArray[np.float64]:
        """(n, 2) x and y in pixels of the upright picture."""
        return np.asarray(self.features.points[rows] * self.scale + self.start)


class Eyes:
    """Sees pictures, and remembers those of the gallery."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str, SpatialOptions], Seen | None] = OrderedDict()

    def see(self, photo: Photo, options: SpatialOptions) -> Seen | None:
        """None where it can't be read. Raises UserError as `local_features`."""
        if isinstance(photo.source, bytes):
            return _see(photo, options)
        key = str(photo.source), str(photo.box), options
        if key not in self._kept:
            self._kept[key] = _see(photo, options)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def verified(self, hits: Hits, photos: Sequence[Photo], step: Spatial, k: int) -> Hits:
        """As the function of this name; of pictures that are read here."""
        options = step.options()
        asked = [self.see(photo, options) for photo in photos]
        first = hits.hits[: step.top]
        shown = [self.see(Photo(hit.path, hit.box), options) if hit.path else None for hit in first]
        return verified(hits, asked, shown, step, k)


def verified(
    hits: Hits, asked: Sequence[Seen | None], shown: Sequence[Seen | None], step: Spatial, k: int
) -> Hits:
    """The first k after verification of the `top` first: verified ones in front, most inliers
    first; each of these with its inliers and matched points, by the photo that matches best.

    `asked`: the query's photos, `shown`: of those first hits; None for what can't be read.
    """
    options = step.options()
    looked = [
        _looked(hit, asked, seen, options)
        for hit, seen in zip(hits.hits[: step.top], shown, strict=True)
    ]

    def falling(hit: Hit) -> int:
        inliers = hit.inliers or 0
        return -inliers if inliers >= step.min_inliers else 0

    ordered = [*sorted(looked, key=falling), *hits.hits[step.top :]]
    told = tuple(replace(hit, rank=rank) for rank, hit in enumerate(ordered[:k], 1))
    return replace(hits, hits=told)


def _looked(
    hit: Hit, asked: Sequence[Seen | None], seen: Seen | None, options: SpatialOptions
) -> Hit:
    if seen is None or not any(asked):
        return replace(hit, inliers=0)
    from resight.spatial.match import count_inliers, homography

    counts = [count_inliers(one.features, seen.features, options) if one else -1 for one in asked]
    at = int(np.argmax(counts))
    best = asked[at]
    assert best is not None
    _, pairs, agree = homography(best.features, seen.features, options)
    good = pairs[agree][:_SHOWN]
    lines = np.concatenate([best.places(good[:, 0]), seen.places(good[:, 1])], axis=1)
    return replace(
        hit,
        inliers=max(counts),
        photo=at,
        matches=tuple(tuple(round(v, 1) for v in line) for line in lines.tolist()),
    )


def _see(photo: Photo, options: SpatialOptions) -> Seen | None:
    try:
        picture = decode(to_open(photo.source), box=photo.box)
    except BadImage:
        return None
    return seen_in(picture, photo.box, options)


def seen_in(picture: Image.Image, box: Box | None, options: SpatialOptions) -> Seen:
    """What there is to see in a picture that was cut out by `box`, if any."""
    from resight.spatial.local import local_features

    found = local_features(picture, options)
    start = (0, 0) if box is None else (max(0, math.floor(v)) for v in box[:2])
    scale = np.array(picture.size) / np.array(found.size)
    return Seen(found, scale, np.array([*start], np.float64))
