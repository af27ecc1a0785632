"""The figure of methods with several runs: each run, their mean, its interval."""

from __future__ import annotations

import numpy as np

from resight.evaluate.records.groups import GroupTable
from resight.evaluate.report.plots import figure

_METHOD, _BASELINE = "#3f7fd8", "#d9822b"


def group_plot(table: GroupTable, m: int) -> str:
    """Metric m: a row a method with its interval as a line, its mean, and its runs as dots."""
    svg: list[str] = []
    count = len(table.methods)
    with figure(svg, (5.2, min(1.0 + 0.36 * count, 14))) as axes:
        for k, method in enumerate(table.methods):
            colour = _BASELINE if method == table.baseline else _METHOD
            low, high = 100 * table.intervals[k, m]
            axes.hlines(k, low, high, color=colour, linewidth=2.4, alpha=0.55)
            axes.plot(100 * table.mean[k, m], k, "|", color=colour, markersize=13, mew=2.4)
            runs = 100 * table.runs[k][:, m]
            # Beside the line, so that runs near the mean are seen.
            axes.plot(runs, np.full(len(runs), k + 0.26), "o", color=colour, ms=3.6, alpha=0.85)
        axes.set_yticks(range(count), [name.replace("$", r"\$") for name in table.methods])
        axes.set(xlabel=f"{table.metrics[m]} (%)", ylim=(count - 0.4, -0.6))
        axes.grid(axis="y", visible=False)
    return svg[0]
