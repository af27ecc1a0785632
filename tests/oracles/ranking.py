"""Slow, obvious twins of the evaluation: full matrices, plain sorts, loops."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def unit(row: np.ndarray) -> list[int]:
    """A row L2-normalised, in whole steps of 2**-26 and no more digits than a float32 holds."""
    values = [float(value) for value in row]
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0:
        return [0] * len(values)
    values = [value / largest for value in values]
    norm = sum(value * value for value in values) ** 0.5
    return [int(np.float32(round(value / norm * 2**26))) for value in values]


def similarities(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """(Q, G) float64, in whole numbers throughout, so exact."""
    left = [unit(row) for row in queries]
    right = [unit(row) for row in gallery]
    return np.array(
        [
            [float(Fraction(sum(a * b for a, b in zip(x, y, strict=True)), 2**52)) for y in right]
            for x in left
        ]
    ).reshape(len(left), len(right))


def ranks(
    similarity: np.ndarray, positives: list[list[int]], junk: list[list[int]], ties: str = "by-id"
) -> list[list[tuple[int, int, float]]]:
    """For each query the (rank, gallery index, similarity) of its positives, by a full sort."""
    result = []
    for row, wanted, hidden in zip(similarity, positives, junk, strict=True):

        def key(g: int, row=row, wanted=wanted):
            kind = {"by-id": 0, "optimistic": g not in wanted, "pessimistic": g in wanted}[ties]
            return (-row[g], kind, g)

        order = sorted((g for g in range(len(row)) if g not in hidden), key=key)
        result.append([(i + 1, g, row[g]) for i, g in enumerate(order) if g in wanted])
    return result
