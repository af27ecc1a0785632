"""Metrics for Prometheus; several processes share theirs through a folder."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

SHARED = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Latency by stage, queue, batches, hits, no-matches, what was turned away."""

    def __init__(self) -> None:
        self.registry = made = CollectorRegistry()
        self.requests = Counter(
            "resight_requests", "Requests answered.", ["route", "status"], registry=made
        )
        self.stages = Histogram(
            "resight_stage_seconds",
            "Seconds of a search by stage: queue, decode, embed, search, total.",
            ["stage"],
            buckets=_SECONDS,
            registry=made,
        )
        self.queue = Gauge(
            "resight_queue_length", "Requests in work.", registry=made, multiprocess_mode="livesum"
        )
        self.batches = Histogram(
            "resight_batch_size",
            "Photos that the model took at once.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=made,
        )
        self.hits = Counter("resight_hits", "Hits answered.", registry=made)
        self.no_matches = Counter(
            "resight_no_matches", "Searches answered with no match.", registry=made
        )
        self.rejected = Counter(
            "resight_rejected", "Requests turned away.", ["reason"], registry=made
        )
        self.decoders = Counter(
            "resight_decoders_replaced", "Decoders that died or took too long.", registry=made
        )
        for stage in ("queue", "decode", "embed", "search", "total"):
            self.stages.labels(stage)

    def text(self) -> bytes:
        """What Prometheus reads; of all processes, where they share."""
        if SHARED not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def close(self) -> None:
        """This process is about to end: its gauges count no more."""
        if SHARED in os.environ:
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
