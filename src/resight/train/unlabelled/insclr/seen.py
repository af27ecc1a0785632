"""What looking at single anchors shows: means, checks against labels, samples for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.mining.positives import Mined
from resight.train.unlabelled.insclr.record import GROUPS, Checked, Item, Means, Sample
from resight.train.unlabelled.quality import Bools, Rows, precision, recall

SAMPLES, SHOWN = 12, 12  # anchors of a page, images of each group of one
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Seen:
    """One tuple as training saw it.

    members (M,) rows, the anchor first; kept (M,) bool; similarities (M,): of the members to the
    anchor; mined: the candidates, None without mining.
    """

    members: Rows
    kept: Bools
    similarities: NDArray[np.float32]
    mined: Mined | None

    @property
    def anchor(self) -> int:
        """Its row."""
        return int(self.members[0])

    def group(self, name: str) -> Rows:
        """The rows of one of `GROUPS`, the nearest first; those that joined round by round."""
        rows, _, _ = self._of(name)
        return rows

    @property
    def positives(self) -> Rows:
        """Kept and mined."""
        return np.concatenate([self.group(name) for name in ("kept", "initial", "joined")])

    @property
    def reached(self) -> Rows:
        """All that were looked at."""
        return np.concatenate([self.group(name) for name in GROUPS])

    def sample(self) -> Sample:
        """The first images of each group, and the numbers of all."""
        counts, items = {}, {}
        for name in GROUPS:
            rows, similarities, rounds = self._of(name)
            counts[name] = len(rows)
            first = zip(rows[:SHOWN], similarities[:SHOWN], rounds[:SHOWN], strict=True)
            if name == "joined":
                first = _some_of_each_round(rows, similarities, rounds)
            items[name] = [Item(int(row), round(float(s), 4), int(r)) for row, s, r in first]
        return Sample(self.anchor, counts, items)

    def _of(self, name: str) -> tuple[Rows, NDArray[np.float32], NDArray[np.int8]]:
        """Rows, similarities, rounds."""
        if name in ("kept", "filtered"):
            fit = self.kept if name == "kept" else ~self.kept
            fit = fit & (np.arange(len(fit)) > 0)
            rows, similarities = self.members[fit], self.similarities[fit]
            joined = np.zeros(len(rows), np.int8)
        elif self.mined is None:
            return _NONE, np.zeros(0, np.float32), np.zeros(0, np.int8)
        else:
            mined = self.mined
            fit = {
                "initial": (mined.state == 1) & (mined.joined == 0),
                "joined": mined.joined > 0,
                "undecided": mined.state == 0,
                "hard": mined.state == -1,
            }[name]
            rows, similarities, joined = mined.rows[fit], mined.offline[fit], mined.joined[fit]
        order = np.lexsort((rows, -similarities, joined if name == "joined" else rows * 0))
        return rows[order], similarities[order], joined[order]


def _some_of_each_round(
    rows: Rows, similarities: NDArray[np.float32], rounds: NDArray[np.int8]
) -> zip[tuple[int, float, int]]:
    """At most `SHOWN`, as many of each round as there is room for; in order of the rounds."""
    _, start, counts = np.unique(rounds, return_index=True, return_counts=True)
    within = np.arange(len(rows)) - np.repeat(start, counts)
    chosen = np.sort(np.lexsort((rounds, within))[:SHOWN])
    return zip(rows[chosen], similarities[chosen], rounds[chosen], strict=True)


def means(seen: Sequence[Seen]) -> Means:
    """Over the tuples that were seen, at least one."""

    def mean(name: str) -> float:
        return float(np.mean([len(one.group(name)) for one in seen]))

    asked, kept = float(np.mean([len(one.members) - 1 for one in seen])), mean("kept")
    if any(one.mined is None for one in seen):
        return Means(asked, kept)
    joined = [one.mined.joined for one in seen if one.mined is not None]
    last = max((int(rounds.max(initial=0)) for rounds in joined), default=0)
    counts = np.array([np.bincount(r[r > 0], minlength=last + 1)[: last + 1] for r in joined])
    return Means(
        asked,
        kept,
        initial=mean("initial"),
        joined=mean("joined"),
        by_round=counts.mean(axis=0)[1:].tolist(),
        undecided=mean("undecided"),
        hard=mean("hard"),
    )


def checked(
    seen: Sequence[Seen], labels: Rows, pool: Bools, rows: Rows, top: Rows
) -> Checked | None:
    """Against labels (N,), -1 where unknown; None where no anchor is of a known object.

    pool (N,): rows that could be found; top (n, 10): the first neighbours of rows (n,).
    """
    anchors = np.array([one.anchor for one in seen], np.int64)
    if not (labels[anchors] >= 0).any():
        return None

    def share(*names: str) -> float | None:
        found = [np.concatenate([one.group(name) for name in names]) for one in seen]
        repeated = np.repeat(anchors, [len(some) for some in found])
        return precision(labels, repeated, np.concatenate([_NONE, *found]))

    return Checked(
        anchors=int((labels[anchors] >= 0).sum()),
        first={str(n): precision(labels, rows, top[:, :n]) for n in (1, 3, 10)},
        kept=share("kept"),
        initial=share("initial"),
        joined=share("joined"),
        mined=share("initial", "joined"),
        recall=recall(labels, pool, anchors, [one.positives for one in seen]),
        reachable=recall(labels, pool, anchors, [one.reached for one in seen]),
        hard_right=share("hard"),
        filtered_right=share("filtered"),
    )


def choose(seen: Sequence[Seen], labels: Rows | None = None, count: int = SAMPLES) -> list[int]:
    """Which of those seen to show: some with many positives, few, none, and with wrong ones.

    labels (N,), -1 where unknown, or None. Gives places in `seen`, by falling positives. As far
    as there are others, no anchor is shown that is a positive of one before it.
    """
    number = np.array([len(one.positives) for one in seen])
    order = np.argsort(-number, kind="stable")
    some = order[number[order] > 0]
    wrong = np.array([_wrong(one, labels) for one in seen])
    kinds = [
        some,
        [k for k in np.argsort(-wrong, kind="stable") if wrong[k]],
        some[::-1],
        order[number[order] == 0],
        some[len(some) // 2 :],
    ]
    chosen: list[int] = []
    for fresh in (True, False):  # at first only anchors that were not seen on the page yet
        lines = [iter(kind) for kind in kinds]
        while lines and len(chosen) < count:
            for line in list(lines):
                covered = {seen[k].anchor for k in chosen}
                covered |= {row for k in chosen for row in seen[k].positives.tolist()}
                for k in line:
                    if k not in chosen and not (fresh and seen[k].anchor in covered):
                        chosen.append(int(k))
                        break
                else:
                    lines.remove(line)
                if len(chosen) == count:
                    break
    return sorted(chosen, key=lambda k: (-number[k], k))


def _wrong(one: Seen, labels: Rows | None) -> int:
    """How many of its positives are known to be of another object."""
    if labels is None or labels[one.anchor] < 0:
        return 0
    theirs = labels[one.positives]
    return int(((theirs >= 0) & (theirs != labels[one.anchor])).sum())
