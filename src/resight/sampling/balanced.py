"""Identity-balanced batches: P ids of up to M images each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resight.data.loading import Draw
from resight.sampling.groups import Integers, check, cut


def balanced_batches(
    labels: Sequence[int], *, ids: int, images: int, seed: int, epoch: int
) -> list[list[Draw]]:
    """One epoch of batches: lists of (row, augmentation seed), an id's images side by side.

    Every image stands in the epoch. Each id's images are shuffled and cut into even groups of at
    most `images` (`groups.cut`); every batch takes one group each of `ids` different ids, or of all
    ids if there are fewer. An id with fewer images brings what it has. With G groups, n of them of
    the id with most images, an epoch has max(ceil(G / ids), n) batches, which is the least
    possible; places left over are filled with groups drawn again, each equally often as far as no
    id comes twice in a batch. Which ids meet is left to chance, whatever their sizes.

    A pure function of its arguments, so that its position (epoch, batch) is all of its state; what
    numbers stand for the ids does not matter. Fewer than two ids give no batch.
    """
    check(ids, images)
    rng = np.random.default_rng([seed, epoch, 0])
    groups = cut(labels, images, rng)
    known = len(groups.counts)
    if known < 2:
        return []
    ids = min(ids, known)
    number = max(-(-len(groups.size) // ids), int(groups.counts.max()))
    times = _times(groups.counts, number, number * ids, rng)
    # All groups in a line, id after id, in rows as long as there are batches. A batch takes one
    # group of each row, by chance: an id, with at most `number` groups, never comes to it twice
    # if the id that runs over from one row to the next is kept from the batches it is in.
    order = rng.permutation(known)
    owner = np.repeat(order, times[order])
    within = np.arange(len(owner)) - np.repeat(np.cumsum(times[order]) - times[order], times[order])
    line = groups.start[owner] + within % groups.counts[owner]
    batches = np.empty((number, ids), dtype=np.int64)
    before: Integers = np.empty(0, dtype=np.int64)  # the batches of the last row's last id
    for row in range(ids):
        part = slice(row * number, (row + 1) * number)
        places = rng.permutation(number)
        if row and owner[part.start] == owner[part.start - 1]:
            over = np.count_nonzero(owner[part] == owner[part.start])
            mine = places[~np.isin(places, before)][:over]
            places = np.r_[mine, places[~np.isin(places, mine)]]
        batches[places, row] = line[part]
        before = places[owner[part] == owner[part.stop - 1]]
    return groups.draws(batches, seed, epoch)


def _times(counts: Integers, most: int, total: int, rng: np.random.Generator) -> Integers:
    """How often each id stands in an epoch of `total` groups, at most `most` times each.

    Rounds of every id's `counts` groups; of the last round, what there is room for, by chance.
    """
    times = counts.copy()
    while missing := total - int(times.sum()):
        more = np.minimum(counts, most - times)
        if more.sum() > missing:
            more = rng.multivariate_hypergeometric(more, missing)
        times += more
    return times


def share(batch: list[Draw], replica: int, replicas: int) -> list[Draw]:
    """The part of a batch that process `replica` of `replicas` takes.

    Parts follow each other and together are the batch; their sizes differ by at most one.
    """
    size = len(batch)
    return batch[size * replica // replicas : size * (replica + 1) // replicas]
