"""pytorch-metric-learning: AccuracyCalculator with its faiss search, on the CPU.

k=None ranks the whole gallery; that mAP is over the whole list and divided by all relevant. Where
it needs too much memory, k="max_bin_count" as its documentation advises: the list is then cut at
the number of images of the largest object. It has no rule for junk.
"""

from __future__ import annotations

from typing import Any

from peers.data import Data, Size
from peers.plain import Work


def bytes_needed(size: Size, k: int | None = None) -> float:
    """Distances, places, labels and masks of the first k: as measured an element."""
    queries, gallery = size.queries or size.images, size.images - size.queries
    return 64.0 * queries * (k or gallery)


def prepare(cut: bool, data: Data) -> Work:
    """AccuracyCalculator over the whole list, or cut."""
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    def work() -> dict[str, Any]:
        calculator = AccuracyCalculator(
            include=("mean_average_precision",),
            k="max_bin_count" if cut else None,
            device=torch.device("cpu"),
        )
        rows, labels = torch.from_numpy(data.unit()), torch.from_numpy(data.object)
        arguments = [rows[data.queries], labels[data.queries]]
        if data.size.queries:
            arguments += [rows[data.gallery], labels[data.gallery]]
        return {"mAP": calculator.get_accuracy(*arguments)["mean_average_precision"]}

    return work
