"""The recipes by name: settings, and the story they tell."""

from __future__ import annotations

from resight.train.recipes.ctl import CTLSettings, CTLStory

RECIPES = {"ctl": (CTLSettings, CTLStory)}
