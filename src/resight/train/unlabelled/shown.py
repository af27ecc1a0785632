"""How figures of stages are shown, whatever is learned in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.report.plots import figure


def percent(share: float | None) -> str:
    """A share as "12.3 %"; – for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def over_stages(stages: Sequence[int], lines: dict[str, list[float | None]]) -> str:
    """A small plot, as SVG: shares by their names, one a stage, None where nothing can be said."""
    svg: list[str] = []
    with figure(svg, (5.2, 3.7)) as axes:
        for k, (label, values) in enumerate(lines.items()):
            shares: NDArray[np.float64] = 100 * np.array(values, float)  # None: NaN, a gap
            if not np.isnan(shares).all():
                axes.plot(stages, shares, "o-", color=f"C{k}", label=label, linewidth=2)
        axes.set(xlabel="stage", ylabel="%", ylim=(-2, 102), xticks=stages)
        axes.set_xlim(min(stages) - 0.3, max(stages) + 0.3)
        if axes.lines:
            axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.18), ncols=2, fontsize=9)
    return svg[0]
