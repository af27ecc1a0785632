"""torchmetrics: RetrievalMAP, and its function query by query.

Only predictions above zero count as retrieved, so 1 is added to the cosines. RetrievalMAP wants
every pair as (prediction, target, index of the query); junk is what `ignore_index` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from peers.data import Data, Ints, Size
from peers.plain import Pace, Work


def bytes_needed(size: Size) -> float:
    """The stored pairs and what sorts them: as measured a pair."""
    return 78.0 * size.pairs


def _blocks(data: Data, queries: Ints) -> Iterator[tuple[Any, Any, Ints]]:
    """Predictions and targets (n, gallery) of 256 queries at a time; target -1 is junk."""
    import torch

    rows, objects = torch.from_numpy(data.unit()), data.object[data.gallery]
    gallery = rows[data.gallery]
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256]
        target = (data.object[block, None] == objects).astype(np.int32)
        for row, query in zip(target, block, strict=True):
            row[data.hidden(query)] = -1
        yield rows[block] @ gallery.T + 1, torch.from_numpy(target), block


def retrieval_map(data: Data) -> Work:
    """RetrievalMAP, updated by blocks of queries."""
    import torch
    from torchmetrics.retrieval import RetrievalMAP

    def work() -> dict[str, Any]:
        metric = RetrievalMAP(ignore_index=-1)
        for predictions, target, block in _blocks(data, np.arange(data.queries.stop)):
            index = torch.from_numpy(block)[:, None].expand(predictions.shape)
            metric.update(predictions, target, indexes=index)
        return {"mAP": float(metric.compute())}

    return work


def by_query(data: Data) -> Work:
    """retrieval_average_precision of one query after the other, in a random order."""
    from torchmetrics.functional.retrieval import retrieval_average_precision

    def work() -> dict[str, Any]:
        pace, aps = Pace(), []
        queries = data.shuffled()
        for predictions, target, _ in _blocks(data, queries):
            for some, truth in zip(predictions, target, strict=True):
                seen = truth >= 0
                aps.append(float(retrieval_average_precision(some[seen], truth[seen])))
            if whole := pace.hopeless(len(aps), len(queries)):
                return {"mAP": float(np.mean(aps)), "queries": len(aps), "whole": whole}
        return {"mAP": float(np.mean(aps))}

    return work
