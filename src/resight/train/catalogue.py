"""The recipe files: YAML settings with a word about the recipe and, for a sweep, its axes.

A recipe file is a file of settings with two keys of its own: `about` (the protocol its outcome is
measured by, the published figure it is after, its data) and `sweep` (what is varied). Anyone's
file may have them; those of the project are found by their bare names.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

import resight
from resight.errors import UserError
from resight.evaluate.records.published import FIGURES, Published
from resight.settings import build, read_yaml

_PACKAGE = Path(resight.__file__).parent


class About(BaseModel):
    """What a recipe is for. Figures are not here: each stands once, in the published table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: str | list[str] = []
    published: str = ""  # "paper/remark" of the figures it is after; either may be a beginning
    data: str = ""

    def protocols(self) -> list[str]:
        """The protocols' names."""
        return [self.protocol] if isinstance(self.protocol, str) else self.protocol


class Sweep(BaseModel):
    """What a sweep varies: every variant x every value of each setting in `over` x every seed.

    Names of settings are dotted ("loss.temperature"), as with `--set`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variants: dict[str, dict[str, Any]] = {}
    over: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]

    @field_validator("over", mode="before")
    @classmethod
    def _numbers(cls, over: Any) -> Any:
        """YAML takes 1e-4 for text, as it has no point; a plot needs the number."""
        if not isinstance(over, dict):
            return over
        return {
            name: [_number(v) for v in values] if isinstance(values, list) else values
            for name, values in over.items()
        }

    @model_validator(mode="after")
    def _distinct(self) -> Sweep:
        for name, values in {**self.over, "seeds": self.seeds}.items():
            if len({repr(value) for value in values}) < len(values):
                raise ValueError(f"{name} lists a value twice")
        return self


def figures(about: About) -> list[Published]:
    """The published figures that a recipe is after; none where it names none."""
    if not about.published:
        return []
    paper, _, remark = about.published.partition("/")
    return [
        figure
        for protocol in about.protocols()
        for figure in FIGURES
        if figure.protocol == protocol
        and figure.paper.startswith(paper)
        and figure.remark.startswith(remark)
    ]


def published_lines(about: About) -> list[str]:
    """The figures in words, in percent, a line for each protocol and source.

    Beside a figure without a remark the others bring theirs, to tell them apart.
    """
    lines: dict[tuple[str, str, bool], list[str]] = {}
    for one in figures(about):
        value = f"{one.metric} {100 * one.value:.1f}"
        lines.setdefault((one.protocol, one.remark, one.verified), []).append(value)
    plain = {protocol for protocol, remark, _ in lines if not remark}
    return [
        f"{protocol}: {', '.join(values)}{'' if verified else ' (unverified)'}"
        + (f", {remark}" if remark and protocol in plain else "")
        for (protocol, remark, verified), values in lines.items()
    ]


def recipes_folder() -> Path:
    """Where the recipe files are: in the installed package, or beside src/ in a checkout."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent.parent / "recipes"


def recipe_names() -> list[str]:
    """The bare names of the project's recipe files, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def find_recipe(name_or_path: str | Path) -> Path:
    """The file of a recipe, by its path or its bare name ("ctl_market1501").

    Raises UserError, with the nearest names, when there is none.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    bare = path.parent == Path() and path.suffix not in (".yaml", ".yml")
    known = recipe_names()
    if bare and path.name in known:
        return recipes_folder() / f"{path.name}.yaml"
    near = difflib.get_close_matches(path.stem, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; 'resight recipes' lists them"
    kind = "recipe of this name" if bare else "such settings file"
    raise UserError(f"--config {name_or_path}: no {kind}{hint}")


def read_recipe(name_or_path: str | Path) -> tuple[dict[str, Any], About, Sweep | None]:
    """The settings of a recipe file, what it says about itself, and its sweep if it is one.

    Raises UserError when there is no such file, or its `about` or `sweep` is wrong.
    """
    path = find_recipe(name_or_path)
    values = read_yaml(path)
    about = build(About, _mapping(values.pop("about", {}), path, "about"), f"{path}: about")
    if "sweep" not in values:
        return values, about, None
    found = _mapping(values.pop("sweep"), path, "sweep")
    return values, about, build(Sweep, found, f"{path}: sweep")


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _mapping(content: object, path: Path, key: str) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: {key}: needs lines of the form name: value")
    return content
