"""What is kept of a stage as its evidence: plain values, one JSON file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from resight.errors import UserError
from resight.files import read_json, write_json

RECORD = "evidence.json"
GROUPS = ("kept", "filtered", "initial", "joined", "undecided", "hard")


@dataclass(frozen=True)
class Item:
    """An image of a sample: its row, its similarity, the round in which it joined.

    A neighbour's similarity is that to the anchor now; a candidate's is its best one in the pool
    to a kept neighbour or to the anchor.
    """

    row: int
    similarity: float
    round: int = 0


@dataclass(frozen=True)
class Sample:
    """An anchor, the first images of each of `GROUPS`, and how many there are in all."""

    anchor: int
    counts: dict[str, int]
    items: dict[str, list[Item]]


@dataclass(frozen=True)
class Means:
    """Means per tuple of the anchors that were looked at; None without neighbours, or mining.

    `asked` neighbours, of which `kept` stay; candidates: positives from the start (`initial`),
    those that `joined`, of these in each round (`by_round`), `undecided`, `hard` negatives.
    """

    asked: float
    kept: float
    initial: float | None = None
    joined: float | None = None
    by_round: list[float] = field(default_factory=list)
    undecided: float | None = None
    hard: float | None = None

    @property
    def kept_share(self) -> float | None:
        """Of the neighbours that were asked."""
        return self.kept / self.asked if self.asked else None

    @property
    def mined(self) -> float | None:
        """Positives besides the kept neighbours."""
        return None if self.initial is None or self.joined is None else self.initial + self.joined


@dataclass(frozen=True)
class Similarities:
    """Histograms on `quality.BINS`, all by the features that the pool was made of."""

    random: list[int]
    nearest: list[int]
    mined: list[int]
    random_mean: float | None
    nearest_median: float | None
    random_above_nearest: float | None  # share of random pairs


@dataclass(frozen=True)
class Checked:
    """Against the labels: shares of known pairs, None where there is none.

    `first` neighbours of the pool: precision of the first 1, 3, 10. `recall`: of the images of an
    anchor's object those that are kept or mined; `reachable`: those that are looked at at all.
    `hard_right`, `filtered_right`: images of the anchor's object among its negatives.
    """

    anchors: int  # of a known object
    first: dict[str, float | None]
    kept: float | None
    initial: float | None
    joined: float | None
    mined: float | None
    recall: float | None
    reachable: float | None
    hard_right: float | None
    filtered_right: float | None


@dataclass(frozen=True)
class Evidence:
    """What one stage learned from.

    `images` of the run, of which `unusable` and `copies` are left out and `rows` can be drawn.
    `anchors` were looked at, `by` the vectors in "memory" at the end of the stage or by those that
    the "pool" was made of. `pool`: k, method, recall of the search.
    `mutual` and `as_before`: of the 10 nearest neighbours, see `quality`. `thresholds` in force,
    by the names of the settings. `nothing`: why there was nothing to learn from.
    """

    stage: int
    images: int
    rows: int
    unusable: int
    copies: int
    anchors: int
    by: str
    pool: dict[str, Any]
    means: Means
    mutual: float | None
    as_before: float | None
    similarities: Similarities
    checked: Checked | None
    thresholds: dict[str, str]
    warnings: list[str]
    nothing: str | None
    samples: list[Sample]
    seconds: float

    def save(self, folder: Path) -> Path:
        """Write folder/evidence.json; its path."""
        write_json(folder / RECORD, asdict(self))
        return folder / RECORD

    @classmethod
    def load(cls, folder: Path) -> Evidence:
        """What `save` wrote. Raises UserError when it is absent or damaged."""
        path = folder / RECORD
        try:
            return TypeAdapter(cls).validate_python(read_json(path, "the evidence of a stage"))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}: damaged ({where}: {first['msg']})") from None
