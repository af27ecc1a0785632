"""Near-duplicates among unlabelled images: the same picture saved again, found by the pool.

A copy teaches nothing: as a positive it is too easy, and ten copies crowd a candidate set. The
pool proposes pairs, the thumbnails' closer look decides (data/duplicates.py), so that an embedder
which finds two photos of one building alike does not make copies of them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from resight.data.decode import BadImage
from resight.data.duplicates import alike_in_detail
from resight.data.imageset import ImageSet
from resight.data.inspect import default_workers, thumbnail
from resight.graph.graph import pair_codes
from resight.graph.pool import Pool

_BLANK = 8  # grey levels between the darkest and the brightest pixel of a thumbnail
_NEAREST = 32  # neighbours of a row that are looked at; a group's copies chain up
_PAIRS = 500_000  # pairs looked at, the most similar first: 3 KB of thumbnail for each image
_BLOCK, _TASK = 8192, 64  # rows, and images a task
Pairs = NDArray[np.int64]


def twins(
    pool: Pool,
    images: ImageSet,
    similarity: float = 0.97,
    *,
    most: int = _PAIRS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pairs:
    """Pairs of rows (P, 2) int64, a < b, in rising order, that show the same picture.

    Looked at are the pairs among the 32 nearest of each row with at least this similarity, `most`
    of them at most, the most similar first; each image in them is decoded once, to 32 x 32
    pixels. Images that can't be read, and blank ones, have no twins. `progress(done, total)`
    counts images.
    """
    pairs = _proposed(pool, similarity, most)
    rows = np.unique(pairs)
    thumbs = _thumbnails(images, rows, progress)
    # Blank ones all look alike; those that can't be read are black.
    clear = (thumbs.max(axis=(1, 2)) - thumbs.min(axis=(1, 2))).max(axis=1) >= _BLANK
    at = np.searchsorted(rows, pairs)
    alike = [bool(clear[a] and clear[b]) and alike_in_detail(thumbs[a], thumbs[b]) for a, b in at]
    found: Pairs = pairs[np.array(alike, bool)]
    return found


def representatives(pairs: Pairs, n: int) -> NDArray[np.int32]:
    """For each of n rows the first row of its group (n,) int32; its own where it has no twin.

    pairs (P, 2) of rows, in any order: a twin of a twin is in the same group.
    """
    first = np.arange(n, dtype=np.int32)
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    while True:
        low = first[pairs].min(axis=1)
        if (first[pairs] == low[:, None]).all():
            return first
        for side in (0, 1):
            np.minimum.at(first, first[pairs[:, side]], low)  # of the whole group at once
            np.minimum.at(first, pairs[:, side], low)
        while (first[first] != first).any():  # to the first of the first
            first = first[first]


def tell_twins(pairs: Pairs, images: ImageSet, examples: int = 3) -> str:
    """One line: how many images are near-duplicates of another, in how many groups, and which."""
    first = representatives(pairs, len(images))
    copies = np.flatnonzero(first != np.arange(len(images)))
    if not len(copies):
        return "no near-duplicates among the images"
    groups = np.unique(first[copies])
    names = images.table["path"]
    shown = []
    for group in groups[:examples]:
        members = [int(group), *copies[first[copies] == group].tolist()]
        shown.append(" = ".join(names[row] for row in members[:4]))
        shown[-1] += " = ..." if len(members) > 4 else ""
    more = ", ..." if len(groups) > examples else ""
    one, some = len(copies) == 1, len(groups) == 1
    return (
        f"{len(copies):,} {'image is a near-duplicate' if one else 'images are near-duplicates'} "
        f"of another ({len(groups):,} {'group' if some else 'groups'}): {', '.join(shown)}{more}"
    )


def _proposed(pool: Pool, similarity: float, most: int) -> Pairs:
    """The pairs to look at, (P, 2), a < b, each once, in rising order."""
    n, found, cosines = len(pool), [np.zeros(0, np.int64)], [np.zeros(0, np.float16)]
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))[:, None]
        others = np.asarray(pool.neighbours[start : start + _BLOCK, :_NEAREST], np.int64)
        cosine = np.asarray(pool.similarities[start : start + _BLOCK, :_NEAREST])
        # float16 in the pool: what it rounds up to the limit counts.
        close = (others >= 0) & (cosine >= np.float16(similarity))
        found.append(pair_codes(rows, others, n)[close])
        cosines.append(cosine[close])
    keys, first = np.unique(np.concatenate(found), return_index=True)
    if len(keys) > most:
        best = np.argsort(-np.concatenate(cosines)[first].astype(np.float32), kind="stable")
        keys = np.sort(keys[best[:most]])
    return np.stack([keys // n, keys % n], axis=1)


def _thumbnails(
    images: ImageSet, rows: NDArray[np.int64], progress: Callable[[int, int], None]
) -> NDArray[np.uint8]:
    """(R, 32, 32, 3) thumbnails of these rows; zero where the image can't be read."""
    paths, boxes = images.full_paths(), images.table["box"]
    thumbs = np.zeros((len(rows), 32, 32, 3), np.uint8)

    def read(start: int) -> None:
        for at in range(start, min(start + _TASK, len(rows))):
            row = int(rows[at])
            box = boxes[row]
            with suppress(BadImage):  # the embedder has told
                thumbs[at] = thumbnail(paths[row], None if box is None else list(box))

    with ThreadPoolExecutor(default_workers()) as threads:
        for number, _ in enumerate(threads.map(read, range(0, len(rows), _TASK))):
            progress(min((number + 1) * _TASK, len(rows)), len(rows))
    return thumbs
