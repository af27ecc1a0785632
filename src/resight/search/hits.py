"""What a search answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload


@dataclass(frozen=True)
class Hit:
    """One answer: an object (None where unknown), its most similar image or an example image.

    `similarity` is the cosine, -1 to 1; `images` how many images stand behind the vector;
    `image` the id of the image shown, `path` its file. Once the gallery is calibrated,
    `probability` says how likely the hit is right, and `p_value` how often something that is not
    in the gallery comes as near as this. `why` says what was compared, by which index, and what
    re-ranked it; then hits stand by `score`, and `similarity` is still the cosine. Where pictures
    were compared: `inliers`, the points that agree, and `matches` (x1, y1, x2, y2), in pixels of
    the upright query (its `photo`-th, where several were given) and of the upright image.
    """

    rank: int
    object: str | None
    similarity: float
    path: str
    box: tuple[float, float, float, float] | None
    images: int
    image: int = 0
    camera: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    probability: float | None = None
    p_value: float | None = None
    why: str = ""
    score: float | None = None
    inliers: int | None = None
    photo: int = 0
    matches: tuple[tuple[float, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """The hits of one query, best first: a sequence of `Hit`.

    `no_match` is True where the nearest is no nearer than things that are not in the gallery
    come (p-value above `alpha`); None where the gallery is not calibrated.
    """

    hits: tuple[Hit, ...]
    no_match: bool | None = None
    p_value: float | None = None
    alpha: float | None = None

    @overload
    def __getitem__(self, at: int) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Hit]: ...
    def __getitem__(self, at: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[at]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = {"no_match": self.no_match, "p_value": self.p_value, "alpha": self.alpha}
        return told | {"hits": [hit.to_dict() for hit in self.hits]}
