"""Second looks that are made ready by someone else than who searches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from resight.errors import UserError
from resight.graph.rerank import Chain


@dataclass(frozen=True)
class Elsewhere:
    """Of more than `most` vectors nothing is made here; `ask`, told which view and chain, sees that
    it is made by someone else."""

    most: int
    ask: Callable[[str, Chain], None]


class NotReady(UserError):
    """A second look that is made elsewhere, and is not there yet."""
