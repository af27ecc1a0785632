"""What a batch of tuples pulls together and pushes apart, in the batch and in the memory.

After InsCLR (AAAI 2022), with the faults of its released code mended: filtered neighbours are
never pulled together, an image is never its own negative, and two tuples that share a positive,
or of which one is unsure about the other, are no negatives of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from resight.mining.positives import Mined, Rows
from resight.mining.selection import Bools, Floats

_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class AnchorTuple:
    """members (M,) rows, the anchor first; kept (M,): who passed mini-batch selection (the others
    are filtered); mined: the candidates, None in a stage without mining."""

    members: Rows
    kept: Bools
    mined: Mined | None = None


@dataclass(frozen=True)
class Lists:
    """For each of B images some rows, rising: rows[start[i] : start[i + 1]].

    start (B + 1,) int64, rows (total,) int64.
    """

    start: Rows
    rows: Rows

    def of(self, image: int) -> Rows:
        """The rows of one image of the batch."""
        return self.rows[self.start[image] : self.start[image + 1]]

    def images(self) -> Rows:
        """For each entry of `rows`, whose it is, (total,) int64."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))


@dataclass(frozen=True)
class Relations:
    """The B images of a batch, tuple after tuple, among themselves and with the memory.

    batch (B, B) int8, symmetric: 1 pulled together, -1 pushed apart, 0 not compared. kept (B,).
    Rows of the memory, of which none is in two lists of an image: positives; negatives (hard
    ones, never the image's own row); ignored: never to be drawn as other negatives. The rows of
    the batch have their say in `batch`, so a draw of other negatives leaves them all out.
    """

    batch: NDArray[np.int8]
    kept: Bools
    positives: Lists
    negatives: Lists
    ignored: Lists


def relate(tuples: Sequence[AnchorTuple], similarity: Floats, threshold: float) -> Relations:
    """Who is positive, negative or neither, for every image of a batch.

    similarity: (B, B) float32 of the un-augmented images. Two filtered members of one tuple may
    be of one object: from `threshold` on they are not compared.

    In the batch: the same row twice is pulled together. So are two kept images of which one is
    among the positives (kept and mined) of the other's tuple. Not compared are otherwise images
    of two tuples that share a positive, or of which one has a member of the other among its
    undecided; a filtered image with the positives of another tuple that mined it, and with the
    candidates of its own. All the rest is pushed apart.
    In the memory, a kept image: positives are the mined ones of its tuple; negatives the mined
    ones and the filtered members; ignored the undecided, the kept members, and the positives of
    the tuples it is not compared with. A filtered image ignores its tuple, with all candidates.
    Raises ValueError when there is no tuple, or similarity is not of these images.
    """
    if not tuples:
        raise ValueError("a batch has at least one tuple")
    known = [_Known.of(each) for each in tuples]
    rows = np.concatenate([each.members for each in known])
    kept = np.concatenate([each.kept for each in tuples])
    which = np.repeat(np.arange(len(known)), [len(each.members) for each in known])
    if similarity.shape != (len(rows), len(rows)) or kept.shape != rows.shape:
        raise ValueError(f"{len(rows)} images in the tuples, similarity is {similarity.shape}")

    # (T, B): is this image among the tuple's positives, undecided, candidates?
    positive = np.stack([_within(rows, each.positives) for each in known])
    undecided = np.stack([_within(rows, each.undecided) for each in known])
    candidate = np.stack([_within(rows, each.candidates) for each in known])
    member = which == np.arange(len(known))[:, None]
    unsure = undecided.astype(np.float32) @ member.T.astype(np.float32) > 0
    close = _overlap([each.positives for each in known]) | unsure | unsure.T

    link = positive[which] & kept & kept[:, None]
    open_ = positive[which] | (candidate[which] & ~kept[:, None])
    alike = ~(similarity < np.float32(threshold)) & ~kept & ~kept[:, None]
    apart = which != which[:, None]
    abstain = np.where(apart, close[np.ix_(which, which)] | open_ | open_.T, alike | alike.T)
    batch = np.where(abstain, 0, -1).astype(np.int8)
    batch[link | link.T | (rows == rows[:, None])] = 1
    np.fill_diagonal(batch, 0)
    return Relations(batch, kept, *_memory(known, close, which, kept))


def as_labels(
    relations: Relations, rows: Rows, whose: Literal["all", "kept"] = "all"
) -> tuple[Rows, Rows, Rows]:
    """The relations for losses that want labels, as near as labels can say them.

    rows: (B,) of the batch's images. Returns labels (B,) int64 from 0, ref_rows (R,) int64 and
    ref_labels (R,) int64. Images linked by a 1, also over others, share a label; so a filtered
    image has one of its own. References are rows of the memory for which the labels say what
    every image's lists say: positives with the label of their tuple, then hard negatives with -1,
    -2, ... A row that pulls two ways is left out, as is one that an image ignores, so all
    candidates of a tuple with a filtered member; with whose="kept" only what kept images ignore
    is left out, and the positives of a tuple are then negatives of its filtered members.
    Labels can't say "not compared": what is 0 in the batch counts as a negative.
    """
    labels = _components(relations.batch == 1)
    pull, low, high = _spread(relations.positives, labels)
    push, _, _ = _spread(relations.negatives, labels)
    heard = relations.kept if whose == "kept" else np.ones(len(rows), dtype=bool)
    ignored = relations.ignored.rows[heard[relations.ignored.images()]]
    left_out = _distinct(ignored, rows.astype(np.int64))

    # A row that one image wants near and another of its label far.
    negatives = relations.negatives
    place = np.minimum(np.searchsorted(pull, negatives.rows), max(len(pull) - 1, 0))
    if len(pull):
        torn = (pull[place] == negatives.rows) & (low[place] == labels[negatives.images()])
        left_out = _distinct(left_out, negatives.rows[torn])
    near = (low == high) & ~_within(pull, left_out)
    far = push[~_within(push, pull) & ~_within(push, left_out)]
    ref_rows = np.concatenate([pull[near], far])
    ref_labels = np.concatenate([low[near], -1 - np.arange(len(far))])
    return labels, ref_rows, ref_labels


@dataclass(frozen=True)
class _Known:
    """What one tuple knows of the images: rows, all but the members rising and unique."""

    members: Rows
    stay: Rows
    mined: Rows
    positives: Rows  # stay and mined
    undecided: Rows
    negatives: Rows
    candidates: Rows

    @staticmethod
    def of(tuple_: AnchorTuple) -> _Known:
        members = tuple_.members.astype(np.int64)
        stay = _distinct(members[tuple_.kept])
        filtered = _distinct(members[~_within(members, stay)])
        if tuple_.mined is None:
            return _Known(members, stay, _NONE, stay, _NONE, filtered, _NONE)
        rows, state = tuple_.mined.rows, tuple_.mined.state
        mined = rows[state == 1]
        negatives = _distinct(rows[state == -1], filtered)
        positives = _distinct(stay, mined)
        return _Known(members, stay, mined, positives, rows[state == 0], negatives, rows)


def _memory(
    known: list[_Known], close: Bools, which: Rows, kept: Bools
) -> tuple[Lists, Lists, Lists]:
    """Positives, negatives and ignored of each image; those of a tuple's kept ones are equal."""
    ignored = {}
    for t, each in enumerate(known):
        near = [known[u].positives for u in np.flatnonzero(close[t]) if u != t]
        others = _distinct(_NONE, *near)
        said = _within(others, each.mined) | _within(others, each.negatives)
        ignored[t, True] = _distinct(each.undecided, each.stay, others[~said])
        ignored[t, False] = _distinct(each.members, each.candidates, others)
    pairs = list(zip(which.tolist(), kept.tolist(), strict=True))
    return (
        _lists([known[t].mined if stays else _NONE for t, stays in pairs]),
        _lists([known[t].negatives if stays else _NONE for t, stays in pairs]),
        _lists([ignored[pair] for pair in pairs]),
    )


def _lists(parts: list[Rows]) -> Lists:
    start = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return Lists(start, np.concatenate(parts))


def _distinct(*parts: Rows) -> Rows:
    """The rows of all parts, rising, each once. Several times faster here than np.unique."""
    rows = np.sort(np.concatenate(parts))
    return rows[np.diff(rows, prepend=-1) > 0]


def _within(rows: Rows, among: Rows) -> Bools:
    """Is each of the rows in `among`, which is sorted?"""
    if not len(among):
        return np.zeros(rows.shape, dtype=bool)
    place = np.minimum(np.searchsorted(among, rows), len(among) - 1)
    found: Bools = among[place] == rows
    return found


def _overlap(sets: list[Rows]) -> Bools:
    """(T, T): which of T sets of unique rows have a row in common."""
    rows, place, times = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    owner = np.repeat(np.arange(len(sets)), [len(each) for each in sets])
    inside = np.zeros((len(sets), len(rows)), dtype=np.float32)
    inside[owner, place] = 1
    shared = inside[:, times > 1]
    common: Bools = shared @ shared.T > 0
    return common


def _components(link: Bools) -> Rows:
    """A label for each of B nodes, the same for nodes linked over any others, from 0."""
    link = link | np.eye(len(link), dtype=bool)
    labels = np.arange(len(link))
    while True:
        lowest = np.where(link, labels, len(link)).min(axis=1)
        if (lowest == labels).all():
            break
        labels = lowest
    _, dense = np.unique(labels, return_inverse=True)
    return dense.astype(np.int64)


def _spread(lists: Lists, labels: Rows) -> tuple[Rows, Rows, Rows]:
    """Each row of the lists, rising, with the lowest and highest label of those who list it."""
    # One sort of whole numbers orders by row, then by label.
    many = int(labels.max(initial=0)) + 1
    rows, whose = np.divmod(np.sort(lists.rows * many + labels[lists.images()]), many)
    edge = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
    return rows[edge[:-1]], whose[edge[:-1]], whose[edge[1:] - 1]
