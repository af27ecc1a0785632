"""Identity-balanced batches: P ids of up to M images each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from resight.data.loading import Draw


def balanced_batches(
    labels: Sequence[int],
    *,
    ids: int,
    images: int,
    seed: int,
    epoch: int,
    replicas: int = 1,
    replica: int = 0,
) -> list[list[Draw]]:
    """One epoch of batches for one of `replicas` processes: lists of (row, augmentation seed).

    Every image stands in the epoch at most once: each id's images are shuffled and cut into
    groups of at most `images`; a batch takes groups of `ids` different ids. An id with fewer
    images brings what it has: nothing is resampled or padded. A last group of one image (no
    pair) is left out unless it is the id's only one. What is left of the epoch when fewer than
    half of `ids` ids have images left is dropped.

    A pure function of its arguments, so that its position (epoch, batch) is all of its state.
    All processes get equally many batches, of different images.
    """
    rng = np.random.default_rng([seed, epoch, 0])
    codes = np.asarray(labels)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) != 0])
    waiting: list[list[NDArray[np.int64]]] = []
    for rows in np.split(order, starts[1:]):
        shuffled = rng.permutation(rows)
        groups = [shuffled[i : i + images] for i in range(0, len(rows), images)]
        if len(groups) > 1 and len(groups[-1]) == 1:
            groups.pop()
        waiting.append(groups)
    batches: list[list[int]] = []
    while True:
        left = [k for k, groups in enumerate(waiting) if groups]
        if len(left) < 2 or (batches and len(left) < ids / 2):
            break
        # Ids with the most groups left go first, equals by chance: so that an id with many
        # images is spread over the epoch, and does not stay behind alone.
        lengths = np.array([len(waiting[k]) for k in left])
        chosen = np.lexsort((rng.random(len(left)), -lengths))[:ids]
        batches.append([int(row) for position in chosen for row in waiting[left[position]].pop()])
    batches = [batches[k] for k in rng.permutation(len(batches))]
    usable = len(batches) - len(batches) % replicas
    seeds = np.random.default_rng([seed, epoch, 1]).integers(0, 2**63, sum(map(len, batches)))
    ends = np.cumsum([len(batch) for batch in batches])
    draws = [
        list(zip(batch, seeds[end - len(batch) : end].tolist(), strict=True))
        for batch, end in zip(batches, ends, strict=True)
    ]
    return draws[replica:usable:replicas]
