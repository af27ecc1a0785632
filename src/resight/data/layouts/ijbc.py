"""IJB-C (Maze et al., ICB 2018): faces in still images and in the frames of videos.

Folders images/img and images/frames, and protocols/ijbc_metadata.csv, which lists every face:
subject, file, box and sighting. The frames of one video that show one subject are one sighting,
and so is a subject in a still image. Smooth-AP (ECCV 2020) asks sighting for sighting: the
vectors of a sighting are averaged, so it is the column `template`. Every template asks all the
others. The official templates, which mix stills and videos, are not used.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from resight.data.layouts.csvlist import corners, read_list
from resight.data.layouts.layout import Count, Layout
from resight.errors import UserError

_FILES = tuple(
    f"protocols/{name}"
    for name in (
        "ijbc_metadata.csv",
        "ijbc_metadata_with_age.csv",
        "archive/ijbc_metadata.csv",
    )
)
_BOX = ("FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT")


def read(folder: Path) -> pl.DataFrame:
    """The faces of known subjects. Raises UserError when the list is broken or has none."""
    path = next(folder / name for name in _FILES if (folder / name).is_file())
    table = read_list(path, ["SUBJECT_ID", "FILENAME", "SIGHTING_ID"], _BOX, gaps=True)
    # Whole videos and images without a face are listed too.
    table = table.filter(
        pl.col("FILENAME").str.contains(r"^(img|frames)/"),
        _whole("SUBJECT_ID").is_not_null(),
        pl.col("FACE_WIDTH") > 0,
        pl.col("FACE_HEIGHT") > 0,
        pl.col("FACE_X").is_not_null() & pl.col("FACE_Y").is_not_null(),
    )
    if table.is_empty():
        raise UserError(f"{path}: no face of a known subject in it")
    subject, sighting = (_whole(name) for name in ("SUBJECT_ID", "SIGHTING_ID"))
    table = table.select(
        pl.concat_str(pl.lit("images/"), "FILENAME").alias("path"),
        subject.alias("object"),
        pl.lit("test").alias("split"),
        corners(*_BOX).alias("box"),
        # Without a sighting a face stands for itself.
        pl.concat_str(subject, sighting.fill_null(pl.col("FILENAME")), separator=" ").alias(
            "template"
        ),
    )
    table = table.unique(["path", "object", "box"], keep="first", maintain_order=True)
    # One face can't be two people: a few are, so nobody knows who they are.
    return table.filter(~pl.struct("path", "box").is_duplicated())


def _whole(name: str) -> pl.Expr:
    """A column of ids; some tools save 7 as 7.0, and a gap as nan."""
    text = pl.col(name).str.strip_suffix(".0")
    return pl.when(text.str.to_lowercase() != "nan").then(text)


LAYOUT = Layout(
    name="ijbc",
    title="IJB-C",
    page="https://www.nist.gov/itl/iad/ig/face-challenges",
    terms="on NIST's terms; no longer given out",
    parts=("images/img/", "images/frames/", " or ".join(_FILES)),
    signature=(" or ".join(_FILES),),
    counts=(  # section 3 of the paper
        Count("test objects", (3_531,), pl.col("split") == "test", objects=True),
    ),
    read=read,
    notice="NIST stopped giving it out in March 2023.",
)
