"""The recipes by name: settings, and the objective of those that train with labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resight.errors import UserError
from resight.settings import build
from resight.train.recipes.ctl import CTLObjective, CTLSettings
from resight.train.recipes.graph import GraphSettings
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.recipes.settings import CommonSettings, Objective
from resight.train.recipes.smooth_ap import SmoothAPObjective, SmoothAPSettings

RECIPES: dict[str, type[CommonSettings]] = {
    "ctl": CTLSettings,
    "smooth_ap": SmoothAPSettings,
    "insclr": InsCLRSettings,
    "graph": GraphSettings,
}
# objective(settings, classes, features)
OBJECTIVES: dict[str, Callable[[Any, int, int], Objective]] = {
    "ctl": CTLObjective,
    "smooth_ap": SmoothAPObjective,
}


def settings_of(values: dict[str, Any], where: str) -> CommonSettings:
    """The checked settings of the recipe that `values["recipe"]` names (default ctl).

    Raises UserError, a line for every wrong name and value.
    """
    name = values.get("recipe", "ctl")
    if name not in RECIPES:
        raise UserError(f"--recipe {name}: no such recipe; there are: {', '.join(RECIPES)}")
    return build(RECIPES[name], values, where)
