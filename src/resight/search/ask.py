"""Queries from files, their answers, and the picture of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from resight.data.addresses import Address, absolute
from resight.data.imageset import ImageSet, normalise
from resight.data.stores import need
from resight.errors import UserError
from resight.files import atomic_path
from resight.graph.rerank import parse
from resight.search.centroids import joined
from resight.search.gallery import Gallery
from resight.search.hits import Hits
from resight.search.rows import query_rows
from resight.search.verifying import Photo

_SETS = (".csv", ".tsv", ".txt", ".parquet")


@dataclass(frozen=True)
class Answer:
    """A query (its object, where known) and its hits, best first; `photos` of one thing."""

    path: str
    object: str | None
    box: list[float] | None
    hits: Hits
    photos: int = 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON; "right" says of each hit whether it is the query's object, where known."""
        content = self.hits.to_dict()
        for hit in content["hits"]:
            hit["right"] = None if self.object is None else hit["object"] == self.object
        return {"path": self.path, "object": self.object} | content


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
        photos = [absolute(path) for path in paths]
        away = [photo for photo in photos if isinstance(photo, Address)]
        need(away)
        table = normalise(pl.DataFrame({"path": ["".join(photo) for photo in photos]}))
        opens = {"".join(photo): photo.whole for photo in away}
        return ImageSet(table, Path(), ", ".join(map(str, paths[:3])), opens=opens)
    if len(paths) > 1:
        raise UserError(f"{sets[0]}: an image set goes alone; give it without other queries")
    from resight.data.sources import load_images

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
    together: bool = False,
    workers: int = 0,
    strict: bool = False,
    tell: Callable[[str], None] = lambda line: None,
    rerank: str | None = None,
    **how: Any,
) -> list[Answer]:
    """Search every image of a set; a query never finds its own file at image level.

    `together`: all images show one thing, and are one query. `how`: as in `search_vectors`.

    Raises UserError when not one of the queries can be read.
    """
    chain = parse(rerank) if rerank is not None else None  # its mistakes, before anything is read
    from resight.data.pixels import strict_stop
    from resight.features.compute import EmbedOptions, embed_rows

    vectors, bad = embed_rows(
        gallery.network(len(images)), images, options=EmbedOptions(batch_size=16, workers=workers)
    )
    for error in bad:
        if strict or len(images) == 1:
            raise strict_stop(error) if strict else UserError(str(error))
        tell(f"skipped {error.path}: {error.reason}")
    rows = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    if not len(rows):
        raise UserError(f"none of the {len(images)} queries can be read (the first: {bad[0]})")
    paths = [absolute(images.full_paths()[row]) for row in rows]
    table = images.table
    how["rerank"] = chain
    if chain is not None and chain.spatial is not None:
        boxes = table["box"].to_list()
        seen = [[Photo(*pair)] for pair in zip(paths, (boxes[r] for r in rows), strict=True)]
        how["photos"] = [[photo for line in seen for photo in line]] if together else seen
    if together:
        (hits,) = gallery.search_vectors(joined(vectors[rows], [len(rows)]), k, **how)
        named = set(table["object"].drop_nulls())
        object_ = named.pop() if len(named) == 1 else None
        return [Answer(paths[0], object_, table["box"].to_list()[rows[0]], hits, len(rows))]
    found = gallery.search_vectors(vectors[rows], k, exclude=paths, **how)
    return [
        Answer(path, table["object"][row], table["box"].to_list()[row], hits)
        for path, row, hits in zip(paths, rows.tolist(), found, strict=True)
    ]


def parse_region(text: str | None) -> list[float] | None:
    """ "x1,y1,x2,y2" as numbers. Raises UserError for anything else."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or numbers[0] >= numbers[2] or numbers[1] >= numbers[3]:
        raise UserError(f"--region {text}: not x1,y1,x2,y2 in pixels, with x1 < x2 and y1 < y2")
    return numbers


def with_region(images: ImageSet, box: list[float] | None) -> ImageSet:
    """The same images, only this part of each looked at."""
    if box is None:
        return images
    boxes = pl.Series("box", [box] * len(images), dtype=pl.List(pl.Float64()))
    return replace(images, table=images.table.with_columns(boxes))


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
    from resight.data.sheet import PLAIN, RIGHT, WRONG, Opener, contact_sheet

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
            known = "" if hit.probability is None else f", {100 * hit.probability:.0f} %"
            if hit.rank == 1 and answer.hits.no_match:
                known = ", no match"
            name = hit.object or Path(hit.path).name
            caption = f"{name}\n{hit.rank}: {hit.similarity:.3f}{known}"
            row.append(opener.tile(hit.path, hit.box, caption, frame))
        rows.append(row)
    with atomic_path(path) as temporary:
        kind = {"jpg": "jpeg"}.get(path.suffix.lower()[1:], path.suffix.lower()[1:])
        contact_sheet(rows, tile=tile).save(temporary, kind)
    for line in opener.notes():
        tell(f"{line}; index them where they are now")
    return path
