"""One page about methods with several runs each: tables over seeds, on one or more image sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resight.evaluate.records.compare import SIGNIFICANT, in_words, percent, points, span
from resight.evaluate.records.groups import Groups, GroupTable, compare_groups
from resight.evaluate.records.published import beside
from resight.evaluate.report.render import write_page
from resight.evaluate.uncertainty import Floats


@dataclass(frozen=True)
class Part:
    """One image set of a page: its name ("" of the only one), its runs, their tables, notes."""

    name: str
    groups: Groups
    tables: Sequence[GroupTable]
    lines: Sequence[str] = ()


def write_groups_page(path: Path, groups: Groups, baseline: str | None = None) -> Path:
    """Write one HTML page about methods, each given by the evaluations of its runs (seeds).

    Returns `path`. Raises what `compare_groups` raises; OSError when the page can't be written.
    """
    return write_parts_page(path, [Part("", groups, compare_groups(groups, baseline))])


def write_parts_page(path: Path, parts: Sequence[Part]) -> Path:
    """Write one HTML page about several image sets, with everything it needs inside.

    Where there are several, a table of all methods on all sets comes first. Returns `path`.

    Raises ValueError without a part, OSError when the page can't be written.
    """
    if not parts:
        raise ValueError("a page needs at least one image set")
    methods = list(dict.fromkeys(name for part in parts for name in part.groups))
    return write_page(
        Path(path),
        "groups.html.j2",
        title=", ".join(methods) if len(methods) < 4 else f"{len(methods)} methods",
        baselines=list(dict.fromkeys(part.tables[0].baseline for part in parts)),
        overview=_overview(parts, methods) if len(parts) > 1 else None,
        parts=[
            {
                "name": part.name,
                "lines": part.lines,
                "sections": [_section(table) for table in part.tables],
                "runs": _runs(part),
            }
            for part in parts
        ],
    )


def overview_metrics(table: GroupTable) -> list[int]:
    """The places of the metrics that stand for a table: the primary one, mAP and R@1."""
    chosen = [0]
    for wanted in ("mAP", "R@1"):
        found = [m for m, name in enumerate(table.metrics) if _is(wanted, name)]
        if not set(found) & set(chosen):
            chosen += found[:1]
    return chosen


def _is(wanted: str, metric: str) -> bool:
    """R@1 isn't R@10; "mAP@100" and "mAP legacy" are kinds of mAP."""
    return metric.split()[0] == wanted or (wanted == "mAP" and metric.startswith("mAP"))


def value_in_words(table: GroupTable, k: int, m: int) -> str:
    """Mean and standard deviation in percent; the mean alone of a single run."""
    sd = table.sd[k, m]
    spread = "" if np.isnan(sd) else f" ± {percent(sd, table.digits)}"
    return percent(table.mean[k, m], table.digits) + spread


def sign_of(table: GroupTable, k: int, m: int) -> str:
    """ "▲" or "▼" where a method differs from the baseline after Holm's correction, else ""."""
    if not table.holm[k, m] < SIGNIFICANT:
        return ""
    return "▲" if table.differences[k].mean[m] > 0 else "▼"


def _overview(parts: Sequence[Part], methods: Sequence[str]) -> dict[str, Any]:
    """All methods on all image sets, each by its first protocol."""
    firsts = [part.tables[0] for part in parts]
    columns = [(table, m) for table in firsts for m in overview_metrics(table)]
    rows = []
    for method in methods:
        cells = []
        for table, m in columns:
            if method not in table.methods:
                cells.append({"value": "", "top": False, "sign": ""})
                continue
            k = table.methods.index(method)
            value = value_in_words(table, k, m)
            cells.append({"value": value, "top": _tops(table, m)[k], "sign": sign_of(table, k, m)})
        rows.append({"name": method, "cells": cells})
    return {
        "heads": [
            {"name": part.name, "protocol": table.protocol, "width": len(overview_metrics(table))}
            for part, table in zip(parts, firsts, strict=True)
        ],
        "columns": [table.metrics[m] for table, m in columns],
        "rows": rows,
        "counts": _counts([len(runs) for part in parts for runs in part.groups.values()]),
    }


def _counts(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _tops(table: GroupTable, m: int) -> list[bool]:
    """Which methods have the highest mean, where there is something to choose from."""
    mean = table.mean[:, m]
    if len(mean) < 2 or np.isnan(mean).all():
        return [False] * len(mean)
    return [bool(one == np.nanmax(mean)) for one in mean]


def _section(table: GroupTable) -> dict[str, Any]:
    """One protocol, ready to print."""
    from markupsafe import Markup

    from resight.evaluate.report.groups_plots import group_plot

    every = range(len(table.metrics))
    tops = [_tops(table, m) for m in every]
    values = [
        {
            "name": method,
            "runs": len(table.runs[k]),
            "cells": [
                {
                    "value": value_in_words(table, k, m),
                    "interval": _span(table.intervals[k, m], table.digits),
                    "top": tops[m][k],
                }
                for m in every
            ],
        }
        for k, method in enumerate(table.methods)
    ]
    differences = [
        {"name": method, "cells": [_difference(table, k, m) for m in every]}
        for k, method in enumerate(table.methods)
        if method != table.baseline
    ]
    plots = [
        {"metric": table.metrics[m], "svg": Markup(group_plot(table, m))}
        for m in overview_metrics(table)
    ]
    return {
        "table": table,
        "values": values,
        "differences": differences,
        "plots": plots,
        "single": all(len(runs) == 1 for runs in table.runs),
        "published": _published(table),
    }


def _difference(table: GroupTable, k: int, m: int) -> dict[str, str]:
    one = table.differences[k]
    if np.isnan(one.p[m]):
        return {"points": "–", "interval": "", "p": "", "holm": "", "kind": ""}
    corrected = table.holm[k, m]
    kind = {"▲": "up", "▼": "down"}.get(sign_of(table, k, m), "")
    return {
        "points": points(one.mean[m], table.digits),
        "interval": _span(one.interval[m], table.digits),
        "p": in_words(one.p[m]),
        "holm": in_words(corrected, "Holm p") if len(table.methods) > 2 else "",
        "kind": kind,
    }


def _span(ends: Floats, digits: int) -> str:
    return "" if np.isnan(ends).any() else span(ends, digits)


def _published(table: GroupTable) -> dict[str, Any] | None:
    """Published figures beside the means of the methods; None without any."""
    means = [dict(zip(table.metrics, map(float, row), strict=True)) for row in table.mean]
    return beside(table.protocol, list(zip(table.methods, means, strict=True)))


def _runs(part: Part) -> list[dict[str, Any]]:
    """A row for each run: where it is, what it scored, how it was made."""
    table = part.tables[0]
    return [
        {
            "method": method if r == 0 else "",
            "value": percent(table.runs[k][r, 0], table.digits),
            "record": record,
        }
        for k, (method, runs) in enumerate(part.groups.items())
        for r, record in enumerate(runs)
    ]
