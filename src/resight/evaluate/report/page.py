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
    imageset: ImageSet,
    *,
    title: str,
    load_thumbnail: LoadThumbnail | None = None,
    command: str | None = None,
) -> Path:
    """Write one HTML page, with everything it needs inside, about scores of the same features.

    scores: one a protocol, at least one; pictures and details are of the first at image level,
    or of the first. load_thumbnail: gives a small picture of a row of the image set, or None; by
    default the file is opened. command: what repeats the numbers, shown as it is. Returns `path`.

    Raises ValueError without scores, OSError when the page can't be written.
    """
    if not scores:
        raise ValueError("a report needs at least one Scores")
    from resight.evaluate.report import plots

    first = next((one for one in scores if one.protocol.level == "image"), scores[0])
    labels = plots.labels_of(scores)
    columns = [_column(one, label) for one, label in zip(scores, labels, strict=True)]
    return write_page(
        Path(path),
        "page.html.j2",
        title=title,
        source=imageset.source,
        command=command,
        columns=columns,
        names=list(dict.fromkeys(name for one in scores for name in one.names())),
        main={column["summary"]["primary"] for column in columns} | {"R@1"},
        notes=list(dict.fromkeys(note for one in scores for note in one.notes())),
        first_level=first.protocol.level,
        first_label=labels[list(scores).index(first)],
        ties=ties_in_words(first.protocol.ties),
        **_details(scores, first, load_thumbnail or open_thumbnails(imageset)),
    )


def _column(one: Scores, label: str) -> dict[str, Any]:
    """One protocol's column of the table of numbers."""
    return {
        "label": label,
        "summary": one.summary(),
        "words": describe(one),
        "json": json.dumps(one.protocol.to_dict(), indent=2, ensure_ascii=False),
    }


def _details(scores: Sequence[Scores], first: Scores, load: LoadThumbnail) -> dict[str, Any]:
    """Figures, tables and pictures."""
    from markupsafe import Markup

    from resight.evaluate.report import plots

    queries = first.per_query
    objects = _means(first, "object")
    return {
        "cmc": Markup(plots.cmc_curve(scores)),
        "ap_histogram": Markup(plots.ap_histogram(scores)),
        "similarities": Markup(
            plots.similarity_histogram(
                queries["right_similarity"].drop_nulls().drop_nans().to_numpy(),
                queries["wrong_similarity"].drop_nulls().drop_nans().to_numpy(),
            )
        ),
        "object_histogram": Markup(
            plots.object_histogram(objects["AP"].to_numpy(), first.protocol.level)
        ),
        "objects": objects.head(_LISTED).to_dicts(),
        "n_objects": objects.height,
        "cameras": _means(first, "camera").head(_LISTED).to_dicts(),
        "n_cameras": first.per_query["camera"].n_unique(),
        **_strips(first, load),
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


def _strips(scores: Scores, load: LoadThumbnail) -> dict[str, list[_Strip]]:
    """The worst and the best queries with their first hits."""
    ap, row = scores.per_query["AP"].fill_nan(0).to_numpy(), scores.per_query["row"].to_numpy()
    positives = scores.per_query["positives"].to_numpy()
    n_best = min(BEST, len(ap) // 2)
    worst = np.lexsort((row, ap))[: min(WORST, len(ap) - n_best)].tolist()
    # Among the many that are perfect, those with most positives are the achievement.
    order = np.lexsort((row, -positives, -ap)).tolist()
    best = [q for q in order if q not in set(worst)][:n_best]
    hits = found.first_hits(scores, worst + best, HITS)
    pictures = _Pictures(scores, load)
    strips = [_strip(scores, pictures, q, of_q) for q, of_q in zip(worst + best, hits, strict=True)]
    return {"worst": strips[: len(worst)], "best": strips[len(worst) :]}


def _strip(scores: Scores, pictures: _Pictures, q: int, hits: list[found.Hit]) -> _Strip:
    query = scores.per_query.row(q, named=True)
    late, right = None, found.first_right(scores, q)
    if right is not None and not any(hit.right for hit in hits):
        late = pictures.of_row(right.row, right)
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

    def __init__(self, scores: Scores, load: LoadThumbnail) -> None:
        self._table, self._load = scores.table, load
        self._origin = scores.origin
        self._made: dict[int, str] = {}

    def of_row(self, row: int, hit: found.Hit | None = None) -> _Picture:
        if row not in self._made:
            self._made[row] = data_uri(self._load(row))
        path, name = self._table.select("path", "object").row(row)
        return _Picture(self._made[row], path, name, hit)

    def of_hit(self, hit: found.Hit) -> _Picture:
        """The hit's row is one of the view, with averaged rows."""
        return self.of_row(int(self._origin[hit.row]), hit)
