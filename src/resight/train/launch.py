"""A training as it is asked for, on the command line or from Python: settings, time, the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.models.open import AUTO
from resight.settings import apply_pairs
from resight.train import start as starting
from resight.train.auto import MINUTES, choose
from resight.train.catalogue import find_recipe, read_recipe
from resight.train.loop import LoopOptions, Watcher
from resight.train.recipes import settings_of
from resight.train.recipes.settings import CommonSettings


@dataclass(frozen=True)
class Request:
    """What to train with. `automatic`: chosen for the images; `lines` then say why."""

    settings: CommonSettings
    minutes: float | None
    automatic: bool
    lines: tuple[str, ...] = ()


def is_automatic(recipe: str | None, config: str | None, loss: str | None = None) -> bool:
    """Whether settings are to be chosen for the images, so that these must be read first."""
    path = find_recipe(config) if config is not None else None
    values = read_recipe(path)[0] if path is not None else {}
    return _named(recipe, values, path, loss)[1]


def requested(
    images: ImageSet | None,
    *,
    recipe: str | None = None,
    config: str | None = None,
    pairs: Sequence[str] = (),
    minutes: float | None = None,
    unlabelled: bool = False,
    **flags: Any,
) -> Request:
    """The settings of a recipe, or those chosen for the images, with changes.

    In this order, later ones win: the recipe's own or the chosen ones, a file of settings
    (`config`: a path or a name), `pairs` ("loss.margin=0.2"), `flags` that are not None.
    `minutes` is the time given, in place of epochs; a choice of its own brings one.

    Raises UserError: no such recipe or file, a line for every wrong name and value; no images
    where these are needed for a choice.
    """
    path = find_recipe(config) if config is not None else None
    values: dict[str, Any] = read_recipe(path)[0] if path is not None else {}
    recipe, automatic = _named(recipe, values, path, flags.get("loss"))
    lines: tuple[str, ...] = ()
    if automatic:
        if images is None:
            raise UserError("IMAGES is missing: a folder, or a CSV or Parquet file")
        choice = choose(images, unlabelled=unlabelled)
        values, recipe = choice.values | {k: v for k, v in values.items() if k != "recipe"}, None
        lines = choice.lines
        counted = flags.get("epochs") is not None or flags.get("steps") is not None
        if not counted and minutes is None and "steps" not in values:
            minutes = MINUTES
    flags["recipe"] = recipe
    loss = flags.pop("loss", None)
    if loss is not None:  # before the pairs, which may set what it has of its own
        values["loss"] = {"name": "own", "file": loss} if loss.endswith(".py") else {"name": loss}
    values = apply_pairs(values, pairs) | {k: v for k, v in flags.items() if v is not None}
    settings = settings_of(values, str(path) if path is not None and not pairs else "settings")
    return Request(settings, minutes, automatic, lines)


def _named(
    recipe: str | None, values: dict[str, Any], path: Path | None, loss: Any
) -> tuple[str | None, bool]:
    if recipe is None and loss is not None and "recipe" not in values:
        recipe = "smooth_ap"
    unnamed = AUTO if path is None else "ctl"  # a file of settings is of a paper's recipe
    return recipe, (recipe or values.get("recipe", unnamed)) == AUTO


def launch(
    request: Request,
    images: ImageSet,
    out: Path,
    *,
    workers: int | None = None,
    strict: bool = False,
    force: bool = False,
    watcher: Watcher | None = None,
) -> starting.Outcome:
    """Train, for the time given where one is.

    Raises UserError: as `train.start.start`, and for a time that is none.
    """
    watcher = watcher or Watcher()
    settings, minutes, budget = request.settings, request.minutes, request.minutes
    if minutes is not None:
        if minutes <= 0:
            raise UserError(f"--minutes {minutes:g}: must be above 0")
        settings, rate, clock = starting.within(settings, images, minutes, workers)
        if rate:
            what = "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
            what += " of each stage" if clock < minutes else ""
            watcher.tell(f"{rate:.0f} images/s measured: {what} in {minutes:g} minutes")
        minutes = clock
    options = loop_options(workers, strict, minutes, budget)
    return starting.start(settings, images, out, options, watcher, force=force)


def loop_options(
    workers: int | None, strict: bool, minutes: float | None = None, budget: float | None = None
) -> LoopOptions:
    """How the loop runs; `minutes` is the clock of the run or of each stage."""
    # The estimate may be wrong, on a machine that gets busy: a fifth more, and no longer.
    limit = 1.2 * minutes if minutes is not None else None
    return LoopOptions(workers=workers, strict=strict, max_minutes=limit, budget=budget)
