"""The recipes by name: settings, and the objective that they train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resight.errors import UserError
from resight.settings import build
from resight.train.recipes.ctl import CTLObjective, CTLSettings
from resight.train.recipes.settings import Objective, TrainSettings
from resight.train.recipes.smooth_ap import SmoothAPObjective, SmoothAPSettings

# objective(settings, classes, features)
RECIPES: dict[str, tuple[type[TrainSettings], Callable[[Any, int, int], Objective]]] = {
    "ctl": (CTLSettings, CTLObjective),
    "smooth_ap": (SmoothAPSettings, SmoothAPObjective),
}


def settings_of(values: dict[str, Any], where: str) -> TrainSettings:
    """The checked settings of the recipe that `values["recipe"]` names (default ctl).

    Raises UserError, a line for every wrong name and value.
    """
    name = values.get("recipe", "ctl")
    if name not in RECIPES:
        raise UserError(f"--recipe {name}: no such recipe; there are: {', '.join(RECIPES)}")
    return build(RECIPES[name][0], values, where)
