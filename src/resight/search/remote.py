"""Searching in the engine's own index, where it has one: PostgreSQL and Qdrant.

What the engine finds it has compared again in float64, so answers are those of a view up to what
its index does not find. Nothing is held in memory here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from resight.search.engines.contract import Engine, Near
from resight.search.view import first_of_each
from resight.search.where.tree import Tree


@runtime_checkable
class Searches(Protocol):
    """An engine that searches by itself; `filters`: whether it takes `where=` too."""

    filters: bool

    def nearest(
        self, queries: NDArray[np.float32], fetch: int, *, level: str = "image"
    ) -> list[Near]:
        """Keys and groups as in `Views`, cosines, best first, ties by key."""


def can_search(engine: Engine, where: Tree | None) -> bool:
    """Whether the engine can be asked this."""
    return isinstance(engine, Searches) and (where is None or engine.filters)


def nearest(
    engine: Any,
    queries: NDArray[np.float32],
    k: int,
    *,
    level: str,
    where: Tree | None,
    without: Sequence[frozenset[int]] | None = None,
) -> list[Near]:
    """The k nearest of each query (Q, D); at image level of k different objects, the best each.

    `without`: keys that are no answer, for each query. More is asked for until there are enough.
    """
    how: dict[str, Any] = {"level": level} | ({"where": where} if where is not None else {})
    total = sum(engine.counts())
    found: list[Near | None] = [None] * len(queries)
    todo, fetch = list(range(len(queries))), k + 8
    while todo:
        short = []
        for at, near in zip(todo, engine.nearest(queries[todo], fetch, **how), strict=True):
            barred = without[at] if without is not None else frozenset()
            keep = np.flatnonzero(~np.isin(near.keys, np.fromiter(barred, np.int64, len(barred))))
            if level == "image":
                keep = keep[first_of_each(near.groups[None, keep])[0]]
            best = keep[:k]
            found[at] = Near(near.keys[best], near.groups[best], near.similarities[best])
            if len(keep) < k and len(near.keys) >= fetch and fetch < total:
                short.append(at)
        todo, fetch = short, fetch * 4
    return [near for near in found if near is not None]
