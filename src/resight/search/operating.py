"""Operating points: how many known objects are found against how many unknown ones are matched.

1:N identification (Grother & Ngan, FRVT, NIST IR 8009): a query is answered where its first hit's
score reaches a threshold. False-match rate (FPIR): the share of the queries of unknown objects that
are answered. Found rate (TPIR): the share of those of known objects whose first hit is right and
reaches it. The score may be a similarity, a probability or 1 - p.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resight.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RATES = (0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0)
_Z = 1.959963984540054  # 95 %


def wilson(successes: int, n: int, z: float = _Z) -> tuple[float, float]:
    """The interval of a share, 95 % by default (Wilson, JASA 1927); 0 to 1 without any.

    It takes the n for independent: with several images an object it is too narrow.
    """
    if not n:
        return 0.0, 1.0
    share, extra = successes / n, z * z / n
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * np.sqrt(share * (1 - share) / n + extra / (4 * n))
    low = 0.0 if successes == 0 else max(0.0, float(middle - half))
    return low, 1.0 if successes == n else min(1.0, float(middle + half))


def operating_points(
    known: Floats, right: Bools, unknown: Floats, rates: Sequence[float] = RATES
) -> list[dict[str, Any]]:
    """One row a rate: the lowest threshold at which at most `rate` of the unknown are answered.

    known (K,) scores of the queries whose object is in the gallery, right (K,) whether their first
    hit is; unknown (U,) scores of the others. A row: threshold (answered: score >= threshold), and
    for false_match and found each rate, low, high (95 %), count, and the n that they are of. Equal
    scores share a threshold. A threshold of -inf answers all, one of inf none; None for the rate of
    none.
    """
    return [_point(known, right, unknown, rate) for rate in rates]


def _point(known: Floats, right: Bools, unknown: Floats, rate: float) -> dict[str, Any]:
    alarms = np.sort(unknown)[::-1]
    allowed = int(np.floor(rate * len(alarms) + 1e-9))
    if allowed >= len(alarms):
        threshold = -np.inf
    else:  # the lowest score that is answered lies above the first alarm that is one too many
        scores = np.concatenate([known, unknown])
        threshold = float(np.min(scores[scores > alarms[allowed]], initial=np.inf))
    return {"rate": rate} | point_at(known, right, unknown, threshold)


def point_at(known: Floats, right: Bools, unknown: Floats, threshold: float) -> dict[str, Any]:
    """The row of one threshold, as in `operating_points`."""
    found = int((right & (known >= threshold)).sum())
    matched = int((unknown >= threshold).sum())
    row: dict[str, Any] = {"threshold": threshold}
    for name, count, n in (("false_match", matched, len(unknown)), ("found", found, len(known))):
        low, high = wilson(count, n)
        row |= {f"{name}_rate": count / n if n else None, f"{name}_low": low}
        row |= {f"{name}_high": high, f"{name}_count": count, f"{name}_n": n}
    return row


def by_camera_pair(
    known: Floats,
    right: Bools,
    known_pairs: Sequence[tuple[str, str]],
    unknown: Floats,
    unknown_pairs: Sequence[tuple[str, str]],
    threshold: float,
) -> list[dict[str, Any]]:
    """One row a pair of cameras, sorted: `query_camera`, `gallery_camera` and `point_at`'s.

    The pair of each query: its camera, and that of the gallery images it was compared with, or of
    its first hit. The threshold is one for all: that is what shows the pairs for which it is wrong.
    """
    rows = []
    for pair in sorted({*known_pairs, *unknown_pairs}):
        here = np.array([other == pair for other in known_pairs], np.bool_)
        there = np.array([other == pair for other in unknown_pairs], np.bool_)
        row = point_at(known[here], right[here], unknown[there], threshold)
        rows.append({"query_camera": pair[0], "gallery_camera": pair[1]} | row)
    return rows


def plot_operating(
    known: Floats, right: Bools, unknown: Floats, path: Path, alpha: float | None = None
) -> Path:
    """The found rate against the false-match rate at every threshold, a PNG; alpha is marked.

    With the 95 % interval of the found rate as a band.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(style), atomic_path(path) as temporary:
        figure = Figure(figsize=(6, 3.8), layout="constrained")
        _draw(figure.add_subplot(), known, right, unknown, alpha)
        figure.savefig(temporary, dpi=150, format="png")
    return path


def _draw(
    axes: Axes, known: Floats, right: Bools, unknown: Floats, alpha: float | None = None
) -> None:
    scores = np.sort(np.unique(np.concatenate([known, unknown])))[::-1]
    if len(scores) > 2000:  # more points than a plot can show
        scores = scores[np.linspace(0, len(scores) - 1, 2000).astype(np.int64)]
    rows = [point_at(known, right, unknown, float(score)) for score in scores]
    floor = 0.5 / max(len(unknown), 1)
    across = [max(row["false_match_rate"] or 0.0, floor) for row in rows]
    axes.plot(across, [row["found_rate"] or 0.0 for row in rows], color="#2a78d6")
    low, high = ([row[f"found_{side}"] for row in rows] for side in ("low", "high"))
    axes.fill_between(across, low, high, color="#2a78d6", alpha=0.18, linewidth=0)
    if alpha is not None:
        axes.axvline(alpha, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(f"α = {alpha:g}", (alpha, 0.02), xycoords=("data", "axes fraction"))
    axes.set(xscale="log", xlim=(floor, 1), ylim=(0, 1))
    axes.set(xlabel="false matches among unknown objects", ylabel="known objects found")
    axes.grid(alpha=0.25)
