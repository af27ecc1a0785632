"""A picture of a training: its loss, and its scores on the objects held out."""

from __future__ import annotations

import io
import json
from pathlib import Path

from resight.train.rundir import LOG

_LOSS, _SCORE = "#8a8f98", "#3f7fd8"
_FEWEST = 2  # points that make a curve


def points(run: Path, kind: str, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name in a run's log, of lines of this kind ("train", "val")."""
    steps, values = [], []
    try:
        lines = (run / LOG).read_text(encoding="utf-8").splitlines()
    except OSError:
        return [], []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of a killed run may be half a line
            continue
        if entry.get("kind") == kind and name in entry and "step" in entry:
            steps.append(int(entry["step"]))
            values.append(float(entry[name]))
    return steps, values


def draw_curve(run: Path) -> bytes | None:
    """A PNG of a run's log; None where it is no run, or has no curve."""
    loss, score = points(run, "train", "loss"), points(run, "val", "mAP")
    if max(len(loss[0]), len(score[0])) < _FEWEST:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), dpi=120, layout="constrained")
    left = figure.subplots()
    left.set_xlabel("step")
    left.set_ylabel("loss", color=_LOSS)
    left.plot(*loss, color=_LOSS, linewidth=1)
    left.spines[["top"]].set_visible(False)
    right = left.twinx()
    right.set_ylabel("mAP on objects held out, %", color=_SCORE)
    right.plot(score[0], [100 * value for value in score[1]], color=_SCORE, marker="o", ms=3)
    right.spines[["top"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
