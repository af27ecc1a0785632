"""Rules of selection and mining, drawn at random."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from resight.mining.selection import Rule

# Everything of a case follows from its seed: hypothesis, left to itself, draws mostly empty ones.
SEEDS = st.integers(0, 2**32 - 1)
# Few enough that similarities, thresholds and floors often meet.
MARKS = (-1, -0.5, 0.25, 0.5, 0.6, 0.625, 0.7, 0.75, 1)


def mark(generator: np.random.Generator) -> float:
    return float(generator.choice(MARKS))


def any_rule(generator: np.random.Generator) -> Rule:
    return Rule(
        score=generator.choice(["average", "max"]),
        choose=generator.choice(["threshold", "topk"]),
        threshold=mark(generator),
        top=int(generator.integers(1, 5)),
        rounds=int(generator.integers(0, 6)),
        floor=mark(generator),
    )
