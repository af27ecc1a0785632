"""VGGFace2 (Cao et al., FG 2018): faces of 9,131 people, collected from the web.

Folders train/n000002/0001_01.jpg and test/n000001/..., one a person; either may be alone. The
boxes of faces are those of bb_landmark/loose_bb_train.csv and loose_bb_test.csv (NAME_ID like
n000001/0001_01, X, Y, W, H), where they are there. Every test image asks all the others.
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from resight.data.layouts.csvlist import corners, read_list
from resight.data.layouts.layout import TEST, TRAIN, Count, Layout

_SPLITS = ("train", "test")
_SCHEMA = {"path": pl.String(), "object": pl.String()}


def read(folder: Path) -> pl.DataFrame:
    """The images with person and, where there is a list of them, box.

    Raises UserError when a list of boxes is broken.
    """
    return pl.concat([_split(folder, split) for split in _SPLITS], how="diagonal")


def _split(folder: Path, split: str) -> pl.DataFrame:
    paths: list[str] = []
    people: list[str] = []
    for person in _names(folder / split):
        # Names only: asking the disk about three million files would take minutes.
        images = [name for name in _names(folder / split / person) if name.endswith(".jpg")]
        paths += [f"{split}/{person}/{name}" for name in images]
        people += [person] * len(images)
    table = pl.DataFrame({"path": paths, "object": people}, schema=_SCHEMA)
    table = table.with_columns(split=pl.lit(split))
    boxes = folder / "bb_landmark" / f"loose_bb_{split}.csv"
    if not boxes.is_file():
        return table
    lists = read_list(boxes, ["NAME_ID"], ["X", "Y", "W", "H"])
    path = pl.concat_str(pl.lit(f"{split}/"), pl.col("NAME_ID"), pl.lit(".jpg"))
    lists = lists.select(path.alias("path"), corners("X", "Y", "W", "H").alias("box"))
    return table.join(lists.unique("path", keep="first"), "path", "left", maintain_order="left")


def _names(folder: Path) -> list[str]:
    """What lies in a folder, sorted; nothing where it is no folder."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


# A person's folder has an n and six digits, one of ImageNet's has eight.
_ONE = "n00????/*_??.jpg"
LAYOUT = Layout(
    name="vggface2",
    title="VGGFace2",
    page="https://github.com/ox-vgg/vgg_face2",
    terms="research; no longer given out",
    parts=("train/ or test/",),
    signature=(" or ".join(f"{split}/{_ONE}" for split in _SPLITS),),
    counts=(  # table 2 of the paper, and the released lists
        Count("training images", (3_141_890,), TRAIN),
        Count("training objects", (8_631,), TRAIN, objects=True),
        Count("test images", (169_396,), TEST),
        Count("test objects", (500,), TEST, objects=True),
    ),
    read=read,
    notice="since 2020 its authors no longer give it out; ask whether you may still use it.",
)
