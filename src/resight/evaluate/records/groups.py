"""Compare methods that were each trained several times: means over seeds, spread, paired tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.evaluate.per_query import query_groups
from resight.evaluate.records.pairing import same_queries
from resight.evaluate.records.record import Record, by_query, metrics, primary
from resight.evaluate.uncertainty import Floats, Paired, bootstrap, paired

Groups = Mapping[str, Sequence[Record]]
_MANY = 10_000  # queries: a query is then less than a hundredth of a point


@dataclass(frozen=True)
class GroupTable:
    """K methods with some runs each, under one protocol, on the same queries; M metrics.

    The primary metric comes first. runs: of each method the metrics of its runs, (S, M). mean and
    sd (K, M): over the runs of a method; sd divides by S - 1 and is NaN for a single run.
    intervals (K, M, 2): 95 %, of the mean, for other test objects and the same trained runs.
    differences: of each method minus the baseline, query by query on means over runs; the baseline
    has NaN. holm (K, M): the p-values of a metric, corrected for the K - 1 methods compared.
    drawn: how many objects (or what `over` says) were resampled and flipped as wholes.
    A metric that is no mean over queries has mean and sd only. All are fractions.
    """

    protocol: str
    title: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    baseline: str
    runs: tuple[Floats, ...]
    mean: Floats
    sd: Floats
    intervals: Floats
    differences: tuple[Paired, ...]
    holm: Floats
    queries: int
    drawn: int
    over: str
    notes: tuple[str, ...]

    @property
    def digits(self) -> int:
        """Decimals of a percentage that this many queries give a meaning."""
        return 1 if self.queries < _MANY else 2

    def rows(self) -> list[dict[str, Any]]:
        """One flat row of plain values for each metric and method; what is not known is None."""
        return [
            {
                "protocol": self.protocol,
                "metric": metric,
                "method": method,
                "baseline": self.baseline,
                "runs": len(self.runs[k]),
                "values": [_plain(value) for value in self.runs[k][:, m]],
                "mean": _plain(self.mean[k, m]),
                "sd": _plain(self.sd[k, m]),
                "low": _plain(self.intervals[k, m, 0]),
                "high": _plain(self.intervals[k, m, 1]),
                "difference": _plain(self.differences[k].mean[m]),
                "difference_low": _plain(self.differences[k].interval[m, 0]),
                "difference_high": _plain(self.differences[k].interval[m, 1]),
                "p": _plain(self.differences[k].p[m]),
                "p_holm": _plain(self.holm[k, m]),
                "queries": self.queries,
                "drawn": self.drawn,
                "drawn_are": self.over,
            }
            for m, metric in enumerate(self.metrics)
            for k, method in enumerate(self.methods)
        ]


def group_table(groups: Groups, baseline: str | None = None) -> list[dict[str, Any]]:
    """`compare_groups` as flat rows of plain values, for CSV or JSON."""
    return [row for table in compare_groups(groups, baseline) for row in table.rows()]


def compare_groups(groups: Groups, baseline: str | None = None) -> list[GroupTable]:
    """Compare methods, each given by the evaluations of its runs (seeds), a table a protocol.

    baseline: the method that the others are compared with; by default the first. A query counts
    for a metric where it counts in every run. The values of a query are averaged over the runs of
    a method; intervals (`bootstrap`) and tests (`paired`) then draw whole objects, where known.
    They say how sure a difference is between these trained runs on other test objects; how much
    it depends on the seed is what the standard deviation says.

    Raises UserError: no method, one without a run, no such baseline, the same evaluation twice,
    no protocol in common, a protocol of the same name that differs, or queries that differ.
    """
    baseline = _check(groups, baseline)
    records = [record for runs in groups.values() for record in runs]
    names = [
        method if len(runs) == 1 else f"{method}, run {number}"
        for method, runs in groups.items()
        for number in range(1, len(runs) + 1)
    ]
    known = dict.fromkeys(name for record in records for name in record.protocols)
    lacking = {
        name: [n for n, one in zip(names, records, strict=True) if name not in one.protocols]
        for name in known
    }
    shared = [name for name in known if not lacking[name]]
    if not shared:
        raise UserError(f"no protocol in common: {_first(lacking)}")
    tables = []
    for protocol in shared:
        _check_protocol(records, names, protocol)
        notes = _notes(records, names, protocol)
        if protocol == shared[0]:
            left_out = {name: who for name, who in lacking.items() if who}
            notes = [f"not compared: {_first({name: left_out[name]})}" for name in left_out] + notes
        tables.append(_table(groups, records, names, protocol, baseline, notes))
    return tables


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of the p-values (K,) of K tests; NaN are no tests.

    With p_(1) <= ... <= p_(K), the corrected p_(i) is max over j <= i of (K - j + 1) p_(j), at
    most 1 (Holm, "A simple sequentially rejective multiple test procedure", 1979): below a level
    for any of them only so often as the level, all hypotheses taken together.
    """
    out = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]
    factors = np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return out


def _check(groups: Groups, baseline: str | None) -> str:
    if not groups:
        raise UserError("no method to compare: give NAME=evaluation,evaluation,...")
    for method, runs in groups.items():
        if not runs:
            raise UserError(f"{method}: no evaluation; give at least one")
    seen: set[Path] = set()
    for method, runs in groups.items():
        for record in runs:
            if record.folder.resolve() in seen:
                raise UserError(f"{record.folder}: given twice, the second time in {method}")
            seen.add(record.folder.resolve())
    if baseline is None:
        return next(iter(groups))
    if baseline not in groups:
        raise UserError(f"baseline {baseline}: no such method; there are {', '.join(groups)}")
    return baseline


def _check_protocol(records: Sequence[Record], names: Sequence[str], protocol: str) -> None:
    first = records[0].protocols[protocol]
    for record, name in zip(records[1:], names[1:], strict=True):
        other = record.protocols[protocol]
        for key in sorted((set(first) | set(other)) - {"notes"}):
            if first.get(key) != other.get(key):
                raise UserError(
                    f"{protocol}: another protocol in {name} than in {names[0]} ({key}:"
                    f" {json.dumps(first.get(key))} and {json.dumps(other.get(key))})"
                )


def _table(
    groups: Groups,
    records: Sequence[Record],
    names: Sequence[str],
    protocol: str,
    baseline: str,
    notes: Sequence[str],
) -> GroupTable:
    tables, left_out = same_queries(records, names, protocol)
    if any(left_out):
        which = next(i for i, count in enumerate(left_out) if count)
        raise UserError(
            f"{protocol}: the queries differ, {left_out[which]:,} of {names[which]} are not in all"
            " runs; evaluate all on the same images"
        )
    summaries = [record.summaries[protocol] for record in records]
    best = primary(summaries[0])
    shown = [m for m in metrics(summaries[0]) if all(m in one for one in summaries)] or ["mAP"]
    shown.sort(key=lambda metric: metric != best)
    values = np.full((len(records), len(shown), tables[0].height), np.nan)
    for m, metric in enumerate(shown):
        columns = [by_query(table, metric) for table in tables]
        for r, column in enumerate(columns):
            if column is not None:
                values[r, m] = column
    values[:, np.isnan(values).any(axis=0)] = np.nan
    counted = (~np.isnan(values[0])).sum(axis=1)
    own = np.full(values.shape[:2], np.nan)
    np.divide(np.nansum(values, axis=2), counted, out=own, where=counted > 0)
    stored = np.array([[_stored(one.get(m)) for m in shown] for one in summaries])
    own[:, counted == 0] = stored[:, counted == 0]
    ends = np.cumsum([len(runs) for runs in groups.values()])[:-1]
    runs = np.split(own, ends)
    averaged = [some.mean(axis=0) for some in np.split(values, ends)]
    drawn_by = query_groups(tables[0])
    over = "queries" if drawn_by is None else "images"
    if tables[0]["object"].null_count() < tables[0].height:
        over = "objects"
    place = list(groups).index(baseline)
    differences = [
        _nothing(len(shown))
        if k == place
        else _tested(paired(averaged[place], one, drawn_by), counted > 0)
        for k, one in enumerate(averaged)
    ]
    mean = np.array([some.mean(axis=0) for some in runs])
    return GroupTable(
        protocol=protocol,
        title=str(summaries[0].get("title") or protocol),
        methods=tuple(groups),
        metrics=tuple(shown),
        baseline=baseline,
        runs=tuple(runs),
        mean=mean,
        sd=np.array([_spread(some) for some in runs]),
        intervals=np.stack([bootstrap(one, drawn_by) for one in averaged]),
        differences=tuple(differences),
        holm=np.array([holm(np.array([d.p[m] for d in differences])) for m in range(len(shown))]).T,
        queries=tables[0].height,
        drawn=tables[0].height if drawn_by is None else len(np.unique(drawn_by)),
        over=over,
        notes=(*notes, *_unlike(names, shown, own, stored)),
    )


def _spread(runs: Floats) -> Floats:
    """The standard deviation (M,) over runs (S, M); NaN of a single one."""
    if len(runs) < 2:
        return np.full(runs.shape[1], np.nan)
    # Measured from the first run: exactly 0 where all are equal.
    spread: Floats = (runs - runs[0]).std(axis=0, ddof=1)
    return spread


def _nothing(size: int) -> Paired:
    return Paired(np.full(size, np.nan), np.full((size, 2), np.nan), np.full(size, np.nan))


def _tested(one: Paired, counts: NDArray[np.bool_]) -> Paired:
    """Without a p-value where there was no query to test."""
    return Paired(one.mean, one.interval, np.where(counts, one.p, np.nan))


def _stored(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _unlike(names: Sequence[str], shown: Sequence[str], own: Floats, stored: Floats) -> list[str]:
    """A line for each metric whose stored value is another than the mean over queries."""
    lines = []
    for m, metric in enumerate(shown):
        apart = np.flatnonzero(np.abs(own[:, m] - stored[:, m]) > 5e-4)
        if len(apart):
            r = int(apart[0])
            lines.append(
                f"{metric} is the plain mean over queries here; in their own scores it is another"
                f" for {len(apart)} of {len(own)} runs ({names[r]}: {100 * stored[r, m]:.1f})"
            )
    return lines


def _notes(records: Sequence[Record], names: Sequence[str], protocol: str) -> list[str]:
    """What keeps the runs from being compared, the first that differs named."""
    notes = []
    prints = [str(record.data.get("fingerprint"))[:8] for record in records]
    sizes = [str(record.summaries[protocol].get("gallery")) for record in records]
    for what, found in (("image sets", prints), ("sizes of the gallery", sizes)):
        r = next((i for i, one in enumerate(found) if one != found[0]), None)
        if r is not None:
            notes.append(
                f"the {what} differ: {found[r]} in {names[r]}, {found[0]} in {names[0]};"
                " so may galleries, not only methods"
            )
    return notes


def _first(lacking: Mapping[str, Sequence[str]]) -> str:
    """Which run lacks which protocol: the first of each."""
    return "; ".join(
        f"{name} is not in {who[0]}" + (f" and {len(who) - 1} more" if len(who) > 1 else "")
        for name, who in lacking.items()
    )


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
