"""Learning rates as functions of the epoch."""

from __future__ import annotations

from collections.abc import Sequence


def warmup_steps(
    epoch: int, *, warmup: int, milestones: Sequence[int], gamma: float = 0.1
) -> float:
    """The factor on the base rate in `epoch` (from 0): linear warm-up, then steps.

    (epoch + 1) / warmup while epoch < warmup, then gamma to the number of milestones reached.
    """
    if epoch < warmup:
        return (epoch + 1) / warmup
    return float(gamma ** sum(epoch >= milestone for milestone in milestones))
