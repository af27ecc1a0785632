"""The names of a second look, their parameters, and chains of them.

none                                       as the cosines have it
aqe:n=10,alpha=3                           the query becomes the mean of itself and its nearest
dba:n=10,alpha=3                           the same for each vector of the gallery, beforehand
kreciprocal:k1=20,k2=6,weight=0.3          how far the neighbourhoods overlap
diffusion:k=10,alpha=0.9,n=10,top=64       what arrives along the graph of mutual neighbours
spatial:top=20                             whether the pictures' points agree
aqe+diffusion+spatial                      one after the other, in this order
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from resight.errors import UserError
from resight.settings import build

if TYPE_CHECKING:
    from resight.spatial.local import SpatialOptions

_Count = Annotated[int, Field(ge=1, le=1000)]


class Step(BaseModel):
    """One step; its fields are its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]

    def __str__(self) -> str:
        given = {k: v for k, v in self.model_dump().items() if v != type(self)().model_dump()[k]}
        return self.name + ":" * bool(given) + ",".join(f"{k}={v}" for k, v in given.items())


class Aqe(Step):
    """αQE: see `expand.expand`."""

    name = "aqe"
    n: _Count = 10
    alpha: Annotated[float, Field(ge=0, le=100)] = 3.0


class Dba(Step):
    """Database-side augmentation: see `expand.augment`."""

    name = "dba"
    n: _Count = 10
    alpha: Annotated[float, Field(ge=0, le=100)] = 3.0


class KReciprocal(Step):
    """k-reciprocal encoding: see `reciprocal`; `weight` is that of the cosine, λ of the paper."""

    name = "kreciprocal"
    k1: _Count = 20
    k2: _Count = 6
    weight: Annotated[float, Field(ge=0, le=1)] = 0.3


class Diffusion(Step):
    """Diffusion: `k` mutual neighbours make the graph, a query starts at its `n` nearest.

    `alpha` and `top` as in `diffusion.diffuse`; `weight`: of the cosine beside what arrives.
    """

    name = "diffusion"
    k: _Count = 10
    n: _Count = 10
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.9
    top: _Count = 64
    weight: Annotated[float, Field(ge=0, le=1000)] = 1e-4


class Spatial(Step):
    """Spatial verification of the `top` first; verified ones stand in front, most inliers first.

    The others as in `SpatialOptions`.
    """

    name = "spatial"
    top: _Count = 20
    detector: str = "sift"
    weights: str | None = None
    side: int = 480
    min_inliers: Annotated[int, Field(ge=4)] = 8

    def options(self) -> SpatialOptions:
        """What the verifier takes. Raises UserError where it does not."""
        from resight.spatial.local import SpatialOptions  # which reads pictures: not for all

        values = self.model_dump(exclude={"top"})
        return build(SpatialOptions, values, "rerank spatial")


KINDS: dict[str, type[Step]] = {
    kind.name: kind for kind in (Aqe, Dba, KReciprocal, Diffusion, Spatial)
}
NAMES = ("none", *KINDS)
# Vectors first, then one look at neighbourhoods, then pictures.
_ORDER = {"dba": 0, "aqe": 1, "kreciprocal": 2, "diffusion": 2, "spatial": 3}


@dataclass(frozen=True)
class Chain:
    """What to do, in order; nothing for "none"."""

    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return "+".join(map(str, self.steps)) or "none"

    def __bool__(self) -> bool:
        return bool(self.steps)

    def _one(self, *kinds: type[Step]) -> Any:
        return next((step for step in self.steps if isinstance(step, kinds)), None)

    @property
    def aqe(self) -> Aqe | None:
        """The expansion of queries."""
        return self._one(Aqe)  # type: ignore[no-any-return]

    @property
    def dba(self) -> Dba | None:
        """The augmentation of the gallery."""
        return self._one(Dba)  # type: ignore[no-any-return]

    @property
    def look(self) -> KReciprocal | Diffusion | None:
        """The look at neighbourhoods."""
        return self._one(KReciprocal, Diffusion)  # type: ignore[no-any-return]

    @property
    def spatial(self) -> Spatial | None:
        """The verification of pictures."""
        return self._one(Spatial)  # type: ignore[no-any-return]

    @property
    def derived(self) -> str:
        """What is made of the gallery beforehand, as a name that says all it depends on."""
        kinds = (Dba, KReciprocal, Diffusion)
        return "+".join(str(step) for step in self.steps if isinstance(step, kinds))


def parse(text: str | Chain) -> Chain:
    """The chain of "kreciprocal:k1=20,k2=6", "aqe+diffusion" and so on.

    Raises UserError: no such name or parameter, a wrong value, or steps in an order that means
    nothing.
    """
    if isinstance(text, Chain):
        return text
    parts = [part.strip() for part in text.split("+")]
    if parts in (["none"], [""]):
        return Chain()
    steps = tuple(_step(part, text) for part in parts)
    places = [_ORDER[step.name] for step in steps]
    if places != sorted(places) or len(set(places)) < len(places):
        raise UserError(
            f"rerank {text!r}: each step once and in this order: dba, aqe, then kreciprocal or "
            "diffusion, then spatial"
        )
    if steps and isinstance(steps[-1], Spatial):
        steps[-1].options()  # its mistakes are told now
    return Chain(steps)


def _step(part: str, whole: str) -> Step:
    name, colon, given = part.partition(":")
    name = name.strip()
    if name not in KINDS:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
        if name == "none":
            hint = "none stands alone"
        raise UserError(f"rerank {whole!r}: {name!r} is no step here; {hint}")
    values: dict[str, Any] = {}
    for pair in given.split(",") if colon else ():
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not equals or not key or not value:
            raise UserError(f"rerank {whole!r}: {pair!r} is not of the form name=value")
        if key in values:
            raise UserError(f"rerank {whole!r}: {key} is given twice")
        values[key] = value if key == "weights" else _number(value)
    return build(KINDS[name], values, f"rerank {name}")


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
