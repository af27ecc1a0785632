"""What a service may be told: where it listens, and what it allows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
LOCAL = ("127.0.0.1", "localhost", "::1")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


class Settings(BaseModel):
    """Of a service.

    Limits of a request: `bytes` of its body, `pixels` and `frames` of a photo, `photos` of a query,
    `k` hits. `queue`: requests in work at a time, more are turned away (429). `deadline`: seconds
    for a whole search, or until a photo to add has arrived. `batch`: photos that the model takes at
    once; `wait`: seconds it waits for others that are on their way. `decoders`: processes that
    decode; `decode_seconds`: what one photo may take. `rate`: requests a minute of each key, in
    each process. `cors`: origins whose pages may call. `feedback`: answers kept at most.
    `reports`: evaluations, folders of them and HTML pages that are shown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    keys: Path | None = None
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    device: str | None = None
    runtime: Literal["auto", "torch", "onnx"] | None = None
    bytes: Annotated[int, Field(ge=1024)] = 32 * 2**20
    pixels: Annotated[int, Field(ge=1, le=178_956_970)] = 50_000_000
    frames: Count = 1000
    photos: Annotated[int, Field(ge=1, le=64)] = 8
    k: Annotated[int, Field(ge=1, le=10_000)] = 100
    queue: Count = 64
    deadline: Seconds = 10.0
    batch: Count = 32
    wait: Annotated[float, Field(ge=0, le=1)] = 0.003
    decoders: Annotated[int, Field(ge=1, le=64)] = Field(default_factory=lambda: min(4, _cores()))
    decode_seconds: Seconds = 5.0
    rate: Count = 1200
    cors: tuple[str, ...] = ()
    feedback: Count = 20_000
    reports: tuple[Path, ...] = ()
