"""Put the page together: numbers, figures, pictures, words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from resight.evaluate.report import hits as found
from resight.evaluate.report.render import write_page
from resight.evaluate.report.thumbnails import LoadThumbnail, data_uri, open_thumbnails
from resight.evaluate.report.words import describe, ties_in_words
from resight.evaluate.scores import Scores
from resight.evaluate.units import Rows

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet

BEST, WORST, HITS = 8, 16, 10
_LISTED = 12  # objects and cameras named in the tables


@dataclass(frozen=True)
class _Picture:
    """One picture of a strip: a query or a hit."""

    source: str  # a data URI, empty where there is no picture
    path: str
    object: str | None
    hit: found.Hit | None = None


@dataclass(frozen=True)
class _Strip:
    """A query, its first hits, and its best positive where that is not among them."""

    ap: float
    positives: int
    camera: str | None
    query: _Picture
    hits: list[_Picture]
    late: _Picture | None


def write_report(
    path: Path,
    scores: Sequence[Scores],
    features: Rows,
    imageset: ImageSet,
    *,
    title: str,
    load_thumbnail: LoadThumbnail | None = None,
    command: str | None = None,
) -> Path:
    """Write one HTML page, with everything it needs inside, about scores of the same features.

    scores: one a level, at least one; pictures and details are of the image level where it is
    among them. features (N, D): those that were scored. load_thumbnail: gives a small picture
    of a row of the image set, or None; by default the file is opened. command: what repeats the
    numbers, shown as it is. Returns `path`.

    Raises ValueError without scores, OSError when the page can't be written.
    """
    if not scores:
        raise ValueError("a report needs at least one Scores")
    first = next((one for one in scores if one.protocol.level == "image"), scores[0])
    return write_page(
        Path(path),
        "page.html.j2",
        title=title,
        source=imageset.source,
        command=command,
        columns=[_column(one) for one in scores],
        cutoffs=sorted({1, 5, 10}.union(*(one.protocol.cutoffs for one in scores))),
        notes=list(dict.fromkeys(note for one in scores for note in one.notes())),
        first_level=first.protocol.level,
        ties=ties_in_words(first.protocol.ties),
        **_details(scores, first, features, load_thumbnail or open_thumbnails(imageset)),
    )


def _column(one: Scores) -> dict[str, Any]:
    """One level of the table of numbers."""
    return {
        "summary": one.summary(),
        "words": describe(one),
        "json": json.dumps(one.protocol.to_dict(), indent=2, ensure_ascii=False),
    }


def _details(
    scores: Sequence[Scores], first: Scores, features: Rows, load: LoadThumbnail
) -> dict[str, Any]:
    """Figures, tables and pictures."""
    from markupsafe import Markup

    from resight.evaluate.report import plots

    gallery = found.searched(first, features)
    negatives = found.sample_negatives(first, features, gallery)
    objects = _means(first, "object")
    return {
        "cmc": Markup(plots.cmc_curve(scores)),
        "ap_histogram": Markup(plots.ap_histogram(scores)),
        "similarities": Markup(
            plots.similarity_histogram(first.ranks.similarity, negatives.similarity)
        ),
        "object_histogram": Markup(
            plots.object_histogram(objects["AP"].to_numpy(), first.protocol.level)
        ),
        "positive_pairs": len(first.ranks.similarity),
        "negatives": negatives,
        "objects": objects.head(_LISTED).to_dicts(),
        "n_objects": objects.height,
        "cameras": _means(first, "camera").head(_LISTED).to_dicts(),
        "n_cameras": first.per_query["camera"].n_unique(),
        **_strips(first, features, gallery, load),
    }


def _means(scores: Scores, column: str) -> pl.DataFrame:
    """Mean and quartiles of AP, and the number of queries, by object or camera; weakest first."""
    ap = pl.col("AP")
    return (
        scores.per_query.group_by(pl.col(column).alias("name"))
        .agg(
            ap.mean().alias("AP"),
            ap.quantile(0.25, "linear").alias("low"),
            ap.median().alias("middle"),
            ap.quantile(0.75, "linear").alias("high"),
            pl.len().alias("queries"),
        )
        .sort("AP", "name")
    )


def _strips(
    scores: Scores, features: Rows, gallery: found.Searched, load: LoadThumbnail
) -> dict[str, list[_Strip]]:
    """The worst and the best queries with their first hits."""
    ap, row = scores.per_query["AP"].to_numpy(), scores.per_query["row"].to_numpy()
    positives = scores.per_query["positives"].to_numpy()
    n_best = min(BEST, len(ap) // 2)
    worst = np.lexsort((row, ap))[: min(WORST, len(ap) - n_best)].tolist()
    # Among the many that are perfect, those with most positives are the achievement.
    order = np.lexsort((row, -positives, -ap)).tolist()
    best = [q for q in order if q not in set(worst)][:n_best]
    hits = found.first_hits(scores, features, gallery, worst + best, HITS)
    pictures = _Pictures(scores.table, load)
    strips = [
        _strip(scores, gallery, pictures, q, of_q)
        for q, of_q in zip(worst + best, hits, strict=True)
    ]
    return {"worst": strips[: len(worst)], "best": strips[len(worst) :]}


def _strip(
    scores: Scores, gallery: found.Searched, pictures: _Pictures, q: int, hits: list[found.Hit]
) -> _Strip:
    query = scores.per_query.row(q, named=True)
    late = None
    if not any(hit.right for hit in hits):
        late = pictures.of_hit(found.first_right(scores, gallery, q))
    return _Strip(
        ap=query["AP"],
        positives=query["positives"],
        camera=query["camera"],
        query=pictures.of_row(query["row"]),
        hits=[pictures.of_hit(hit) for hit in hits],
        late=late,
    )


class _Pictures:
    """Thumbnails as data URIs, each made once."""

    def __init__(self, table: pl.DataFrame, load: LoadThumbnail) -> None:
        self._table, self._load = table, load
        self._made: dict[int, str] = {}

    def of_row(self, row: int, hit: found.Hit | None = None) -> _Picture:
        if row not in self._made:
            self._made[row] = data_uri(self._load(row))
        path, name = self._table.select("path", "object").row(row)
        return _Picture(self._made[row], path, name, hit)

    def of_hit(self, hit: found.Hit) -> _Picture:
        return self.of_row(hit.row, hit)
