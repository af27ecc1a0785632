"""Compare runs, query by query: what differs, by how much, and whether the queries can show it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.errors import UserError
from resight.evaluate.per_query import query_groups
from resight.evaluate.records.pairing import same_queries
from resight.evaluate.records.record import Record, by_query, metrics, primary
from resight.evaluate.uncertainty import Floats, Paired, bootstrap, paired

SIGNIFICANT = 0.05
_MANY = 10_000  # queries: a query is then less than a hundredth of a point
# Columns of per_query that are outcomes; all others describe the query.
_OUTCOMES = {"row", "repeat", "path", "AP", "INP", "first_rank", "positives", "gallery"}
_OUTCOMES |= {"right", "wrong", "right_similarity", "wrong_similarity"}
_SECOND = ("rerank", "transductive")  # of a protocol: what may differ between runs


@dataclass(frozen=True)
class Comparison:
    """R runs under one protocol, on the queries that all of them have; run 0 is the baseline.

    values (R, M) and intervals (R, M, 2): the metrics, as fractions. differences: one `Paired` a
    run but the baseline, of its metrics minus the baseline's. tables: per_query of each run, row q
    of all is the same query. left_out: queries of each run that another lacks.
    """

    protocol: str
    title: str
    runs: tuple[str, ...]
    metrics: tuple[str, ...]
    primary: str
    values: Floats
    intervals: Floats
    differences: tuple[Paired, ...]
    tables: tuple[pl.DataFrame, ...]
    left_out: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def main(self) -> int:
        """The place of the metric that the protocol is judged by."""
        return self.metrics.index(self.primary)

    @property
    def digits(self) -> int:
        """Decimals of a percentage that this many queries give a meaning."""
        return 1 if self.tables[0].height < _MANY else 2

    def verdict(self, other: int) -> str:
        """Whether run `other` (1 ...) is better than the baseline, in words."""
        name, difference = self.runs[other], self.differences[other - 1]
        low, high = difference.interval[self.main]
        p = difference.p[self.main]
        mean, digits = difference.mean[self.main], self.digits
        numbers = (
            f"{points(mean, digits)} {self.primary} {span((low, high), digits)}, {in_words(p)}"
        )
        if not np.nan_to_num(self.moved(other)).any() and not np.nan_to_num(difference.mean).any():
            return f"{name} and {self.runs[0]} are equal on every query"
        if p < SIGNIFICANT and low > 0:
            return f"{name} is better: {numbers}"
        if p < SIGNIFICANT and high < 0:
            return f"{name} is worse: {numbers}"
        return f"no difference that these queries can show between {name} and {self.runs[0]}: " + (
            numbers
        )

    def moved(self, other: int) -> Floats:
        """By how much the AP of each query (Q,) differs from the baseline's."""
        before, after = by_query(self.tables[0], "mAP"), by_query(self.tables[other], "mAP")
        assert before is not None and after is not None
        return after - before

    def columns(self) -> list[str]:
        """The columns that describe a query and say anything."""
        table = self.tables[0]
        return [
            name
            for name, kind in table.schema.items()
            if name not in _OUTCOMES
            and not kind.is_nested()
            and table[name].null_count() < table.height
        ]

    def by(self, column: str, other: int) -> pl.DataFrame:
        """Mean AP of the queries by a column: name, queries, before, after, difference, interval.

        The most improved first. Raises UserError when the queries have no such column.
        """
        if column not in self.columns():
            raise UserError(
                f"--by {column}: the queries of {self.protocol} have no such column;"
                f" they have: {', '.join(self.columns()) or 'none'}"
            )
        ap, before = pl.col("AP"), pl.col("before")
        return (
            self.tables[0]
            .select(pl.col(column).cast(pl.String).alias("name"), ap.alias("before"))
            .with_columns(self.tables[other]["AP"])
            .fill_nan(None)
            .drop_nulls(["AP", "before"])
            .group_by("name")
            .agg(
                pl.len().alias("queries"),
                before.mean(),
                ap.mean().alias("after"),
                (ap - before).mean().alias("difference"),
            )
            .sort("difference", "queries", "name", descending=[True, True, False])
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is None."""
        rows = [
            {
                "metric": metric,
                "values": [
                    {"run": run, "value": _plain(self.values[r, m])}
                    | {"interval": [_plain(end) for end in self.intervals[r, m]]}
                    for r, run in enumerate(self.runs)
                ],
                "differences": [
                    {"run": run, "difference": _plain(one.mean[m]), "p": float(one.p[m])}
                    | {"interval": [_plain(end) for end in one.interval[m]]}
                    for run, one in zip(self.runs[1:], self.differences, strict=True)
                ],
            }
            for m, metric in enumerate(self.metrics)
        ]
        return {
            "protocol": self.protocol,
            "title": self.title,
            "primary": self.primary,
            "queries": self.tables[0].height,
            "left_out": dict(zip(self.runs, self.left_out, strict=True)),
            "metrics": rows,
            "verdicts": [self.verdict(r) for r in range(1, len(self.runs))],
            "notes": list(self.notes),
        }


def compare(
    records: Sequence[Record], names: Sequence[str], protocol: str | None = None
) -> tuple[list[Comparison], list[str]]:
    """Compare runs with the first of them, under each protocol that all share, or the one named.

    Also returned is what could not be compared, a line each.

    Raises UserError: fewer than two runs, no protocol (or not the one named) in all of them, the
    same name for different protocols and none besides, or no query in common.
    """
    if len(records) < 2:
        raise UserError("compare: two evaluations are needed, a baseline and another")
    shared = [n for n in records[0].protocols if all(n in one.protocols for one in records)]
    if protocol is not None:
        shared = [name for name in shared if name == protocol]
    if not shared:
        has = "; ".join(
            f"{name} has {', '.join(one.protocols)}"
            for name, one in zip(names, records, strict=True)
        )
        what = "no protocol in common" if protocol is None else f"--protocol {protocol}: not in all"
        raise UserError(f"{what}: {has}")
    differing = {name: _differing(records, names, name) for name in shared}
    lines = [line for line in differing.values() if line]
    same = [name for name in shared if not differing[name]]
    if not same:
        raise UserError("; ".join(lines))
    return [_compare_one(records, names, name) for name in same], lines


def points(fraction: float, digits: int = 1) -> str:
    """A difference in percentage points, with its sign."""
    return "–" if np.isnan(fraction) else _signed(f"{100 * fraction:+.{digits}f}")


def span(ends: Sequence[float] | Floats, digits: int = 1) -> str:
    """An interval in percentage points."""
    return "[–]" if np.isnan(ends).any() else f"[{', '.join(percent(e, digits) for e in ends)}]"


def percent(fraction: float, digits: int = 1) -> str:
    """A value in percent."""
    return "–" if np.isnan(fraction) else _signed(f"{100 * fraction:.{digits}f}")


def _signed(number: str) -> str:
    """With a true minus, and zero without a sign."""
    return (number if number.strip("+-0.") else number.strip("+-")).replace("-", "−")


def in_words(p: float, name: str = "p") -> str:
    """A p-value as it is printed: "p = .012", "p < .001"; without a name ".012", "< .001"."""
    if p < 0.001:
        return f"{name} < .001".strip()
    number = "1" if p > 0.995 else f"{p:.{3 if p < 0.1 else 2}f}".lstrip("0")
    return f"{name} = {number}" if name else number


def _compare_one(records: Sequence[Record], names: Sequence[str], protocol: str) -> Comparison:
    summaries = [one.summaries[protocol] for one in records]
    tables, left_out = same_queries(records, names, protocol)
    shown = [m for m in metrics(summaries[0]) if by_query(tables[0], m) is not None] or ["mAP"]
    groups = query_groups(tables[0])
    values = np.array([[by_query(table, m) for m in shown] for table in tables], np.float64)
    known = ~np.isnan(values)
    sums, counts = np.where(known, values, 0).sum(axis=2), known.sum(axis=2)
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    best = primary(summaries[0])
    return Comparison(
        protocol=protocol,
        title=str(summaries[0].get("title") or protocol),
        runs=tuple(names),
        metrics=tuple(shown),
        primary=best if best in shown else shown[0],
        values=means,
        intervals=np.stack([bootstrap(one, groups) for one in values]),
        differences=tuple(paired(values[0], one, groups) for one in values[1:]),
        tables=tuple(tables),
        left_out=tuple(left_out),
        notes=tuple(_notes(records, names, protocol, left_out, shown, means)),
    )


def _differing(records: Sequence[Record], names: Sequence[str], protocol: str) -> str:
    """A line about runs whose protocols share a name only; "" where there is none."""
    first = records[0].protocols[protocol]
    for record, name in zip(records[1:], names[1:], strict=True):
        other = record.protocols[protocol]
        keys = sorted((set(first) | set(other)) - {"notes"})
        wrong = [key for key in keys if key not in _SECOND and first.get(key) != other.get(key)]
        if wrong:
            said = "; ".join(
                f"{key}: {json.dumps(first.get(key))} and {json.dumps(other.get(key))}"
                for key in wrong
            )
            return f"{protocol}: another protocol in {name} than in {names[0]} ({said})"
    return ""


def _notes(
    records: Sequence[Record],
    names: Sequence[str],
    protocol: str,
    left_out: Sequence[int],
    shown: Sequence[str],
    means: NDArray[np.float64],
) -> list[str]:
    """What a reader of the comparison must know."""
    notes = []
    prints = [record.data.get("fingerprint") for record in records]
    if len(set(prints)) > 1:
        said = ", ".join(f"{str(p)[:8]} of {n}" for p, n in zip(prints, names, strict=True))
        notes.append(f"the image sets differ ({said}): so may galleries, not only models")
    looks = [_look(record.protocols[protocol]) for record in records]
    if len(set(looks)) > 1:
        said = ", ".join(f"{n} {look}" for look, n in zip(looks, names, strict=True))
        notes.append(f"re-ranking differs: {said}")
    galleries = [record.summaries[protocol].get("gallery") for record in records]
    if len(set(galleries)) > 1:
        said = ", ".join(f"{g} of {n}" for g, n in zip(galleries, names, strict=True))
        notes.append(f"the galleries are not of the same size: {said}")
    if any(left_out):
        said = ", ".join(f"{c:,} of {n}" for c, n in zip(left_out, names, strict=True))
        notes.append(f"compared on the queries that all runs have; left out: {said}")
        return notes
    for r, (record, name) in enumerate(zip(records, names, strict=True)):
        for m, metric in enumerate(shown):
            stored = record.summaries[protocol].get(metric)
            if isinstance(stored, int | float) and abs(stored - means[r, m]) > 5e-4:
                notes.append(
                    f"{metric} of {name} is {100 * stored:.1f} in its own scores, which is not the"
                    " plain mean over queries that is compared here"
                )
    return notes


def _look(protocol: Mapping[str, Any]) -> str:
    how = f"by {protocol['rerank']}" if protocol.get("rerank") else "none"
    return how + ", transductive" * bool(protocol.get("transductive"))


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
