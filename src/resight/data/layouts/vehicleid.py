"""PKU VehicleID (Liu et al., CVPR 2016): vehicles seen from the front and from behind.

Lists in train_test_split, of lines "image vehicle"; the pictures are image/IMAGE.jpg. The test
lists of 800, 1,600 and 2,400 vehicles are the columns small, medium and large: an image may stand
in all of them. No image has a role: one protocol leaves one out, the other draws the gallery.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from resight.data.layouts.layout import TEST, TRAIN, Count, Layout, numbered
from resight.errors import UserError

_SIZES = {"small": 800, "medium": 1_600, "large": 2_400}
_LISTS = {"train": "train_list.txt"} | {n: f"test_list_{size}.txt" for n, size in _SIZES.items()}


def read(folder: Path) -> pl.DataFrame:
    """The images of the lists that are there, with Boolean columns small, medium and large.

    Raises UserError when a line is too short, or lists differ in an image's vehicle or split.
    """
    seen: dict[str, tuple[str, str]] = {}
    members: dict[str, set[str]] = {}
    for name, file in _LISTS.items():
        path = folder / "train_test_split" / file
        split = "train" if name == "train" else "test"
        members[name] = set()
        for line, (image, vehicle) in numbered(path, 2) if path.is_file() else ():
            before = seen.setdefault(image, (vehicle, split))
            if before != (vehicle, split):
                raise UserError(
                    f"{path}, line {line}: image {image} is vehicle {vehicle} ({split}) here,"
                    f" and {before[0]} ({before[1]}) before"
                )
            members[name].add(image)
    return pl.DataFrame(
        {
            "path": [f"image/{image}.jpg" for image in seen],
            "object": [vehicle for vehicle, _ in seen.values()],
            "split": [split for _, split in seen.values()],
            "role": pl.Series([None] * len(seen), dtype=pl.String),
        }
        | {size: [image in members[size] for image in seen] for size in _SIZES}
    )


# The paper's counts and those of the released lists: two editions.
_IMAGES = {"small": (7_332, 6_493), "medium": (12_995, 13_377), "large": (20_038, 19_777)}
LAYOUT = Layout(
    name="vehicleid",
    title="PKU VehicleID",
    page="https://www.pkuml.org/resources/pku-vehicleid.html",
    terms="academic research, on request",
    parts=("image/", "train_test_split/train_list.txt or train_test_split/test_list_*.txt"),
    signature=(
        "image/",
        "train_test_split/train_list.txt or train_test_split/test_list_800.txt",
    ),
    counts=(
        Count("training images", (110_178, 113_346), TRAIN),
        Count("training objects", (13_134, 13_164), TRAIN, objects=True),
        *(Count(f"{size} test images", _IMAGES[size], TEST & pl.col(size)) for size in _SIZES),
        *(
            Count(f"{size} test objects", (number,), TEST & pl.col(size), objects=True)
            for size, number in _SIZES.items()
        ),
    ),
    read=read,
)
