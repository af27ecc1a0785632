"""Market-1501 (Zheng et al., ICCV 2015): person re-identification, six cameras.

Folders bounding_box_train, query, bounding_box_test; names like 0002_c1s1_000451_03.jpg give
the person and the camera. Person -1 is junk (left out), 0 is a distractor: in the gallery, but
nobody's match.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from resight.errors import UserError

_FOLDERS = {
    "bounding_box_train": ("train", None),
    "query": ("test", "query"),
    "bounding_box_test": ("test", "gallery"),
}
_NAME = re.compile(r"(-1|\d+)_c(\d)")
# images, objects: section 3 of the paper, and the released files
_PUBLISHED = {"bounding_box_train": 12_936, "query": 3_368, "bounding_box_test": 15_913}


def recognise(folder: Path) -> bool:
    """Whether the three folders are there."""
    return all((folder / name).is_dir() for name in _FOLDERS)


def read(folder: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The images with person and camera; the notes name counts that differ from the published.

    Raises UserError when a file's name does not follow the layout.
    """
    rows: list[tuple[str, str | None, str, str, str | None]] = []
    notes = []
    for name, (split, role) in _FOLDERS.items():
        count = 0
        for path in sorted((folder / name).glob("*.jpg")):
            match = _NAME.match(path.name)
            if match is None:
                raise UserError(f"{path}: not a Market-1501 name like 0002_c1s1_000451_03.jpg")
            person, camera = match.groups()
            if person == "-1":
                continue
            # A distractor is nobody: its object is unknown, so it can only be in the way.
            known = person if int(person) > 0 else None
            rows.append((f"{name}/{path.name}", known, camera, split, role))
            count += 1
        if count != _PUBLISHED[name]:
            notes.append(f"Market-1501 {name}: {count:,} images, published {_PUBLISHED[name]:,}")
    columns = ["path", "object", "camera", "split", "role"]
    schema = {column: pl.String() for column in columns}
    return pl.DataFrame(rows, schema=schema, orient="row"), tuple(notes)
