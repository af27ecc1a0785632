"""What a person should look at: images that are far from their object, and pairs nearly equal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.search.engines.contract import Sum, Vectors
from resight.search.index import Index

Ints = NDArray[np.int64]
Block = tuple[Ints, Ints, Vectors]  # ids (n,), object ids (n,; 0: unknown), (n, D)
FAR = 4.0  # robust standard deviations
_FEWEST_OF_OBJECT, _FEWEST = 3, 10
_NEIGHBOURS = 16  # of an image that are looked at
_BLOCK = 1024


@dataclass(frozen=True)
class Far:
    """Images far from the centroid of their object's others, the farthest first.

    `ids`, `objects` (object ids) and `similarities` (n,); `usual` is the median of all images.
    """

    ids: Ints
    objects: Ints
    similarities: NDArray[np.float64]
    usual: float


def outliers(sums: Iterable[Sum], blocks: Iterable[Block]) -> Far:
    """Images whose similarity to the centroid of their object's others is unlike the rest.

    Unlike: more than `FAR` robust standard deviations (1.4826 times the median distance from the
    median) below the median of all images. Objects of fewer than three images do not count, and
    with fewer than ten images in all nothing is usual. `sums` by object, as an engine gives them.
    """
    totals: dict[int, NDArray[np.float64]] = {}
    counts: dict[int, int] = {}
    for one in sums:
        total = totals.get(one.object_id)
        totals[one.object_id] = one.total if total is None else total + one.total
        counts[one.object_id] = counts.get(one.object_id, 0) + one.count
    large = np.array(
        sorted(key for key, count in counts.items() if count >= _FEWEST_OF_OBJECT), np.int64
    )
    ids, objects, similar = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for keys, groups, vectors in blocks:
        kept = np.isin(groups, large)
        if not kept.any():
            continue
        own = vectors[kept].astype(np.float64)
        others = np.stack([totals[int(group)] for group in groups[kept]]) - own
        ids.append(keys[kept])
        objects.append(groups[kept])
        similar.append(np.einsum("nd,nd->n", _unit64(others), _unit64(own)))
    values = np.concatenate(similar)
    if len(values) < _FEWEST:
        none = np.zeros(0, np.int64)
        return Far(none, none, np.zeros(0), float("nan"))
    middle = float(np.median(values))
    width = 1.4826 * float(np.median(np.abs(values - middle)))
    far = np.flatnonzero(values < middle - FAR * max(width, 1e-6))
    far = far[np.argsort(values[far], kind="stable")]
    return Far(np.concatenate(ids)[far], np.concatenate(objects)[far], values[far], middle)


def _unit64(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    units: NDArray[np.float64] = rows / np.maximum(length, 1e-12)
    return units


@dataclass(frozen=True)
class Pairs:
    """Pairs of images (n, 2), ids rising in each, and their similarities; the nearest first."""

    ids: Ints
    similarities: NDArray[np.float64]


def near_pairs(index: Index, same: Ints, least: float, most: int) -> Pairs:
    """The `most` nearest pairs that two objects share, or that are the same file.

    Of an index's vectors, those of two known objects (its groups), or with an equal number above
    0 in `same` (N,), whose similarity is at least `least`. Looked at are the 16 nearest of each
    vector, so that of a large crowd of copies not every pair is named. With a coarse index its
    recall holds.
    """
    groups = index.groups
    rows = index.rows
    found: list[tuple[Ints, Ints, NDArray[np.float64]]] = []
    for start in range(0, len(rows), _BLOCK):
        asked = np.ascontiguousarray(rows[start : start + _BLOCK])
        _, at = index.search(asked, min(_NEIGHBOURS + 1, len(rows)))
        first = np.repeat(np.arange(start, start + len(asked)), at.shape[1])
        second = at.reshape(-1)
        good = (second >= 0) & (second != first)
        first, second = first[good], second[good]
        strange = (groups[first] > 0) & (groups[second] > 0) & (groups[first] != groups[second])
        strange |= (same[first] > 0) & (same[first] == same[second])
        first, second = first[strange], second[strange]
        exact = np.einsum("nd,nd->n", rows[first].astype(np.float64), rows[second])
        near = exact >= least
        low, high = np.minimum(first, second)[near], np.maximum(first, second)[near]
        found.append((low, high, exact[near]))
    if not found:
        return Pairs(np.zeros((0, 2), np.int64), np.zeros(0))
    low, high, exact = (np.concatenate(part) for part in zip(*found, strict=True))
    both, where = np.unique(np.stack([low, high], 1), axis=0, return_index=True)
    order = np.argsort(-exact[where], kind="stable")[:most]
    return Pairs(index.keys[both[order]], np.minimum(exact[where][order], 1.0))
