"""A gallery as a features folder, which every other verb reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.features.store import Features
from resight.features.write import write_features
from resight.search.gallery import Gallery
from resight.search.incoming import full_path

_OWN = ("id", "content", "width", "height")


def export(
    gallery: Gallery,
    out: Path,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Write all images of a gallery, with vectors, labels and the user's columns, by id.

    Raises UserError when the gallery is empty, or `out` holds something else.
    """
    engine = gallery.engine
    total = engine.counts()[0]
    if not total:
        raise UserError(f"{engine.name}: the gallery is empty; nothing to export")
    images = image_set(gallery)
    meta = engine.meta()

    def blocks() -> Iterator[NDArray[np.float32]]:
        done = 0
        for _, _, vectors in engine.every_vector():
            done += len(vectors)
            progress(done, total)
            yield vectors

    key = {"embedder": meta.get("embedder"), "dtype": "float32", "flip": False, "scales": [1.0]}
    return write_features(out, images, blocks(), key, gallery.embedder, force=force)


def image_set(gallery: Gallery) -> ImageSet:
    """The images of a gallery as an image set, by id; id, content and size are columns of it.

    An image without a file gets the path "image-ID".
    """
    engine = gallery.engine
    roots = {root.id: root for root in engine.roots()}
    rows: list[dict[str, Any]] = []
    ids = engine.ids()
    for start in range(0, len(ids), 5000):
        for row in engine.rows(ids[start : start + 5000]):
            box = list(row.place.box) if row.place is not None and row.place.box else None
            kept = {name: getattr(row, name) for name in _OWN}
            own = {k: v for k, v in row.columns.items() if k not in kept}
            path = full_path(row, roots) or f"image-{row.id}"
            labels = {"object": row.object, "camera": row.camera, "split": row.split}
            rows.append({"path": path, **labels, "box": box} | kept | own)
    strings = {name: pl.String for name in ("path", "object", "camera", "split", "content")}
    overrides: dict[str, Any] = strings | {"box": pl.List(pl.Float64())}
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {
        name: pl.Series(name, [row.get(name) for row in rows], overrides.get(name), strict=False)
        for name in names
    }
    return ImageSet(normalise(pl.DataFrame(columns)), Path(), engine.name)
