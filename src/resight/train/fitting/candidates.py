"""What could stand behind a frozen network: depths, grid, kind of projection, its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from resight.errors import UserError
from resight.models.closed_form import DIMS, SHRINK
from resight.models.depths import Depth, usual_depths

Method = Literal["raw", "whitening", "neighbours", "joined", "discriminant"]
METHODS: tuple[str, ...] = get_args(Method)
UNLABELLED: Method = "neighbours"  # where no labels can choose; see docs/embedder.md
LEAST = 8  # dimensions, however few the images
_SHRINKS = (SHRINK, 0.1)  # the first where nobody is held out to choose


@dataclass(frozen=True)
class Candidate:
    """One way: the parts (depth, grid) that are joined, and the projection of them.

    No parts: the vectors of a trained embedder as they are. `dims` counts for a projection only,
    `shrink` for discriminants.
    """

    method: Method
    depths: tuple[int, ...] = ()
    grid: int = 1
    dims: int = DIMS
    shrink: float = SHRINK

    @property
    def parts(self) -> list[tuple[int, int]]:
        """(depth, grid) of each part."""
        return [(depth, self.grid) for depth in self.depths]

    def words(self) -> str:
        """As a line of a table has it."""
        text = "as it comes" if self.method == "raw" else f"{self.method} to {self.dims}"
        if self.method == "discriminant" and self.shrink != SHRINK:
            text += f", shrink {self.shrink:g}"
        if self.depths:
            text += f", depths {', '.join(map(str, self.depths))}"
            text += f" on a {self.grid} x {self.grid} grid" if self.grid > 1 else ""
        return text


@dataclass(frozen=True)
class Wish:
    """What is asked for; what is None is chosen."""

    method: Method | None = None
    depths: tuple[int, ...] | None = None
    grid: int | None = None
    dims: int | None = None
    shrink: float | None = None


def usual_dims(count: int) -> int:
    """Dimensions for so many images: a quarter of them, at most 256."""
    return max(LEAST, min(DIMS, count // 4))


def sets_of_depths(found: list[Depth]) -> list[tuple[int, ...]]:
    """Those that labels choose from: without the last quarter, all but the last, all."""
    if not found:
        return [()]
    return list(dict.fromkeys(usual_depths(found, leave_out=k) for k in (None, 1, 0)))


def with_labels(found: list[Depth], count: int, objects: int, wish: Wish) -> list[Candidate]:
    """The candidates for `count` images of `objects` objects; of equals the first is taken.

    `found`: the backbone's depths, none for a trained embedder.
    """
    sets = [wish.depths] if wish.depths is not None else sets_of_depths(found)
    most = usual_dims(count)
    # Directions beyond one less than the objects say nothing of how objects differ.
    sizes = {max(LEAST, n) for n in (most, most // 2, most // 4, min(most, objects - 1))}
    if wish.dims is not None:
        sizes = {wish.dims}
    shrinks = _SHRINKS if wish.shrink is None else (wish.shrink,)
    grids = [1, 2] if found else [1]
    if wish.grid is not None:
        grids = [wish.grid]
    ways: list[Candidate] = []
    for side in grids:
        for depths in sets if side == 1 else sets[:2]:
            for dims in sorted(sizes, reverse=True):
                ways += [Candidate("discriminant", depths, side, dims, s) for s in shrinks]
    for depths in sets:
        ways.append(Candidate("whitening", depths, grids[0], wish.dims or most))
        if wish.dims is None:  # as it comes it has the dimensions that it has
            ways.append(Candidate("raw", depths, grids[0], 0))
    if wish.method is None:
        return ways
    chosen = [way for way in ways if way.method == wish.method]
    return chosen or [Candidate(wish.method, sets[0], grids[0], wish.dims or most, shrinks[0])]


def without_labels(found: list[Depth], count: int, wish: Wish) -> Candidate:
    """The default, as nothing can choose: depths but the last quarter, means, mutual neighbours.

    Raises UserError when what is wished for needs labels.
    """
    if wish.method == "discriminant":
        raise UserError("--method discriminant needs labels; without them there is neighbours")
    depths = wish.depths if wish.depths is not None else sets_of_depths(found)[0]
    return Candidate(
        wish.method or UNLABELLED,
        depths,
        wish.grid or 1,
        wish.dims or usual_dims(count),
        SHRINK if wish.shrink is None else wish.shrink,
    )
