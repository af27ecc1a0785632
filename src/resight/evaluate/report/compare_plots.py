"""Figures of a comparison: differences with their intervals, and query by query."""

from __future__ import annotations

from typing import Literal

import numpy as np

from resight.evaluate.records.compare import Comparison
from resight.evaluate.report.plots import figure
from resight.evaluate.uncertainty import Floats

_BETTER, _WORSE = "#2e9e5b", "#d1495b"
_RUNS = ("#3f7fd8", "#d9822b", "#8a63d2", "#2a9d9d", "#c2559d", "#7c8a2e")
_POINTS = 400  # of a curve; more can't be seen


def difference_plot(comparison: Comparison) -> str:
    """The difference of each metric to the baseline with its interval, a colour a run."""
    svg: list[str] = []
    others = comparison.differences
    n_metrics = len(comparison.metrics)
    height = 0.9 + 0.2 * n_metrics * (len(others) + 0.6)
    with figure(svg, (5.2, min(max(height, 2.2), 12))) as axes:
        for i, one in enumerate(others):
            mean, low, high = 100 * one.mean, 100 * one.interval[:, 0], 100 * one.interval[:, 1]
            offset = (i + 1) / (len(others) + 1) - 0.5
            place = np.arange(n_metrics) + offset
            colour = _RUNS[i % len(_RUNS)]
            label = comparison.runs[i + 1]
            axes.hlines(place, low, high, color=colour, linewidth=2.2, alpha=0.65)
            axes.plot(mean, place, "o", color=colour, markersize=5.5, label=label)
        axes.axvline(0, color="#888888", linewidth=1.1)
        axes.set(yticks=range(n_metrics), xlabel=f"points more than {comparison.runs[0]}")
        axes.set_yticklabels(comparison.metrics)
        axes.set_ylim(n_metrics - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        if len(others) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)
    return svg[0]


def query_plot(moved: Floats) -> str:
    """The differences in AP of all queries (Q,), sorted: how many gain, how many lose."""
    svg: list[str] = []
    values = -np.sort(-moved[~np.isnan(moved)])
    share = (np.arange(len(values)) + 0.5) / max(len(values), 1)
    if len(values) > _POINTS:
        chosen = np.unique(np.linspace(0, len(values) - 1, _POINTS).round().astype(int))
        share, values = share[chosen], values[chosen]
    with figure(svg) as axes:
        x, y = 100 * share, 100 * values
        step: Literal["mid"] | None = "mid" if len(values) <= 60 else None
        axes.fill_between(x, y, 0, where=y >= 0, color=_BETTER, alpha=0.45, step=step, linewidth=0)
        axes.fill_between(x, y, 0, where=y <= 0, color=_WORSE, alpha=0.45, step=step, linewidth=0)
        axes.plot(x, y, color="#888888", linewidth=1, drawstyle="steps-mid" if step else "default")
        axes.axhline(0, color="#888888", linewidth=0.8)
        axes.set(xlabel="queries, sorted (%)", ylabel="change of AP (points)", xlim=(0, 100))
    return svg[0]
