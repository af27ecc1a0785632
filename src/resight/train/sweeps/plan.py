"""Which runs a sweep consists of, and the folder that remembers it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from resight import __version__
from resight.data.imageset import ImageSet
from resight.data.splits import hold_out_test
from resight.errors import UserError
from resight.files import read_json, write_json
from resight.settings import build
from resight.train.catalogue import Sweep

RECORD, IMAGES, LOCK = "sweep.json", "images.parquet", "sweep.lock"
_KIND = "a sweep"
_ABSENT = "not set"


@dataclass(frozen=True)
class Trial:
    """One run: its group (all but the seed), where it stands on the axes, all its settings."""

    group: str
    variant: str
    point: Mapping[str, Any]  # of each name that is swept, the value
    seed: int
    values: Mapping[str, Any]
    slug: str  # its name as a folder


def assign(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a dotted name: "loss.temperature" changes values["loss"]["temperature"].

    What has a name only ("loss: smooth_ap") becomes {"name": ...} to take options.
    Raises UserError where a part of the name is no group of settings.
    """
    *parents, last = name.split(".")
    inner = values
    for parent in parents:
        if isinstance(inner.get(parent), str):
            inner[parent] = {"name": inner[parent]}
        if inner.get(parent) is None:
            inner[parent] = {}
        inner = inner[parent]
        if not isinstance(inner, dict):
            raise UserError(f"sweep: {name}: {parent} has no settings of its own")
    inner[last] = copy.deepcopy(value)


def trials(base: Mapping[str, Any], sweep: Sweep, name: str) -> list[Trial]:
    """Every variant x every value of each swept setting x every seed; one seed of all comes first.

    base: the settings that all share; variants, then swept values, then the seed override them.
    name: the group where nothing but the seed differs.
    """
    variants: dict[str, dict[str, Any]] = sweep.variants or {"": {}}
    short = _short_names(list(sweep.over))
    found = []
    for seed in sweep.seeds:
        for variant, changes in variants.items():
            for chosen in product(*sweep.over.values()):
                point = dict(zip(sweep.over, chosen, strict=True))
                values = copy.deepcopy(dict(base))
                for key, value in {**changes, **point, "seed": seed}.items():
                    assign(values, key, value)
                places = [f"{short[key]} {in_words(value)}" for key, value in point.items()]
                group = ", ".join(([variant] if variant else []) + places) or name
                equals = [f"{short[key]}={in_words(value)}" for key, value in point.items()]
                words = [variant or (name if not equals else ""), *equals, f"seed{seed}"]
                slug = "_".join(safe(word) for word in words if word)
                found.append(Trial(group, variant, point, seed, values, slug))
    return _distinct(found)


def _distinct(found: list[Trial]) -> list[Trial]:
    """Names that differ in letters a folder can't have, or in case, get a number each."""
    seen: dict[str, int] = {}
    for k, trial in enumerate(found):
        number = seen[trial.slug.lower()] = seen.get(trial.slug.lower(), 0) + 1
        if number > 1:
            found[k] = replace(trial, slug=f"{trial.slug}-{number}")
    return found


def check(found: Sequence[Trial], where: str) -> None:
    """Build the settings of every run; raises UserError that names each fault once."""
    from resight.train.recipes import RECIPES

    faults: dict[str, None] = {}
    for trial in found:
        recipe = trial.values.get("recipe", "ctl")
        if recipe not in RECIPES:
            raise UserError(f"{where}: no recipe {recipe!r}; there are: {', '.join(RECIPES)}")
        try:
            build(RECIPES[recipe], dict(trial.values), f"{where}: {trial.group}")
        except UserError as error:
            faults |= dict.fromkeys(str(error).splitlines())
    if faults:
        raise UserError("\n".join(faults))


def in_words(value: Any) -> str:
    """A setting's value, short: 0.01, 256x128, none, or JSON."""
    if value is None:
        return "none"
    if isinstance(value, list) and value and all(isinstance(v, int | float) for v in value):
        return "x".join(map(str, value))
    if isinstance(value, bool | list | dict):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse_over(text: str) -> tuple[str, list[Any]]:
    """ "loss.temperature=0.1,0.01" as a name and its values, which are YAML.

    Raises UserError when it isn't of that form.
    """
    name, equals, values = text.partition("=")
    try:
        found = yaml.safe_load(f"[{values}]")
    except yaml.YAMLError:
        found = None
    if not equals or not name.strip() or not found:
        raise UserError(f"--over {text}: not of the form name=value,value")
    return name.strip(), found


def with_test(images: ImageSet) -> ImageSet:
    """The set with the test rows that all runs are judged by: its own, or some objects held out.

    Raises UserError when there are splits, but no test rows.
    """
    if not images.objects():
        raise UserError(f"{images.source}: no labels; a sweep needs an object for each image")
    if not images.has("split"):
        return hold_out_test(images)
    if not len(images.where(pl.col("split") == "test")):
        raise UserError(f"{images.source}: no test rows; a sweep's runs are compared on them")
    return images


def open_folder(
    folder: Path, shared: Mapping[str, Any], images: ImageSet, found: Sequence[Trial]
) -> None:
    """Make the folder of a sweep, or check that it is the folder of this very sweep.

    shared: what all runs have in common (settings, protocols, ...). More runs than before (other
    seeds or values) may be asked for, or fewer; a run that both have must be the same.

    Raises UserError: `folder` holds another sweep, or one on other images.
    """
    file = folder / RECORD
    runs = {trial.slug: dict(trial.values) for trial in found}
    groups: dict[str, list[str]] = {}
    for trial in found:
        groups.setdefault(trial.group, []).append(evaluation_of(trial.slug))
    content = {"shared": shared, "data": images.fingerprint(), "runs": runs, "groups": groups}
    asked = json.loads(json.dumps(content, default=str))
    if file.is_file():
        before = read_json(file, "the record of a sweep")
        _refuse_other(folder, before, asked)
        asked["runs"] = before["runs"] | asked["runs"]
        asked["groups"] = _merged(before["groups"], asked["groups"])
    images.write(folder / IMAGES)
    write_json(file, {"format": 1, "resight": __version__, "source": images.source} | asked)


def add_groups(folder: Path, groups: Mapping[str, list[str]]) -> None:
    """Note further evaluations in the sweep's record."""
    content = read_json(folder / RECORD, "the record of a sweep")
    content["groups"] = _merged(content["groups"], groups)
    write_json(folder / RECORD, content)


def evaluation_of(slug: str) -> str:
    """Where a run's evaluation lies in the folder of the sweep."""
    return f"evaluations/{slug}"


def _merged(old: Mapping[str, list[str]], new: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {
        name: list(dict.fromkeys([*old.get(name, ()), *new.get(name, ())]))
        for name in {**old, **new}
    }


def _refuse_other(folder: Path, before: dict[str, Any], asked: dict[str, Any]) -> None:
    if before.get("format") != 1:
        raise UserError(f"{folder / RECORD}: not {_KIND} as this version writes them")
    if before["data"] != asked["data"]:
        raise UserError(f"{folder}: holds {_KIND} on other images; give another --out")
    both = [slug for slug in asked["runs"] if slug in before["runs"]]
    pairs = [(before["shared"], asked["shared"])]
    pairs += [(before["runs"][slug], asked["runs"][slug]) for slug in both]
    for old, new in pairs:
        fault = _first_difference(old, new)
        if fault is not None:
            name, was, now = fault
            raise UserError(
                f"{folder}: holds another sweep, with {name} {was} where this one has {now}; "
                "give another --out"
            )


def _first_difference(old: Any, new: Any, name: str = "") -> tuple[str, str, str] | None:
    """The first dotted name that differs, with both values in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            inner = f"{name}.{key}" if name else key
            found = _first_difference(old.get(key, _ABSENT), new.get(key, _ABSENT), inner)
            if found is not None:
                return found
        return None
    return None if old == new else (name, in_words(old), in_words(new))


def _short_names(names: list[str]) -> dict[str, str]:
    """The last part of each dotted name, or all of it where two share that."""
    last = [name.rpartition(".")[2] for name in names]
    return {
        name: name if last.count(end) > 1 else end for name, end in zip(names, last, strict=True)
    }


def safe(word: str) -> str:
    """The word as a part of a folder's name."""
    return re.sub(r"[^\w.=+-]+", "-", word).strip("-.")[:80] or "run"
