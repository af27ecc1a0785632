"""Evaluate features: from an image set and its features to numbers with their protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.errors import UserError
from resight.evaluate import metrics
from resight.evaluate.overall import numbers_over_all
from resight.evaluate.per_query import frame_of, query_groups, with_rows
from resight.evaluate.protocols import Level, Protocol
from resight.evaluate.ranking.result import Ranks, Tick
from resight.evaluate.ranking.sources import Picked, not_finite
from resight.evaluate.ranking.units import check_device
from resight.evaluate.ranks import BLOCK_BYTES, matrix_ranks, rank_blocks
from resight.evaluate.rules.averaging import average, large_enough
from resight.evaluate.rules.legacy import legacy_gallery, legacy_ranks
from resight.evaluate.rules.objects import object_gallery, object_ranks
from resight.evaluate.rules.parts import Part, parts_of
from resight.evaluate.rules.truth import Matches, chosen_for, taking_part
from resight.evaluate.share import Share
from resight.evaluate.uncertainty import bootstrap
from resight.features.collapsed import NOTE as COLLAPSED_NOTE
from resight.features.collapsed import alike, collapsed
from resight.features.rows import Rows
from resight.files import atomic_path, write_json

if TYPE_CHECKING:
    from resight.data.imageset import ImageSet

Ints = NDArray[np.int64]
OBJECT_NOTE = (
    "object level: each query has one positive, its object's centroid,"
    " so this mAP is not comparable with an image-level mAP"
)
LEGACY_NOTE = (
    "legacy: the centroids of CTL's released code, with cameras read from the wrong rows and"
    " without the objects that nobody queries; for comparison with its published figures only"
)


@dataclass(frozen=True)
class Scores:
    """The outcome of a protocol on one set of features.

    `per_query`: a row a query, in the order of `parts` and their queries (see per_query.py).
    `table`: the image set's, one row an image; `view` and `features`: what was searched, with
    averaged rows behind the others, and `origin` the row of `table` that pictures each of them.
    `dropped`: rows of the protocol left out by `valid`. `more`: numbers that belong to no single
    query. `collapsed`: all similarities are alike.
    """

    protocol: Protocol
    per_query: pl.DataFrame
    parts: tuple[Part, ...]
    table: pl.DataFrame
    view: pl.DataFrame
    features: Rows
    origin: Ints
    gallery: int
    dropped: int
    more: dict[str, float] = field(default_factory=dict)
    collapsed: bool = False

    @property
    def mAP(self) -> float:
        """The protocol's mean average precision, over the queries with a match."""
        return metrics.mean(self._values("AP"))

    @property
    def mINP(self) -> float:
        """Mean inverse negative penalty over the queries with a match."""
        return metrics.mean(self._values("INP"))

    def recall(self, k: int) -> float:
        """R@k: the share of queries with a positive among the first k."""
        return metrics.mean(_hit(self._values("first_rank"), k))

    def cmc(self, length: int = 50) -> NDArray[np.float64]:
        """R@1 ... R@length."""
        return metrics.curve_of(self._values("first_rank"), length)

    def _values(self, column: str) -> NDArray[np.float64]:
        return self.per_query[column].cast(pl.Float64).fill_null(np.nan).to_numpy()

    def names(self) -> list[str]:
        """The printed names of its numbers, in order."""
        return [*self._per_metric, *self.more]

    def notes(self) -> list[str]:
        """What a reader of the numbers must know."""
        notes = list(self.protocol.notes)
        if self.protocol.level == "object":
            notes.append(OBJECT_NOTE)
        return [COLLAPSED_NOTE] * self.collapsed + notes + [LEGACY_NOTE] * self.protocol.legacy

    @cached_property
    def _per_metric(self) -> dict[str, NDArray[np.float64]]:
        """The per-query values of each metric, by its printed name."""
        first = self._values("first_rank")
        cutoffs = sorted({1, 5, 10, *self.protocol.cutoffs})
        legacy = " legacy" * self.protocol.legacy
        return {
            self.protocol.metric: self._values("AP"),
            **{f"R@{k}{legacy}": _hit(first, k) for k in cutoffs},
            **{f"mP@{k}{legacy}": self._values(f"P@{k}") for k in self.protocol.precisions},
            f"mINP{legacy}": self._values("INP"),
            f"MAP@R{legacy}": self._values("MAP@R"),
            f"R-precision{legacy}": self._values("R-precision"),
        }

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap interval of each metric; over objects where one has several queries."""
        groups = self._groups()
        found = bootstrap(np.stack(list(self._per_metric.values())), groups)
        return {
            name: (float(low), float(high))
            for name, (low, high) in zip(self._per_metric, found, strict=True)
        }

    def _groups(self) -> Ints | None:
        """The groups that the bootstrap draws, where one has several queries."""
        groups = query_groups(self.per_query)
        alone = groups is None or len(np.unique(groups)) == len(groups)
        return None if alone else groups

    def _unit(self, groups: Ints | None) -> str:
        if groups is None:
            return "queries"
        return "images" if (groups == self.per_query["row"].to_numpy()).all() else "objects"

    def summary(self) -> dict[str, Any]:
        """The numbers and what they mean: flat, ready for JSON, fractions from 0 to 1."""
        protocol = self.protocol
        found = [part.matches for part in self.parts]
        groups = self._groups()
        result: dict[str, Any] = {
            "protocol": protocol.name,
            "title": protocol.title,
            "level": protocol.level,
            "primary": protocol.metric,
            **{name: metrics.mean(values) for name, values in self._per_metric.items()},
            **self.more,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "intervals_over": self._unit(groups),
            "queries": self.per_query.height,
            "queries_without_match": sum(one.without_match for one in found),
            "queries_of_unknown_object": sum(one.unknown for one in found),
            "gallery": self.gallery,
            "dropped": self.dropped,
            "split": protocol.split,
            "ap": protocol.ap,
            "ties": protocol.ties,
            "collapsed": self.collapsed,
        }
        if protocol.within is not None:
            result["groups"] = self._by_value()
        if self.notes():
            result["note"] = "; ".join(self.notes())
        return result

    def _by_value(self) -> dict[str, dict[str, float]]:
        """The metrics of each value of the `within` column, and their unweighted mean."""
        column = self.per_query["within"].to_numpy()
        by_value = {
            value: {
                name: metrics.mean(values[column == value])
                for name, values in self._per_metric.items()
            }
            | {"queries": int((column == value).sum())}
            for value in sorted(set(column))
        }
        means = {
            name: float(np.mean([of_value[name] for of_value in by_value.values()]))
            for name in self._per_metric
        }
        return by_value | {"mean": means}

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
    device: str = "cpu",
    share: Share | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Rank, and score, as the image set asks for (see `protocols.choose`).

    features: (N, D), row i of image i; float16, float32 or float64, un-normalised, an array, a
    memory map or anything sliced alike. Compared by cosine. valid: (N,) bool; rows marked False
    take no part and are counted as dropped. protocol: used as it is, in place of a chosen one;
    level and cross_camera then don't count. block_bytes bounds the working memory only. device:
    "cpu", or a torch device for the products; share: the part of this process, where several work
    together; the digits are the same. progress: called now and then with the queries done and
    the total.

    Raises UserError when the number of features isn't that of the images, when a used row holds
    NaN or infinity, and when no query has a match.
    """
    check_device(device)
    table, usable = _fitting(len(features), imageset, valid, "features")
    if protocol is None:
        protocol = chosen_for(table, level, cross_camera, usable)
    view = average(features, table, protocol, usable)
    taking = large_enough(view.table, protocol, view.usable)
    parts = parts_of(view.table, protocol, taking)
    used = _used(parts, len(view.table))
    # Members of averages are checked too, and cheaply: a NaN among them is in the average.
    _require_finite(view.features, used, view.table)
    frames, galleries, kept = [], [], []
    tick = _counted(progress, sum(len(part.matches.queries) for part in parts), share)
    for part in parts:
        if protocol.rerank:
            plain = imageset if len(view.table) == len(imageset) else None
            one, frame, row_of = _reranked(
                view.features, part, protocol, plain, block_bytes, share, tick
            )
        else:
            found, frame, row_of = _ranked(
                view.features, part.matches, protocol, block_bytes, device, share, tick
            )
            one = replace(part, matches=found)
        galleries.append(len(row_of))
        kept.append(one)
        frames.append(with_rows(frame, view.table, view.origin, part, protocol))
    per_query = pl.concat(frames)
    more = numbers_over_all(view.features, kept, per_query, protocol)
    inside = taking_part(table, protocol)
    dropped = int((inside & ~usable).sum())
    return Scores(
        protocol, per_query, tuple(kept), table, view.table, view.features, view.origin,
        max(galleries), dropped, more, collapsed(view.features, used),
    )  # fmt: skip


def evaluate_matrix(similarity: Rows, imageset: ImageSet, protocol: Protocol) -> Scores:
    """Scores from given similarities instead of features.

    similarity (Q, G): the higher the nearer; its rows are the image set's queries and its columns
    its gallery, both in the order of the set's rows. Every row of the set takes part.

    Raises UserError when its shape isn't that, or it holds NaN or infinity.
    """
    table = imageset.table
    found = parts_of(table, replace(protocol, open_set=True), np.ones(table.height, bool))[
        0
    ].matches
    _require_plain(protocol)
    shape = (len(found.queries), len(found.gallery))
    if tuple(similarity.shape) != shape:
        raise UserError(
            f"similarity is {similarity.shape[0]:,} x {similarity.shape[1]:,}, but the set has"
            f" {shape[0]:,} queries and {shape[1]:,} gallery images"
        )
    for start in range(0, len(similarity), 1024):
        if not np.isfinite(similarity[start : start + 1024]).all():
            raise UserError(f"similarity: NaN or infinity in rows {start:,} to {start + 1024:,}")
    blocks = matrix_ranks(similarity, found.truth, ties=protocol.ties)
    frame = frame_of(blocks, found.queries, found.gallery, protocol)
    part = Part(found)
    per_query = with_rows(frame, table, np.arange(table.height), part, protocol)
    if not protocol.open_set:
        per_query = per_query.filter(pl.col("positives") > 0)
    empty = np.zeros((table.height, 1), np.float32)
    more = numbers_over_all(empty, [part], per_query, protocol)
    origin = np.arange(table.height)
    return Scores(
        protocol, per_query, (part,), table, table, empty, origin, shape[1], 0, more,
        alike(similarity),
    )  # fmt: skip


def _require_plain(protocol: Protocol) -> None:
    """Raise UserError where a protocol asks for more than given similarities can answer."""
    asked = {
        "object level": protocol.level == "object",
        "within": protocol.within,
        "gallery_images": protocol.gallery_images,
        "templates": protocol.templates,
        "multi_query": protocol.multi_query,
        "min_images": protocol.min_images > 1,
        "pairs": protocol.pairs,
        "rerank": protocol.rerank,
    }
    wrong = [name for name, value in asked.items() if value]
    if wrong:
        raise UserError(f"given similarities can't be scored by {', '.join(wrong)}: give features")


def _fitting(
    n: int, imageset: ImageSet, valid: NDArray[np.bool_] | None, what: str
) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    table = imageset.table
    if n != table.height:
        raise UserError(
            f"{n} {what} for {table.height} images; "
            "embed the same image set again, or evaluate the one they were made from"
        )
    if valid is not None and valid.shape != (table.height,):
        raise UserError(f"valid has shape {valid.shape}, not ({table.height},): one mark an image")
    return table, np.ones(table.height, dtype=bool) if valid is None else valid


def _ranked(
    features: Rows, found: Matches, protocol: Protocol, block_bytes: int, device: str,
    share: Share | None, tick: Tick,
) -> tuple[Matches, pl.DataFrame, Ints]:  # fmt: skip
    """The matches as they were ranked, each query's metrics, the table row of each column."""
    whole = found
    if share is not None and not protocol.legacy:
        start, stop = share.part(len(found.queries))
        found = found.take(np.arange(start, stop))
    if protocol.legacy:
        old = legacy_gallery(features, found)
        dropped = len(found.queries) - len(old.queries)
        if not len(old.queries):
            raise UserError("no query has a match among the legacy centroids")
        whole = found = replace(found, queries=old.queries, truth=old.truth, without_match=dropped)
        blocks: Iterator[Ranks] = legacy_ranks(old, features, protocol, block_bytes)
        row_of = found.gallery[old.first]
    elif protocol.level == "object":
        blocks = object_ranks(
            features, found, protocol, block_bytes=block_bytes, device=device, tick=tick
        )
        row_of = found.gallery[object_gallery(found).first]
    else:
        gallery = Picked(features, found.gallery)
        mutual = np.array_equal(found.queries, found.gallery)
        blocks = rank_blocks(
            gallery if mutual else Picked(features, found.queries), gallery, found.truth,
            block_bytes=block_bytes, ties=protocol.ties, device=device, tick=tick,
        )  # fmt: skip
        row_of = found.gallery
    frame = frame_of(blocks, found.queries, row_of, protocol)
    if share is not None and not protocol.legacy:
        frame = share.gather(frame)
    return whole, frame, row_of


def _reranked(
    features: Rows, part: Part, protocol: Protocol, images: ImageSet | None, block_bytes: int,
    share: Share | None, tick: Tick,
) -> tuple[Part, pl.DataFrame, Ints]:  # fmt: skip
    """As `_ranked`, by a second look; the part with the rows of scores."""
    from resight.evaluate.rules.reranked import rescored

    found = part.matches
    if share is not None:
        if protocol.transductive:
            raise UserError("transductive: every query needs all others; take one process")
        start, stop = share.part(len(found.queries))
        found = found.take(np.arange(start, stop))
    rows, truth, row_of = rescored(features, found, protocol, images)
    blocks = matrix_ranks(rows, truth, ties=protocol.ties, block_bytes=block_bytes, tick=tick)
    frame = frame_of(blocks, found.queries, row_of, protocol)
    if share is not None:
        return part, share.gather(frame), row_of
    return replace(part, scores=rows), frame, row_of


def _counted(progress: Callable[[int, int], None], total: int, share: Share | None) -> Tick:
    """Adds up fractions of queries, and reports whole ones."""
    done = 0.0
    total = total if share is None else total // share.count

    def tick(queries: float) -> None:
        nonlocal done
        done += queries
        progress(min(int(done), total), total)

    return tick


def _hit(first: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    return np.where(np.isnan(first), np.nan, first <= k)


def _used(parts: list[Part], rows: int) -> Ints:
    used = np.zeros(rows, dtype=bool)
    for part in parts:
        used[part.matches.queries] = used[part.matches.gallery] = True
    return np.flatnonzero(used)


def _require_finite(features: Rows, rows: Ints, table: pl.DataFrame) -> None:
    bad = not_finite(features, rows)
    if len(bad):
        named = ", ".join(f"{row} ({table['path'][int(row)]})" for row in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(
            f"features hold NaN or infinity in row {named}{more};"
            " embed these images again, or mark the rows as not valid"
        )
