"""Market-1501 (Zheng et al., ICCV 2015): person re-identification, six cameras.

Folders bounding_box_train, query, bounding_box_test; names like 0002_c1s1_000451_03.jpg give
the person and the camera. Person -1 is junk (left out), 0 is a distractor: in the gallery, but
nobody's match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from resight.data.layouts.layout import GALLERY, QUERY, TRAIN, Count, Layout, images_in
from resight.errors import UserError

FOLDERS: dict[str, tuple[str, str | None]] = {
    "bounding_box_train": ("train", None),
    "query": ("test", "query"),
    "bounding_box_test": ("test", "gallery"),
}
_NAME = re.compile(r"(-1|\d+)_c(\d+)")
_SCHEMA = {name: pl.String() for name in ("path", "object", "camera", "split", "role")}


def read(
    folder: Path,
    title: str = "Market-1501",
    folders: Mapping[str, tuple[str, str | None]] = FOLDERS,
    example: str = "0002_c1s1_000451_03.jpg",
) -> pl.DataFrame:
    """The images with object and camera, from names that begin as Market-1501's do.

    folders: the split and the role that each stands for. title and example are for the error.
    Raises UserError when a file's name does not follow the layout.
    """
    rows: list[tuple[str, str | None, str, str, str | None]] = []
    for name, (split, role) in folders.items():
        for path in images_in(folder, name):
            match = _NAME.match(path.name)
            if match is None:
                raise UserError(f"{path}: not a {title} name like {example}")
            person, camera = match.groups()
            if person == "-1":
                continue
            # A distractor is nobody: its object is unknown, so it can only be in the way.
            known = person if int(person) > 0 else None
            rows.append((f"{name}/{path.name}", known, camera, split, role))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


LAYOUT = Layout(
    name="market1501",
    title="Market-1501",
    page="https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
    terms="academic research",
    parts=tuple(f"{name}/" for name in FOLDERS),
    # The names as well: other benchmarks have the same folders.
    signature=("bounding_box_train/*_c?s?_*.jpg", "bounding_box_test/"),
    counts=(  # section 3 of the paper, and the released files
        Count("training images", (12_936,), TRAIN),
        Count("training objects", (751,), TRAIN, objects=True),
        Count("query images", (3_368,), QUERY),
        Count("query objects", (750,), QUERY, objects=True),
        Count("gallery images without junk", (15_913,), GALLERY),
        Count("gallery distractors", (2_798,), GALLERY & pl.col("object").is_null()),
    ),
    read=read,
)
