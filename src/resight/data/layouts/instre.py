"""INSTRE (Wang and Jiang, ACM TOMM 2015) as Iscen et al. (CVPR 2017) evaluate it.

Folders INSTRE-S1, INSTRE-S2 (one object an image) and INSTRE-M (two objects), and the ground
truth gnd_instre.mat: imlist (gallery), qimlist (queries) and for each query gnd.ok, the
positions of its matches in imlist from 1, and gnd.bbx, the box x1, y1, x2, y2 of the object.
An image of INSTRE-M matches the queries of both its objects: `positives`, and no `object`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from resight.data.layouts.layout import GALLERY, QUERY, Count, Layout
from resight.data.layouts.matlab import read_mat
from resight.errors import UserError

_TRUTH = ("gnd_instre.mat", "test_script/gnd_instre.mat")  # beside, or as its archive unpacks
_SUBSETS = ("INSTRE-S1", "INSTRE-S2", "INSTRE-M")


def read(folder: Path) -> pl.DataFrame:
    """Queries, then gallery. Raises UserError when the ground truth is broken."""
    path = next(folder / name for name in _TRUTH if (folder / name).is_file())
    truth = read_mat(path)
    gallery, queries = _names(truth, "imlist", path), _names(truth, "qimlist", path)
    entries = truth.get("gnd")
    if not isinstance(entries, list) or len(entries) != len(queries):
        raise UserError(f"{path}: gnd is not one entry for each of {len(queries)} queries")
    boxes, positives = [], []
    for number, (name, entry) in enumerate(zip(queries, entries, strict=True), start=1):
        try:
            places = [int(place) for place in np.ravel(entry["ok"])]
            if any(place < 1 for place in places):
                raise IndexError("a position below 1")
            positives.append([gallery[place - 1] for place in places])
            boxes.append([float(value) for value in np.ravel(entry["bbx"])])
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: gnd({number}) ({name}) is broken: {error!r}") from None
    found = pl.DataFrame(
        {"path": queries, "role": "query", "box": boxes, "positives": positives},
        schema_overrides={"box": pl.List(pl.Float64()), "positives": pl.List(pl.String())},
    )
    table = pl.concat(
        [found, pl.DataFrame({"path": gallery}).with_columns(role=pl.lit("gallery"))],
        how="diagonal",
    )
    subset = pl.col("path").str.extract(r"^INSTRE-(\w+)/").alias("subset")
    return table.with_columns(
        pl.lit(None, dtype=pl.String).alias("object"),
        pl.lit("test").alias("split"),
        pl.col("path").alias("name"),
        subset,
    )


def _names(truth: dict[str, Any], part: str, path: Path) -> list[str]:
    names = truth.get(part)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: {part} is not a list of image names")
    return names


LAYOUT = Layout(
    name="instre",
    title="INSTRE",
    page="http://123.57.42.89/instre/home.html",
    terms="research; the ground truth is at https://cmp.felk.cvut.cz/~iscenahm/code.html",
    parts=(" or ".join(_TRUTH), *(f"{name}/" for name in _SUBSETS)),
    signature=(" or ".join(_TRUTH),),
    counts=(  # section 5 of Iscen et al., and the released file
        Count("query images", (1_250,), QUERY),
        Count("gallery images", (27_293,), GALLERY),
        Count("gallery images of two objects", (5_223,), GALLERY & (pl.col("subset") == "M")),
    ),
    read=read,
)
