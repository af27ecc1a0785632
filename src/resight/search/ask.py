"""Queries from files, their answers, and the picture of both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from resight.data.imageset import ImageSet, normalise
from resight.data.loading import strict_stop
from resight.data.sheet import PLAIN, RIGHT, WRONG, Opener, contact_sheet
from resight.data.sources import load_images
from resight.errors import UserError
from resight.features.compute import EmbedOptions, embed_rows
from resight.files import atomic_path
from resight.search.gallery import Gallery
from resight.search.hits import Hits
from resight.search.rows import query_rows

_SETS = (".csv", ".tsv", ".txt", ".parquet")


@dataclass(frozen=True)
class Answer:
    """A query (its object, where known) and its hits, best first."""

    path: str
    object: str | None
    box: list[float] | None
    hits: Hits

    def to_dict(self) -> dict[str, Any]:
        """For JSON; "right" says of each hit whether it is the query's object, where known."""
        hits = []
        for hit in self.hits:
            right = None if self.object is None else hit.object == self.object
            hits.append(hit.to_dict() | {"right": right})
        return {"path": self.path, "object": self.object, "hits": hits}


def is_set(path: Path) -> bool:
    """Whether a path is a folder or a table, rather than a photo."""
    return path.is_dir() or path.suffix.lower() in _SETS


def load_queries(
    paths: Sequence[Path],
    limit: int,
    columns: Mapping[str, str],
    layout: str | None = None,
    unlabelled: bool = False,
) -> ImageSet:
    """Photos as an image set without labels; or the queries of one set, at most `limit`.

    Raises UserError: a path that is not there, or a set among several paths.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: not found; give photos, a folder, or a CSV or Parquet file")
    sets = [path for path in paths if is_set(path)]
    if not sets:
        table = normalise(pl.DataFrame({"path": [str(path.absolute()) for path in paths]}))
        return ImageSet(table, Path(), ", ".join(map(str, paths[:3])))
    if len(paths) > 1:
        raise UserError(f"{sets[0]}: an image set goes alone; give it without other queries")
    images = load_images(sets[0], columns=columns, layout=layout, unlabelled=unlabelled)
    if unlabelled:  # of a table, too
        images = replace(
            images, table=images.table.with_columns(pl.lit(None, pl.String).alias("object"))
        )
    rows = query_rows(images).to_numpy()
    spread = np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(int))
    return images.rows(rows[spread].tolist())


def ask(
    gallery: Gallery,
    images: ImageSet,
    k: int,
    *,
    workers: int = 0,
    strict: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Answer]:
    """Search every image of a set; a query never finds its own file at image level.

    Raises UserError when not one of the queries can be read.
    """
    if gallery.embedder is None:
        raise UserError("this gallery has no embedder; index it from an embedder or a run")
    vectors, bad = embed_rows(
        gallery.embedder, images, options=EmbedOptions(batch_size=16, workers=workers)
    )
    for error in bad:
        if strict or len(images) == 1:
            raise strict_stop(error) if strict else UserError(str(error))
        tell(f"skipped {error.path}: {error.reason}")
    rows = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if not len(rows):
        raise UserError(f"none of the {len(images)} queries can be read (the first: {bad[0]})")
    paths = [os.path.abspath(images.full_paths()[row]) for row in rows]
    found = gallery.search_vectors(vectors[rows], k, exclude=paths)
    table = images.table
    return [
        Answer(path, table["object"][row], table["box"].to_list()[row], hits)
        for path, row, hits in zip(paths, rows.tolist(), found, strict=True)
    ]


def write_sheet(
    answers: Sequence[Answer],
    path: Path,
    tile: int = 128,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """A PNG with a row a query: the query, then its hits, framed green or red by the truth.

    `tell` is told of photos that are no longer where the gallery has them. Raises UserError when
    the ending of `path` is no image format's.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"--sheet {path}: its name must end in .png, .jpg or .webp")
    rows, opener = [], Opener(tile)
    for answer in answers:
        name = answer.object if answer.object is not None else Path(answer.path).name
        row = [opener.tile(answer.path, answer.box, f"{name}\nquery", "#3b6fb6")]
        for hit in answer.hits:
            frame = PLAIN
            if answer.object is not None:
                frame = RIGHT if hit.object == answer.object else WRONG
            caption = f"{hit.object or Path(hit.path).name}\n{hit.rank}: {hit.similarity:.3f}"
            row.append(opener.tile(hit.path, hit.box, caption, frame))
        rows.append(row)
    with atomic_path(path) as temporary:
        kind = {"jpg": "jpeg"}.get(path.suffix.lower()[1:], path.suffix.lower()[1:])
        contact_sheet(rows, tile=tile).save(temporary, kind)
    for line in opener.notes():
        tell(f"{line}; index them where they are now")
    return path
