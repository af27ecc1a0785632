"""Evaluate features: from an image set and its features to numbers with their protocol."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.errors import UserError
from resight.evaluate import metrics
from resight.evaluate.objects import object_ranks
from resight.evaluate.protocols import Level, Matches, Protocol, choose, matches
from resight.evaluate.ranks import BLOCK_BYTES, Ranks, positive_ranks
from resight.evaluate.sources import Picked, not_finite
from resight.evaluate.units import Rows
from resight.files import atomic_path, write_json

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet

OBJECT_NOTE = (
    "object level: each query has one positive, its object's centroid,"
    " so this mAP is not comparable with an image-level mAP"
)


@dataclass(frozen=True)
class Scores:
    """The outcome of a protocol on one set of features.

    `matches` and `ranks` are by query, in the same order; at object level `ranks.index` is an
    object's column (see objects.py). `dropped`: rows of the protocol left out by `valid`.
    `table`: the image set's, one row an image.
    """

    protocol: Protocol
    matches: Matches
    ranks: Ranks
    dropped: int
    gallery: int
    table: pl.DataFrame

    @cached_property
    def per_query(self) -> pl.DataFrame:
        """One row a query: row, path, object, camera, AP, INP, first_rank, positives, gallery."""
        rows = self.matches.queries
        return self.table.select("path", "object", "camera")[rows].select(
            pl.Series("row", rows),
            pl.all(),
            pl.Series("AP", metrics.average_precision(self.ranks, self.protocol.ap)),
            pl.Series("INP", metrics.inverse_negative_penalty(self.ranks)),
            pl.Series("first_rank", metrics.first_ranks(self.ranks).astype(np.int64)),
            pl.Series("positives", self.ranks.counts()),
            pl.Series("gallery", self.ranks.n_gallery),
        )

    @property
    def mAP(self) -> float:
        """Mean average precision over the queries with a match."""
        return metrics.mean(self.per_query["AP"].to_numpy())

    @property
    def mINP(self) -> float:
        """Mean inverse negative penalty over the queries with a match."""
        return metrics.mean(self.per_query["INP"].to_numpy())

    def recall(self, k: int) -> float:
        """R@k: the share of queries with a positive among the first k."""
        return metrics.mean(metrics.hit_at(self.ranks, k))

    def cmc(self, length: int = 50) -> NDArray[np.float64]:
        """R@1 ... R@length."""
        return metrics.cmc(self.ranks, length)

    def notes(self) -> list[str]:
        """What a reader of the numbers must know."""
        notes = list(self.protocol.notes)
        if self.protocol.level == "object":
            notes.append(OBJECT_NOTE)
        return notes

    def summary(self) -> dict[str, Any]:
        """The numbers and what they mean: flat, ready for JSON, fractions from 0 to 1."""
        protocol = self.protocol
        cutoffs = sorted({1, 5, 10, *protocol.cutoffs})
        numbers = {f"R@{k}": self.recall(k) for k in cutoffs}
        result: dict[str, Any] = {
            "protocol": protocol.name,
            "level": protocol.level,
            "mAP": self.mAP,
            **numbers,
            "mINP": self.mINP,
            "queries": len(self.matches.queries),
            "queries_without_match": self.matches.without_match,
            "queries_of_unknown_object": self.matches.unknown,
            "gallery": self.gallery,
            "dropped": self.dropped,
            "split": protocol.split,
            "ap": protocol.ap,
            "ties": protocol.ties,
        }
        if self.notes():
            result["note"] = "; ".join(self.notes())
        return result

    def save(self, folder: Path) -> Path:
        """Write scores.json (summary and protocol) and per_query.parquet; each whole or absent."""
        folder = Path(folder)
        with atomic_path(folder / "per_query.parquet") as temporary:
            self.per_query.write_parquet(temporary)
        write_json(
            folder / "scores.json",
            {"summary": self.summary(), "protocol": self.protocol.to_dict()},
        )
        return folder


def evaluate(
    features: Rows,
    imageset: ImageSet,
    *,
    level: Level = "image",
    cross_camera: bool | None = None,
    valid: NDArray[np.bool_] | None = None,
    protocol: Protocol | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Scores:
    """Rank, and score, as the image set asks for (see `protocols.choose`).

    features: (N, D), row i of image i; float16, float32 or float64, un-normalised, an array, a
    memory map or anything sliced alike. Compared by cosine. valid: (N,) bool; rows marked False
    take no part and are counted as dropped. protocol: used as it is, in place of a chosen one;
    level and cross_camera then don't count. block_bytes bounds the working memory only.

    Raises UserError when the number of features isn't that of the images, when a used row holds
    NaN or infinity, and when no query has a match.
    """
    table = imageset.table
    if len(features) != table.height:
        raise UserError(
            f"{len(features)} features for {table.height} images; "
            "embed the same image set again, or evaluate the one they were made from"
        )
    if valid is not None and valid.shape != (table.height,):
        raise UserError(f"valid has shape {valid.shape}, not ({table.height},): one mark an image")
    if protocol is None:
        protocol = choose(table, level, cross_camera, valid)
    found = matches(table, protocol, valid)
    _require_finite(features, found, table)
    if protocol.level == "object":
        ranks = object_ranks(features, found, protocol, block_bytes=block_bytes)
        gallery = int(ranks.n_gallery[0])
    else:
        ranks = positive_ranks(
            Picked(features, found.queries), Picked(features, found.gallery),
            found.positives, found.junk, block_bytes=block_bytes, ties=protocol.ties,
        )  # fmt: skip
        gallery = len(found.gallery)
    return Scores(protocol, found, ranks, _dropped(table, protocol, valid), gallery, table)


def _require_finite(features: Rows, found: Matches, table: pl.DataFrame) -> None:
    bad = not_finite(features, np.union1d(found.queries, found.gallery))
    if len(bad):
        named = ", ".join(f"{row} ({table['path'][int(row)]})" for row in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(
            f"features hold NaN or infinity in row {named}{more};"
            " embed these images again, or mark the rows as not valid"
        )


def _dropped(table: pl.DataFrame, protocol: Protocol, valid: NDArray[np.bool_] | None) -> int:
    if valid is None:
        return 0
    inside = np.ones(table.height, dtype=bool)
    if protocol.split is not None:
        inside = (table["split"] == protocol.split).fill_null(False).to_numpy()
    return int((inside & ~valid).sum())
