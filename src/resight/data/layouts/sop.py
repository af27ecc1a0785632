"""Stanford Online Products (Song et al., CVPR 2016): products of 12 kinds from an auction site.

Lists Ebay_train.txt and Ebay_test.txt: image, class, super-class and path of each picture, below a
line that names these columns. The class is the object; every test image queries all others.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from resight.data.layouts.layout import TEST, TRAIN, Count, Layout, words
from resight.errors import UserError

_LISTS = {"Ebay_train.txt": "train", "Ebay_test.txt": "test"}
_HEADER = ["image_id", "class_id", "super_class_id", "path"]


def read(folder: Path) -> pl.DataFrame:
    """The images of both lists; super_class_id is kept.

    Raises UserError when a list does not begin with its header, or a line is too short.
    """
    tables = []
    for name, split in _LISTS.items():
        rows = words(folder / name, len(_HEADER))
        if rows[:1] != [_HEADER]:
            raise UserError(f"{folder / name}, line 1: not the header {' '.join(_HEADER)!r}")
        table = pl.DataFrame(rows[1:], schema=dict.fromkeys(_HEADER, pl.String), orient="row")
        tables.append(table.with_columns(split=pl.lit(split)))
    return pl.concat(tables).select(
        "path", "split", "super_class_id", object=pl.col("class_id"), role=pl.lit(None, pl.String)
    )


LAYOUT = Layout(
    name="sop",
    title="Stanford Online Products",
    page="https://cvgl.stanford.edu/projects/lifted_struct/",
    terms="research",
    parts=tuple(_LISTS),
    signature=tuple(_LISTS),
    counts=(  # section 5 of the paper
        Count("training images", (59_551,), TRAIN),
        Count("training objects", (11_318,), TRAIN, objects=True),
        Count("test images", (60_502,), TEST),
        Count("test objects", (11_316,), TEST, objects=True),
    ),
    read=read,
)
