"""open-metric-learning: batched_knn and calc_retrieval_metrics, the inside of EmbeddingMetrics.

Its sequences ("ignore members of the query's sequence") express the camera rule: a sequence is
an object seen by a camera. map@k is divided by the relevant found among the first k: with k the
whole gallery it is the mAP over the whole list.
"""

from __future__ import annotations

from typing import Any

from peers.data import Data, Size
from peers.plain import Work

BLOCK = 5000  # its own block of queries


def bytes_needed(size: Size, k: int | None = None) -> float:
    """Places and distances of the first k, and the distances and masks of one block."""
    queries, gallery = size.queries or size.images, size.images - size.queries
    k = k or gallery
    return 13.0 * queries * k + min(queries, BLOCK) * (8.0 * gallery + 12.0 * k)


def longest(size: Size, memory: float) -> int:
    """The largest k, in thousands, that fits into the memory."""
    most = size.images - size.queries
    return max((k for k in range(1000, most, 1000) if bytes_needed(size, k) < memory), default=100)


def prepare(k: int | None, data: Data) -> Work:
    """map@k; None: the whole gallery."""
    import torch
    from oml.functional.knn import batched_knn
    from oml.functional.metrics import calc_retrieval_metrics

    k = k or data.size.images - data.size.queries

    def work() -> dict[str, Any]:
        sequences = None
        if data.camera is not None:
            sequences = torch.from_numpy(data.object * data.size.cameras + data.camera)
        _, found, relevant = batched_knn(
            embeddings=torch.from_numpy(data.unit()),
            ids_query=torch.arange(data.queries.start, data.queries.stop),
            ids_gallery=torch.arange(data.gallery.start, data.gallery.stop),
            labels_gt=torch.from_numpy(data.object),
            sequence_ids=sequences,
            top_n=k,
        )
        metrics = calc_retrieval_metrics(
            found, relevant, cmc_top_k=(), precision_top_k=(), map_top_k=(k,), verbose=False
        )
        return {"mAP": float(metrics["map"][k])}

    return work
