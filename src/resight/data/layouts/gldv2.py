"""Google Landmarks v2 (Weyand et al., CVPR 2020): landmarks from Wikimedia Commons, retrieval.

Images lie in train/, index/ and test/ as a/b/c/abc....jpg after their 16-letter id. Lists:
train.csv (landmarks, the `object` of training images), train_clean.csv (the part without wrong
photos: column `clean`), index.csv (the gallery) and retrieval_solution_v2.1.csv (each query's
matches: `positives`, and `usage`, public or private; ignored queries, 99 of 100, are left out).
They may lie in the folder itself, in metadata/, or beside the images that they list. Training
and test may each be there alone.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from resight.data.layouts.csvlist import read_list
from resight.data.layouts.layout import GALLERY, QUERY, TRAIN, Count, Layout
from resight.errors import UserError

_PAGE = "https://github.com/cvdfoundation/google-landmark"
_SOLUTION = "retrieval_solution_v2*.csv"  # a corrected edition has another number


def read(folder: Path) -> pl.DataFrame:
    """Queries, gallery, then training images, as far as their lists are there.

    Raises UserError when there is a gallery without a solution, or a list is broken.
    """
    parts = []
    index, solution = _find(folder, "index.csv"), _find(folder, _SOLUTION)
    if index and solution:
        parts += [_queries(solution), _table(read_list(index, ["id"]), "index", "gallery")]
    elif index or solution:
        lacking = _SOLUTION if index else "index.csv"
        raise UserError(f"{folder}: {lacking} is missing, which the test needs; see {_PAGE}")
    train = _train(_find(folder, "train.csv"), _find(folder, "train_clean.csv"))
    if train is not None:
        parts.append(_table(train, "train", None))
    return pl.concat(parts, how="diagonal")


def _find(folder: Path, name: str) -> Path | None:
    return next((p for way in (name, f"*/{name}") for p in sorted(folder.glob(way))), None)


def _table(lists: pl.DataFrame, kind: str, role: str | None) -> pl.DataFrame:
    """A table of the images with these ids; those that have no object have a list instead."""
    if "object" not in lists.columns:
        lists = lists.with_columns(pl.lit(None, dtype=pl.String).alias("object"))
    name = pl.col("id")
    folders = [name.str.slice(at, 1) for at in range(3)]
    path = pl.concat_str(pl.lit(kind), *folders, name, separator="/") + ".jpg"
    return lists.select(
        path.alias("path"),
        pl.lit("train" if kind == "train" else "test").alias("split"),
        pl.lit(role, dtype=pl.String).alias("role"),
        name.alias("name"),
        pl.exclude("id"),
    )


def _queries(solution: Path) -> pl.DataFrame:
    lists = read_list(solution, ["id", "images", "Usage"])
    usage = pl.col("Usage").str.to_lowercase()
    known = pl.Series(["public", "private", "ignored"])
    strange = lists.with_row_index().filter(~usage.is_in(known))
    if strange.height:
        number, value = strange.select("index", "Usage").row(0)
        raise UserError(f"{solution}, line {number + 2}: Usage {value!r} is none of {list(known)}")
    asked = lists.filter(usage != "ignored", pl.col("images").str.to_lowercase() != "none")
    positives = pl.col("images").str.split(" ").list.filter(pl.element() != "")
    asked = asked.select("id", usage.alias("usage"), positives.alias("positives"))
    return _table(asked, "test", "query")


def _train(everything: Path | None, clean: Path | None) -> pl.DataFrame | None:
    landmark = pl.col("landmark_id").alias("object")
    chosen = None
    if clean:
        chosen = read_list(clean, ["landmark_id", "images"]).select(
            pl.col("images").str.split(" ").alias("id"), landmark
        )
        chosen = chosen.explode("id").filter(pl.col("id") != "")
    if everything is None:
        return None if chosen is None else chosen.with_columns(clean=True)
    table = read_list(everything, ["id", "landmark_id"]).select("id", landmark)
    if chosen is None:
        return table
    return table.with_columns(pl.col("id").is_in(chosen["id"].implode()).alias("clean"))


_CLEAN = pl.col("clean")
_LISTS = ("index.csv", "train.csv", "train_clean.csv")
LAYOUT = Layout(
    name="gldv2",
    title="Google Landmarks v2",
    page=_PAGE,
    terms="annotations CC BY 4.0; every image under its own free licence",
    parts=(" or ".join(f"{name} or */{name}" for name in _LISTS),),
    signature=(f"{_SOLUTION} or */{_SOLUTION} or train_clean.csv or */train_clean.csv",),
    index="index.csv",
    counts=(  # the page, and the lists of version 2.1; training with all images or the clean ones
        Count("training images", (4_132_914, 1_580_470), TRAIN),
        Count("training objects", (203_094, 81_313), TRAIN, objects=True),
        Count("query images", (1_129,), QUERY),
        Count("gallery images", (761_757,), GALLERY),
    ),
    read=read,
)
