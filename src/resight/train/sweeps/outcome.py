"""What came of a sweep: a table of its runs, their means over seeds, a plot, and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resight.evaluate.records.record import SCORES, Record, load_record, metrics, primary
from resight.files import atomic_path, read_json, write_text
from resight.train import rundir
from resight.train.sweeps.carry import places
from resight.train.sweeps.plan import Trial, in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE, PAGE, PLOT = "table.csv", "table.html", "plot.png"


@dataclass(frozen=True)
class Finished:
    """A run of a sweep with its evaluation; no trial for the weights as they come."""

    group: str
    record: Record
    trial: Trial | None = None


@dataclass(frozen=True)
class Row:
    """A group by one protocol: of each metric its mean and standard deviation over seeds.

    The deviation (n - 1) is None of a single run.
    """

    group: str
    protocol: str
    primary: str
    runs: int
    values: Mapping[str, tuple[float, float | None]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = {name: {"mean": mean, "sd": sd} for name, (mean, sd) in self.values.items()}
        return {"group": self.group, "protocol": self.protocol, "runs": self.runs} | found


def finished(trials: Sequence[Trial], folder: Path) -> list[Finished]:
    """The runs that have been evaluated, in the order of the groups."""
    order = {trial.group: None for trial in trials}
    found = []
    for group in order:
        for trial in trials:
            evaluation = places(folder, trial.slug)[1]
            if trial.group == group and (evaluation / SCORES).is_file():
                found.append(Finished(group, load_record(evaluation), trial))
    return found


def grouped(found: Sequence[Finished]) -> dict[str, list[Record]]:
    """The records of each group."""
    groups: dict[str, list[Record]] = {}
    for one in found:
        groups.setdefault(one.group, []).append(one.record)
    return groups


def rows(found: Sequence[Finished]) -> list[Row]:
    """A row a group and protocol, the first protocol's first."""
    groups = grouped(found)
    protocols = dict.fromkeys(name for one in found for name in one.record.summaries)
    table = []
    for protocol in protocols:
        for group, records in groups.items():
            summaries = [r.summaries[protocol] for r in records if protocol in r.summaries]
            if summaries:
                values = {name: _spread(summaries, name) for name in metrics(summaries[0])}
                best = primary(summaries[0])
                table.append(Row(group, protocol, best, len(summaries), values))
    return table


def _spread(summaries: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float | None]:
    values = np.array([_number(summary.get(name)) for summary in summaries])
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def write_csv(path: Path, found: Sequence[Finished], folder: Path) -> Path:
    """One row a run and protocol: its place on the axes, seed, metrics as fractions, minutes."""
    swept = dict.fromkeys(name for one in found if one.trial for name in one.trial.point)
    names = dict.fromkeys(
        name for one in found for summary in one.record.summaries.values()
        for name in metrics(summary)
    )  # fmt: skip
    text = io.StringIO()
    head = ["group", *swept, "seed", "protocol", *names, "best_epoch", "minutes", "run"]
    out = csv.DictWriter(text, head, lineterminator="\n")
    out.writeheader()
    for one in found:
        place: dict[str, Any] = {"group": one.group}
        if one.trial is not None:
            run = places(folder, one.trial.slug)[0]
            record = read_json(run / rundir.RECORD, "a run's record")
            place |= {name: in_words(value) for name, value in one.trial.point.items()}
            place |= {"seed": one.trial.seed, "run": run.relative_to(folder).as_posix()}
            place["best_epoch"] = (record.get("best") or {}).get("epoch")
            place["minutes"] = round(_number(record.get("seconds")) / 60, 2)
        for protocol, summary in one.record.summaries.items():
            values = {name: summary.get(name) for name in metrics(summary)}
            out.writerow(place | {"protocol": protocol} | values)
    write_text(path, text.getvalue())
    return path


def write_plot(path: Path, found: Sequence[Finished]) -> Path:
    """The first protocol's primary metric and R@1: against a swept number, or a bar a group.

    Bars of error are standard deviations over seeds; of single runs, the 95 % intervals over
    queries.
    """
    import matplotlib
    from matplotlib.figure import Figure

    table = rows(found)
    protocol = table[0].protocol
    table = [row for row in table if row.protocol == protocol]
    shown = [m for m in dict.fromkeys((table[0].primary, "R@1")) if m in table[0].values]
    axis = numeric_axis(found)
    height = 3.4 if axis else max(2.2, 0.8 + 0.34 * len(table))
    style: dict[Any, Any] = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style), atomic_path(path) as temporary:
        canvas = Figure(figsize=(4.6 * len(shown), height), layout="constrained", dpi=150)
        panels = canvas.subplots(1, len(shown), squeeze=False, sharey=axis is None)[0]
        for axes, metric in zip(panels, shown, strict=True):
            error = _error_bars(found, table, metric)
            if axis is not None:
                _lines(axes, found, table, metric, error, axis)
            else:
                _bars(axes, table, metric, error)
            axes.grid(alpha=0.3, linewidth=0.6)
            axes.set_axisbelow(True)
        several = max(row.runs for row in table) > 1
        spread = "standard deviation over seeds" if several else "95 % interval over queries"
        canvas.supxlabel(f"{protocol}; mean and {spread}", fontsize=8)
        canvas.savefig(temporary, format="png")
    return path


def numeric_axis(found: Sequence[Finished]) -> str | None:
    """The first swept setting of which all values are numbers, and there are several."""
    points = [one.trial.point for one in found if one.trial is not None]
    for name in points[0] if points else ():
        values = [point[name] for point in points]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numbers and len(set(values)) > 1:
            return name
    return None


def _error_bars(
    found: Sequence[Finished], table: Sequence[Row], metric: str
) -> dict[str, tuple[float, float]]:
    """How far each group's bar reaches down and up, in points."""
    several = max(row.runs for row in table) > 1
    groups = grouped(found)
    reach = {}
    for row in table:
        mean, sd = row.values[metric]
        down = up = 0.0
        if several:
            down = up = sd or 0.0
        else:
            interval = groups[row.group][0].interval(row.protocol, metric)
            if interval is not None:
                down, up = max(0.0, mean - interval[0]), max(0.0, interval[1] - mean)
        reach[row.group] = (100 * down, 100 * up)
    return reach


def _bars(
    axes: Axes, table: Sequence[Row], metric: str, error: Mapping[str, tuple[float, float]]
) -> None:
    place = range(len(table))
    values = [100 * row.values[metric][0] for row in table]
    reach = np.array([error[row.group] for row in table]).T
    axes.barh(place, values, xerr=reach, color="#3f7fd8", alpha=0.75, capsize=2.5, height=0.65)
    axes.set_yticks(place, [row.group for row in table])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel(f"{metric} (%)")


def _lines(
    axes: Axes,
    found: Sequence[Finished],
    table: Sequence[Row],
    metric: str,
    error: Mapping[str, tuple[float, float]],
    axis: str,
) -> None:
    """One line for each variant and place on the other axes."""
    by_group = {row.group: row for row in table}
    curves: dict[str, dict[float, Row]] = {}
    for one in found:
        if one.trial is None or one.group not in by_group:
            continue
        others = [f"{n} {in_words(v)}" for n, v in one.trial.point.items() if n != axis]
        label = ", ".join([one.trial.variant] * bool(one.trial.variant) + others)
        curves.setdefault(label, {})[float(one.trial.point[axis])] = by_group[one.group]
    places: set[float] = set()
    for label, curve in curves.items():
        x = sorted(curve)
        places |= set(x)
        y = [100 * curve[at].values[metric][0] for at in x]
        reach = np.array([error[curve[at].group] for at in x]).T
        axes.errorbar(x, y, yerr=reach, marker="o", markersize=4, capsize=3, label=label or None)
    for one in found:
        if one.trial is None and one.group in by_group:
            level = 100 * by_group[one.group].values[metric][0]
            axes.axhline(level, color="#888888", linestyle="--", linewidth=1, label=one.group)
    if min(places) > 0 and max(places) / min(places) > 8:
        axes.set_xscale("log")
    ticks = sorted(places)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel=axis, ylabel=f"{metric} (%)")
    if any(axes.get_legend_handles_labels()[1]):
        axes.legend(fontsize=8)
