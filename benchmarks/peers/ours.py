"""resight's evaluation, from mapped features and a table to mAP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from peers.data import Data
from peers.plain import Work


def prepare(data: Data) -> Work:
    """Make the table; then evaluate as the table asks for."""
    import importlib

    import polars as pl

    from resight.data.imageset import ImageSet, normalise
    from resight.evaluate.scores import Scores, evaluate

    importlib.import_module("resight.evaluate.ranking.kernels")  # which it imports on first use
    few = pl.DataFrame({"path": ["a", "b"], "object": ["x", "x"]})  # compiled loops are loaded too
    evaluate(np.eye(2, dtype=np.float32), ImageSet(normalise(few), Path()))
    size = data.size
    columns: dict[str, Any] = {
        "path": [f"{row}.jpg" for row in range(size.images)],
        "object": [str(name) for name in data.object],
    }
    if data.camera is not None:
        columns["camera"] = [str(camera) for camera in data.camera]
    if size.queries:
        columns["role"] = ["query"] * size.queries + ["gallery"] * (size.images - size.queries)
    table = pl.DataFrame(columns)

    def scores(cross_camera: bool | None = None) -> Scores:
        images = ImageSet(normalise(table), Path())
        return evaluate(data.features, images, cross_camera=cross_camera)

    def work() -> dict[str, Any]:
        found = scores()
        value = found.mAP

        def after() -> dict[str, Any]:
            """Not timed: what the others' numbers are compared with."""
            np.save(data.folder / "ap.npy", found.per_query["AP"].to_numpy())
            return {} if data.camera is None else {"without_junk_rule": scores(False).mAP}

        return {"mAP": value, "after": after}

    return work
