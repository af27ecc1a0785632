"""The file that a page of questions saves, and what it says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from resight.errors import UserError
from resight.evaluate.asking.estimate import Estimate, weighted_difference
from resight.evaluate.records.compare import points, span
from resight.files import read_json
from resight.settings import build

WHAT = "what a page of 'resight ask' saves"


class Query(BaseModel):
    """A photo that was drawn, with which probability, and the numbers of its two pairs."""

    photo: str
    probability: float = Field(gt=0, le=1)
    a: int = Field(ge=0)
    b: int = Field(ge=0)


class Design(BaseModel):
    """How the photos were drawn: `differ` of `photos` have another nearest under A than under B."""

    id: str
    a: str
    b: str
    photos: int = Field(ge=1)
    differ: int = Field(ge=1)
    seed: int
    queries: list[Query] = Field(min_length=1)
    pairs: list[tuple[str, str]] = Field(min_length=1)


class Answers(BaseModel):
    """The whole file: the design, and by a pair's number what was said."""

    format: Literal[1]
    kind: Literal["answers"]
    saved: str = ""
    design: Design
    answers: dict[int, Literal["same", "different", "unsure"]]


@dataclass(frozen=True)
class Verdict:
    """Which of `a` and `b` finds the same thing more often: the difference in precision at 1.

    over_all: A minus B over all `photos`; over_differing: over the `differ` photos of which their
    nearest is not the same photo. queries, pairs: how many were asked; of the queries `answered`
    count, those with both pairs answered "same" or "different". unsure, open: pairs of which the
    person can't say, and that were not answered. only_a, only_b: answered photos of which only
    A's, only B's nearest is the same thing.
    """

    a: str
    b: str
    over_all: Estimate
    over_differing: Estimate
    photos: int
    differ: int
    queries: int
    answered: int
    pairs: int
    unsure: int
    open: int
    only_a: int
    only_b: int

    @property
    def told(self) -> bool:
        """Whether the interval leaves out that there is no difference."""
        return self.over_all.low > 0 or self.over_all.high < 0

    def lines(self) -> list[str]:
        """The verdict in words, the better one first; then what it stands on."""
        turned = self.told and self.over_all.high < 0
        one, other = (self.b, self.a) if turned else (self.a, self.b)
        asked = self.pairs - self.unsure - self.open
        where = (
            f"from {asked} answered {'pair' if asked == 1 else 'pairs'} of {self.differ:,} "
            f"{'photo' if self.differ == 1 else 'photos'} on which they differ"
        )
        size = _in_points(self.over_all, turned)
        if self.told:
            head = f"{one} finds the same thing more often than {other}: {size}, {where}"
        else:
            head = f"no difference can be told: {one} against {other} {size}, {where}"
        lines = [
            head,
            f"that is precision at 1 over all {self.photos:,} photos; over the {self.differ:,} on "
            f"which they differ {_in_points(self.over_differing, turned)}",
            f"of {self.answered} photos with both pairs answered, {self.only_a} have the same "
            f"thing only by {self.a}, {self.only_b} only by {self.b}",
        ]
        if self.unsure or self.open:
            gone = self.queries - self.answered
            said = [f"{self.unsure} can't say"] * bool(self.unsure)
            said += [f"{self.open} not answered"] * bool(self.open)
            lines.append(
                f"of {self.pairs} pairs {', '.join(said)}: {gone} of {self.queries} photos left "
                "out, the others weigh more in their place"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; differences as fractions."""
        return asdict(self) | {"told": self.told}


def compare_answers(path: str | Path) -> Verdict:
    """What the answers saved by a page of `resight ask` say, see `weighted_difference`.

    A photo of which one pair is not answered, or the person can't say, counts as missing.

    Raises UserError: no such file, not one of these, or no photo with both its pairs answered.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; {WHAT} is a file")
    content = read_json(path, WHAT)
    if not isinstance(content, dict) or content.get("kind") != "answers":
        raise UserError(f"{path}: not {WHAT}")
    found = build(Answers, content, str(path))
    design = found.design
    count = len(design.pairs)
    numbers = {n for one in design.queries for n in (one.a, one.b)} | set(found.answers)
    if not all(0 <= n < count for n in numbers):
        raise UserError(f"{path}: names a pair that is not among its {count}; save it anew")
    if not len(design.queries) <= design.differ <= design.photos:
        raise UserError(f"{path}: more photos asked about than differ; save it anew")
    same = {n: word == "same" for n, word in found.answers.items() if word != "unsure"}
    known = [one for one in design.queries if one.a in same and one.b in same]
    if not known:
        raise UserError(f"{path}: no photo has both its pairs answered; answer more, save again")
    d = np.array([float(same[one.a]) - float(same[one.b]) for one in known])
    p = np.array([one.probability for one in known])
    part = weighted_difference(d, p, len(design.queries), design.differ)
    share = design.differ / design.photos
    return Verdict(
        a=design.a,
        b=design.b,
        over_all=Estimate(part.value * share, part.low * share, part.high * share),
        over_differing=part,
        photos=design.photos,
        differ=design.differ,
        queries=len(design.queries),
        answered=len(known),
        pairs=count,
        unsure=sum(word == "unsure" for word in found.answers.values()),
        open=count - len(found.answers),
        only_a=int((d > 0).sum()),
        only_b=int((d < 0).sum()),
    )


def _in_points(one: Estimate, turned: bool) -> str:
    """ "+12.0 points [4.0, 20.0] (95 %)", with two digits where one would hide the width."""
    value, low, high = (-one.value, -one.high, -one.low) if turned else (
        one.value, one.low, one.high
    )  # fmt: skip
    digits = 1 if high - low >= 0.005 or high == low else 2
    return f"{points(value, digits)} points {span((low, high), digits)} (95 %)"
