"""How images are embedded: apart, so that it can be said without loading a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EmbedOptions:
    """How images are embedded. `batch_size` None: found by trying; `workers` None: by machine."""

    batch_size: int | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    workers: int | None = None
    strict: bool = False


PLAIN = EmbedOptions()
