"""Learning rates as functions of the epoch, or of the step."""

from __future__ import annotations

import math
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


def warmup_cosine(step: int, *, steps: int, warmup: float = 0.05) -> float:
    """The factor on the base rate at `step` (from 0) of `steps`: linear warm-up, then a cosine.

    The warm-up takes the share `warmup` of the steps; the rate ends near 0, wherever that is: a
    run of any length is a whole one.
    """
    rising = min(1.0, (step + 1) / max(1.0, warmup * steps))
    return rising * (0.5 + 0.5 * math.cos(math.pi * min(step, steps) / steps))
