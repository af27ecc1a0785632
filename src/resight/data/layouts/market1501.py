"""Market-1501 (Zheng et al., ICCV 2015): person re-identification, six cameras.

Folders bounding_box_train, query, bounding_box_test; names like 0002_c1s1_000451_03.jpg give
the person and the camera. Person -1 is junk (left out), 0 is a distractor: in the gallery, but
nobody's match.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from resight.data.layouts.layout import Count, Layout, images_in
from resight.errors import UserError

_FOLDERS = {
    "bounding_box_train": ("train", None),
    "query": ("test", "query"),
    "bounding_box_test": ("test", "gallery"),
}
_NAME = re.compile(r"(-1|\d+)_c(\d)")
_SCHEMA = {name: pl.String() for name in ("path", "object", "camera", "split", "role")}


def read(folder: Path, title: str = "Market-1501") -> pl.DataFrame:
    """The images with person and camera.

    Raises UserError when a file's name does not follow the layout.
    """
    rows: list[tuple[str, str | None, str, str, str | None]] = []
    for name, (split, role) in _FOLDERS.items():
        for path in images_in(folder, name):
            match = _NAME.match(path.name)
            if match is None:
                raise UserError(f"{path}: not a {title} name like 0002_c1s1_000451_03.jpg")
            person, camera = match.groups()
            if person == "-1":
                continue
            # A distractor is nobody: its object is unknown, so it can only be in the way.
            known = person if int(person) > 0 else None
            rows.append((f"{name}/{path.name}", known, camera, split, role))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


_TRAIN = pl.col("split") == "train"
_QUERY, _GALLERY = pl.col("role") == "query", pl.col("role") == "gallery"
LAYOUT = Layout(
    name="market1501",
    title="Market-1501",
    page="https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
    terms="academic research",
    parts=tuple(f"{name}/" for name in _FOLDERS),
    signature=("bounding_box_train/", "bounding_box_test/"),
    counts=(  # section 3 of the paper, and the released files
        Count("training images", (12_936,), _TRAIN),
        Count("training objects", (751,), _TRAIN, objects=True),
        Count("query images", (3_368,), _QUERY),
        Count("query objects", (750,), _QUERY, objects=True),
        Count("gallery images without junk", (15_913,), _GALLERY),
        Count("gallery distractors", (2_798,), _GALLERY & pl.col("object").is_null()),
    ),
    read=read,
)
