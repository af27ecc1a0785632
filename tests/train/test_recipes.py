"""The recipe files are valid, complete in their heads, and say what the paper says."""

from __future__ import annotations

from pathlib import Path

import pytest

from resight.settings import build, read_yaml
from resight.train.recipes import RECIPES

FILES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_its_head_has_the_command(path: Path) -> None:
    values = read_yaml(path)
    settings = build(RECIPES[values["recipe"]][0], values, str(path))
    warmup, milestones = settings.schedule()
    assert warmup < milestones[0] < milestones[-1] < settings.epochs
    assert f"--config recipes/{path.name}" in path.read_text()


def test_there_are_recipes() -> None:
    assert FILES
