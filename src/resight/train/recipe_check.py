"""Whether a recipe file is sound, as far as that can be seen without images and weights."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.models.backbones import check_backbone
from resight.models.open import AUTO, LIGHT
from resight.train.catalogue import (
    About,
    Sweep,
    figures,
    published_lines,
    read_recipe,
    recipes_folder,
)
from resight.train.recipes import RECIPES
from resight.train.recipes.settings import CommonSettings
from resight.train.sweeps import plan


def faults(path: Path, *, build: bool = False) -> list[str]:
    """What is wrong with a recipe file, a line each; [] where nothing is.

    build: make its networks too, without weights, which takes seconds each.
    """
    try:
        values, about, sweep = read_recipe(path)
        trials = plan.trials(values, sweep or Sweep(), path.stem)
        plan.check(trials, str(path))
    except UserError as error:
        return str(error).splitlines()
    every = [RECIPES[t.values.get("recipe", "ctl")].model_validate(t.values) for t in trials]
    found = [line for settings in every for line in _schedule(settings)]
    networks = {(s.backbone, s.size, s.pooling, s.projection, s.last_stride): s for s in every}
    found += [line for settings in networks.values() for line in _network(settings, build)]
    found += _about(about)
    if path.resolve().parent == recipes_folder().resolve():
        found += _head(path, about, sweep)
    return [f"{path}: {line}" for line in dict.fromkeys(found)]


def _schedule(settings: CommonSettings) -> list[str]:
    """Warm-up, then steps, then some epochs at the lowest rate."""
    warmup, milestones = settings.schedule()
    times = [warmup, *milestones, settings.epochs]
    # Equal neighbours would hide a step; a warm-up of 0 is none.
    if all(a < b for a, b in pairwise(times)):
        return []
    said = ", ".join(map(str, milestones)) or "none"
    return [f"schedule out of order: warm-up {warmup}, milestones {said}, epochs {settings.epochs}"]


def _network(settings: CommonSettings, build: bool) -> list[str]:
    if settings.backbone == AUTO:
        settings = settings.model_copy(update={"backbone": LIGHT})
    try:
        check_backbone(settings.backbone)
        if build:
            from resight.models.embedder import Embedder

            size = settings.size or (224, 224)
            Embedder(settings.model_copy(update={"size": size}).embedder())
    except UserError as error:
        return [str(error)]
    return []


def _about(about: About) -> list[str]:
    found = []
    for name in about.protocols():
        try:
            protocol(name)
        except UserError as error:
            found.append(f"about: {error}")
    if about.published and not figures(about):
        found.append(f"about: no published figure of {about.published!r} by its protocols")
    return found


def _head(path: Path, about: About, sweep: Sweep | None) -> list[str]:
    """The comment at the top of the project's own files."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip(" \\"))
    text = " ".join(lines)
    verb = "sweep" if sweep else "train"
    found = []
    if not re.search(rf"resight {verb} \S+ --config {re.escape(path.stem)}\s", text + " "):
        found.append(f"its head lacks the command: resight {verb} ... --config {path.stem}")
    if "Needs " not in text:
        found.append("its head does not say what it needs (Needs ...)")
    found += [
        f"its head lacks the published figures: {line}"
        for line in published_lines(about)
        if line not in text
    ]
    return found
