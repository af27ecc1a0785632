"""Targets from the graph as a method of stages."""

from __future__ import annotations

from resight.train.recipes.graph import GraphSettings
from resight.train.unlabelled.graph import ending, evidence, learning
from resight.train.unlabelled.method import Method

GRAPH: Method[GraphSettings] = Method(
    settle=learning.settle,
    words=learning.words,
    nothing=learning.nothing_to_learn,
    train=learning.train,
    evidence=evidence.write,
    index=evidence.write_index,
    end=ending.end,
    files=("features", "pool", learning.DIFFUSION),
)
