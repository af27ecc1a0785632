"""Hierarchical batches: ids of a few super-classes each, so that negatives are hard.

As FastAP draws them on Stanford Online Products ("Deep Metric Learning to Rank", CVPR 2019,
section 4.3), and Smooth-AP after it: two super-classes a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np

from resight.data.loading import Draw
from resight.sampling.groups import Integers, check, cut


def hierarchical_batches(
    labels: Sequence[int],
    supers: Sequence[int] | Sequence[str],
    *,
    ids: int,
    images: int,
    seed: int,
    epoch: int,
    per_batch: int = 2,
) -> list[list[Draw]]:
    """One epoch of batches of `ids` ids from `per_batch` super-classes in equal parts.

    `supers` names the super-class of each image. Super-classes are drawn for each batch in
    proportion to the groups of images they have left. One with too few ids brings all, and the
    others fill up; if all of them have too few, more super-classes are drawn, so that each batch
    has `ids` ids (or all there are). Groups are those of `balanced_batches`, and every image stands
    in the epoch: an id with more groups left goes first, and one whose groups are all drawn comes
    again only where its super-class has no other left.

    A pure function of its arguments. Fewer than two ids give no batch. Raises ValueError for an id
    in two super-classes.
    """
    check(ids, images)
    if not 1 <= per_batch <= ids:
        raise ValueError(f"per_batch must be from 1 to ids ({ids}), got {per_batch}")
    if len(supers) != len(labels):
        raise ValueError(f"{len(labels)} labels, but {len(supers)} super-classes")
    rng = np.random.default_rng([seed, epoch, 0])
    groups = cut(labels, images, rng)
    known = len(groups.counts)
    if known < 2:
        return []
    ids = min(ids, known)
    home = _numbered(labels, supers)[groups.rows[groups.first[groups.start]]]
    sizes = np.bincount(home)
    whole = np.bincount(np.repeat(home, groups.counts))
    left = whole.copy()
    counts, start = groups.counts.tolist(), groups.start.tolist()
    # Of each super-class, its ids by the number of groups they have left (below 0: drawn again),
    # equals by chance.
    waiting: list[list[tuple[int, float, int]]] = [[] for _ in sizes]
    for k, chance in enumerate(rng.random(known).tolist()):
        waiting[home[k]].append((-counts[k], chance, k))
    for heap in waiting:
        heapify(heap)
    batches: list[list[int]] = []
    while left.any():
        order = _order(left, whole, rng)
        enough = int(np.searchsorted(np.cumsum(sizes[order]), ids)) + 1
        chosen = order[: max(per_batch, enough)]
        batch: list[int] = []
        for place, part in zip(chosen, _parts(sizes[chosen], ids), strict=True):
            heap = waiting[place]
            taken = [heappop(heap) for _ in range(part)]
            for behind, _, k in taken:
                batch.append(start[k] + (counts[k] + behind) % counts[k])
                left[place] -= behind < 0
                heappush(heap, (behind + 1, rng.random(), k))
        batches.append(batch)
    # The last ones are those with most repeats.
    return groups.draws(rng.permutation(np.array(batches)), seed, epoch)


def _numbered(labels: Sequence[int], supers: Sequence[int] | Sequence[str]) -> Integers:
    """Super-classes as 0.. in order of appearance; ValueError for an id in two of them."""
    _, seen, codes = np.unique(np.asarray(supers), return_index=True, return_inverse=True)
    home: Integers = np.argsort(np.argsort(seen))[codes]
    _, first, owner = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    apart = np.flatnonzero(home != home[first[owner]])
    if len(apart):
        row = int(apart[0])
        other = int(first[owner[row]])
        raise ValueError(
            f"id {labels[row]} is in two super-classes, {supers[other]} and {supers[row]}"
        )
    return home


def _order(left: Integers, whole: Integers, rng: np.random.Generator) -> Integers:
    """Super-classes drawn one after the other in proportion to `left`, then to `whole`."""
    # The least of exponential variables of rates w is the k-th with probability w_k / sum(w).
    waits = rng.exponential(size=len(left)) / np.where(left > 0, left, whole)
    return np.lexsort((waits, left == 0))


def _parts(sizes: Integers, ids: int) -> list[int]:
    """Equal parts of `ids`, none larger than its size; what is missing goes to the others."""
    parts = [0] * len(sizes)
    for done, k in enumerate(np.argsort(sizes, kind="stable")):
        parts[k] = min(int(sizes[k]), (ids - sum(parts)) // (len(sizes) - done))
    return parts
