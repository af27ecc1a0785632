"""One row a query: its metrics, its best right and best wrong hit, and what the set says of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.evaluate import metrics
from resight.evaluate.protocols import Protocol
from resight.evaluate.ranking.result import Ranks, join
from resight.evaluate.rules.parts import Part

Ints = NDArray[np.int64]


def frame_of(
    blocks: Iterable[Ranks], queries: Ints, row_of: Ints, protocol: Protocol
) -> pl.DataFrame:
    """The metrics of each query, block by block; `right` and `wrong` are rows of the view."""
    frames = [_columns(ranks, row_of, protocol) for ranks in blocks]
    if not frames:  # a process may have no query to rank
        frames = [_columns(join(iter(())), row_of, protocol)]
    return pl.concat(frames).with_columns(view_row=pl.Series(queries))


def _columns(ranks: Ranks, row_of: Ints, protocol: Protocol) -> pl.DataFrame:
    some = ranks.counts() > 0
    first = np.where(some, ranks.indptr[:-1], 0)
    right = np.full(len(ranks), -1, dtype=np.int64)
    near = np.full(len(ranks), np.nan)
    if some.any():
        right[some] = row_of[ranks.index[first[some]]]
        near[some] = ranks.similarity[first[some]]
    wrong = np.where(ranks.negative >= 0, row_of[ranks.negative], -1)
    null = pl.lit(None)
    return pl.DataFrame(
        {
            "AP": metrics.average_precision(
                ranks, protocol.ap, protocol.ap_at, protocol.ap_divisor
            ),
            "INP": metrics.inverse_negative_penalty(ranks),
            "MAP@R": metrics.map_at_r(ranks),
            "R-precision": metrics.r_precision(ranks),
            **{f"P@{k}": metrics.precision_at(ranks, k) for k in protocol.precisions},
            "first_rank": np.nan_to_num(metrics.first_ranks(ranks), nan=-1).astype(np.int64),
            "positives": ranks.counts(),
            "gallery": ranks.n_gallery,
            "right": right,
            "right_similarity": near,
            "wrong": wrong,
            "wrong_similarity": ranks.negative_similarity,
        }
    ).with_columns(
        pl.when(pl.col(name) >= 0).then(pl.col(name)).otherwise(null).alias(name)
        for name in ("first_rank", "right", "wrong")
    )


def with_rows(
    frame: pl.DataFrame, view: pl.DataFrame, origin: Ints, part: Part, protocol: Protocol
) -> pl.DataFrame:
    """The columns with those of the image set before them, in rows of the given table."""
    rows = frame["view_row"].to_numpy()
    plain = [
        name
        for name, kind in view.schema.items()
        if not kind.is_nested() and name not in frame.columns and name not in ("row", "repeat")
    ]
    pictured = [
        pl.Series(name, origin)[frame[name].fill_null(0)].alias(name) for name in ("right", "wrong")
    ]
    pictured = [
        series.zip_with(frame[series.name].is_not_null(), pl.Series([None], dtype=pl.Int64))
        for series in pictured
    ]
    extra = [] if protocol.within is None else [pl.lit(part.value).alias("within")]
    return view[rows].select(
        pl.Series("row", origin[rows]),
        pl.lit(part.repeat, dtype=pl.Int64).alias("repeat"),
        *(pl.col(name) for name in plain if name != "within" or not extra),
        *extra,
        *(frame[name] for name in frame.columns if name not in ("right", "wrong", "view_row")),
        *pictured,
    )


def query_groups(table: pl.DataFrame) -> Ints | None:
    """The object of each query as a number; a query of unknown object stands for itself.

    Where no object is known: None, or the image of each query if images query repeatedly.
    """
    objects = table["object"]
    if objects.null_count() == table.height:
        return table["row"].to_numpy() if table["row"].is_duplicated().any() else None
    _, codes = np.unique(objects.fill_null("").to_numpy(), return_inverse=True)
    codes = codes.astype(np.int64)
    unknown = objects.is_null().to_numpy()
    codes[unknown] = -1 - np.arange(unknown.sum())
    return codes
