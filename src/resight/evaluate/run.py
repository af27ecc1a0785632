"""From a model, or features of any origin, to scores in a folder with a report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.data.splits import hold_out_test
from resight.errors import UserError
from resight.evaluate.protocols import Level
from resight.evaluate.scores import Scores, evaluate
from resight.evaluate.units import Rows
from resight.files import write_json

if TYPE_CHECKING:
    from resight.features.compute import EmbedOptions, Progress
    from resight.features.store import Features
    from resight.models.embedder import Embedder

SCORES = "scores.json"


@dataclass(frozen=True)
class Measured:
    """Features of the rows of `images`, which of them are usable, and where they came from."""

    features: Rows
    images: ImageSet
    valid: NDArray[np.bool_]
    origin: dict[str, Any]


def measure_model(
    embedder: Embedder,
    images: ImageSet,
    options: EmbedOptions,
    *,
    progress: Progress,
    tell: Callable[[str], None],
) -> Measured:
    """Embed the rows that take part: the test rows where there are any.

    A set without splits that the embedder was trained on gets the split of its training, so that
    no training object is among the test objects.
    """
    from resight.features.write import embed_images

    images = _as_trained(embedder, images, tell)
    if (images.table["split"] == "test").any():
        images = images.where(pl.col("split") == "test")
    features = embed_images(embedder, images, options=options, progress=progress)
    origin: dict[str, Any] = {"embedder": embedder.fingerprint(), "info": embedder.info}
    origin |= {"flip": options.flip, "scales": list(options.scales)}
    origin |= {"skipped": features.info["skipped"]}
    return Measured(features, images, features.valid, origin)


def measure_features(path: Path, images: ImageSet | None) -> Measured:
    """Features from a .npy file (N, D), in the order of the rows, or from a features folder.

    Raises UserError: not such a file or folder, or of another shape or type.
    """
    from resight.features.store import Features, is_features

    if not path.exists():
        raise UserError(f"--features {path}: not found")
    if is_features(path):
        stored = Features.load(path)
        return Measured(stored, images or stored.images, stored.valid, {"features": stored.info})
    if path.is_dir():
        raise UserError(f"--features {path}: not a features folder (made by 'resight embed')")
    if images is None:
        raise UserError(f"--features {path}: --data is missing: the images of its rows")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"--features {path}: can't be read as a .npy array ({first})") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"--features {path}: an archive; save one array with numpy.save")
    if array.ndim != 2 or array.dtype.kind != "f":
        raise UserError(
            f"--features {path}: shape {array.shape}, type {array.dtype}; "
            "an (N, D) array of float32 or float16 is needed"
        )
    valid = np.ones(len(array), bool)
    return Measured(array, images, valid, {"features": str(path.absolute())})


def measure(
    features: Features | NDArray[np.floating[Any]],
    images: ImageSet | None = None,
    *,
    level: Level = "image",
    cross_camera: bool | None = None,
) -> Scores:
    """Scores of features (N, D), in the order of the rows of `images` (default: their own).

    The protocol is the one that the image set asks for (see `protocols.choose`).

    Raises UserError: lengths differ, or no query has a match.
    """
    own = getattr(features, "images", None)
    images = images if images is not None else own
    if images is None:
        raise UserError("measure: images are missing, the image set of the features' rows")
    valid = getattr(features, "valid", None)
    return evaluate(features, images, level=level, cross_camera=cross_camera, valid=valid)


def score(measured: Measured, levels: tuple[Level, ...], cross_camera: bool | None) -> list[Scores]:
    """Scores at each of the levels."""
    usable = None if measured.valid.all() else measured.valid
    return [
        evaluate(
            measured.features, measured.images, level=level, cross_camera=cross_camera, valid=usable
        )
        for level in levels
    ]


def write_folder(folder: Path, measured: Measured, scores: list[Scores], title: str) -> Path:
    """Write scores, per-query results, a record of the run and report.html; the page's path."""
    from resight.evaluate.report import write_report
    from resight.provenance import git_state, versions

    folder.mkdir(parents=True, exist_ok=True)
    for one in scores:
        one.save(folder / one.protocol.level)
    page = write_report(folder / "report.html", scores, measured.images, title=title)
    record = {
        "command": sys.argv,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "data": {
            "source": str(Path(measured.images.source).absolute()),
            "fingerprint": measured.images.fingerprint(),
        },
        "origin": measured.origin,
        "versions": versions(),
        "git": git_state(Path.cwd()),
        "scores": [one.summary() for one in scores],
        "protocols": [one.protocol.to_dict() for one in scores],
    }
    write_json(folder / SCORES, record)  # last: it marks the folder as whole
    return page


def _as_trained(embedder: Embedder, images: ImageSet, tell: Callable[[str], None]) -> ImageSet:
    if images.has("split") or not images.objects():
        return images
    split = hold_out_test(images)
    if embedder.info.get("data", {}).get("fingerprint") == split.fingerprint():
        tell("trained on this set: only the objects that were held out as test are evaluated")
        return split
    return images
