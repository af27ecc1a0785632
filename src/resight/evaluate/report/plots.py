"""The page's figures as inline SVG, in the text colour of the page around them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#0a0b0c"  # stands for the page's text colour until the SVG is done
_COLOURS = {"image": "#3f7fd8", "object": "#d9822b"}
_RIGHT, _WRONG = "#2e9e5b", "#d1495b"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "resight",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#8888884d",
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


@contextmanager
def figure(into: list[str], size: tuple[float, float] = (5.2, 3.1)) -> Iterator[Axes]:
    """Axes to draw on, `size` in inches; the SVG is appended to `into`."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        canvas = Figure(figsize=size, layout="constrained")
        axes = canvas.subplots()
        yield axes
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    into.append(re.sub(r"font-family: [^;]*; ", "", svg))  # the page's font instead


def labels_of(scores: Sequence[Scores]) -> list[str]:
    """What each is called: its level where that tells them apart, else its protocol's name."""
    levels = [one.protocol.level for one in scores]
    if len(set(levels)) == len(levels):
        return [f"{level} level" for level in levels]
    return [one.protocol.name for one in scores]


def _colour(scores: Sequence[Scores], place: int) -> str:
    levels = [one.protocol.level for one in scores]
    if len(set(levels)) == len(levels):
        return _COLOURS[levels[place]]
    return f"C{place % 10}"


def cmc_curve(scores: Sequence[Scores], length: int = 50) -> str:
    """R@K against K, one line a protocol."""
    svg: list[str] = []
    with figure(svg) as axes:
        for i, (one, label) in enumerate(zip(scores, labels_of(scores), strict=True)):
            curve = 100 * one.cmc(min(length, max(one.gallery, 1)))
            places = np.arange(1, len(curve) + 1)
            axes.plot(places, curve, color=_colour(scores, i), label=label, linewidth=2)
        axes.set(xlabel="K", ylabel="R@K (%)", ylim=(0, 101), xlim=(1, None))
        axes.legend(loc="lower right")
    return svg[0]


def ap_histogram(scores: Sequence[Scores]) -> str:
    """How many queries have which AP, one outline a protocol."""
    svg: list[str] = []
    bins = np.linspace(0, 1, 21)
    with figure(svg) as axes:
        for i, (one, label) in enumerate(zip(scores, labels_of(scores), strict=True)):
            values = one.per_query["AP"].drop_nans().to_numpy()
            counts, _ = np.histogram(values, bins)
            shares = 100 * counts / max(len(values), 1)
            axes.stairs(shares, bins, color=_colour(scores, i), fill=True, alpha=0.25)
            axes.stairs(shares, bins, color=_colour(scores, i), label=label, linewidth=1.6)
        axes.set(xlabel="average precision of a query", ylabel="queries (%)", xlim=(0, 1))
        axes.legend(loc="upper center")
    return svg[0]


def similarity_histogram(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> str:
    """The similarities of right and of wrong pairs, each scaled to its own total."""
    svg: list[str] = []
    both = np.concatenate((positive, negative))
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    bins = np.linspace(low, high if high > low else low + 1e-3, 41)
    with figure(svg) as axes:
        for values, colour, label in ((negative, _WRONG, "wrong"), (positive, _RIGHT, "right")):
            counts, _ = np.histogram(values, bins)
            shares = 100 * counts / max(len(values), 1)
            axes.stairs(shares, bins, color=colour, fill=True, alpha=0.35)
            axes.stairs(shares, bins, color=colour, label=f"{label} pairs", linewidth=1.4)
        axes.set(xlabel="cosine similarity", ylabel="pairs of a kind (%)")
        axes.legend(loc="best")
    return svg[0]


def object_histogram(means: NDArray[np.float64], level: str) -> str:
    """How many objects have which mean AP."""
    from matplotlib.ticker import MaxNLocator

    svg: list[str] = []
    with figure(svg) as axes:
        counts, bins = np.histogram(means, np.linspace(0, 1, 21))
        axes.stairs(counts, bins, color=_COLOURS[level], fill=True, alpha=0.6)
        axes.set(xlabel="mean AP of an object's queries", ylabel="objects", xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return svg[0]
