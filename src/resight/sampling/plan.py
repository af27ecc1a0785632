"""The line at the start of training that says what an epoch will be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resight.data.loading import Draw


def describe(labels: Sequence[int], batches: Sequence[Sequence[Draw]]) -> str:
    """What an epoch of these batches is, in words, counted from the batches themselves.

    `labels` are those of all images, by row. Gives the batches and their size, how often an
    object is seen, objects without a pair, images drawn more than once, and images left out.
    """
    _, codes = np.unique(np.asarray(labels), return_inverse=True)
    if not any(batches):
        return "each epoch: no batch"
    rows = np.array([row for batch in batches for row, _ in batch])
    which = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    objects = int(codes.max()) + 1
    met, images = np.unique(which * objects + codes[rows], return_counts=True)
    ids = np.bincount(met // objects, minlength=len(batches))
    full = len(rows) == len(batches) * ids.max() * images.max()
    upto = "" if full else "up to "
    shape = f"{_many(ids.max(), 'object')} × {_many(images.max(), 'image')}"
    clauses = [f"each epoch: {_many(len(batches), 'batch', 'batches')} of {upto}{shape}"]
    clauses.append(_visits(np.bincount(met % objects, minlength=objects)))
    single = int(np.sum(np.bincount(codes) == 1))
    if single:
        one = single == 1
        verb, role = ("has", "serves as a negative") if one else ("have", "serve as negatives")
        clauses.append(f"{_many(single, 'object')} {verb} a single image and {role} only")
    drawn = np.bincount(rows, minlength=len(codes))
    again, unused = int(np.sum(drawn > 1)), int(np.sum(drawn == 0))
    if again:
        often = "twice" if drawn.max() == 2 else f"up to {drawn.max():,} times"
        clauses.append(f"{_many(again, 'image')} {_are(again)} drawn {often} to fill the batches")
    if unused:
        clauses.append(f"{_many(unused, 'image')} {_are(unused)} not used")
    return "; ".join(clauses)


def _visits(times: NDArray[np.int64]) -> str:
    low, high, mean = int(times.min()), int(times.max()), float(times.mean())
    if low == high:
        often = {1: "once", 2: "twice"}.get(low, f"{low:,} times")
        return f"each object is seen {often} an epoch"
    often = f"{mean:.1f}" if mean < 10 else f"{mean:,.0f}"
    return f"each object is seen about {often} times an epoch ({low:,} to {high:,})"


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
