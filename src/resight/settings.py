"""Settings: a pydantic model filled from a YAML file and from name=value pairs."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from resight.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def build(kind: type[Model], values: dict[str, Any], where: str) -> Model:
    """A checked model. Raises UserError that lists every wrong name and value, a line each."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_line(kind, dict(fault), where) for fault in error.errors()]
        raise UserError("\n".join(lines)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings of a YAML file. Raises UserError when it is absent, broken, or no mapping."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such settings file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML: {text}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: settings are lines of the form name: value")
    return content


def apply_pairs(values: dict[str, Any], pairs: Sequence[str]) -> dict[str, Any]:
    """Set dotted names: "augment.flip=0" changes values["augment"]["flip"]; values are YAML."""
    import yaml

    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {pair}: not of the form name=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--set {pair}: {text!r} is not a value") from None
        *parents, last = name.strip().split(".")
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise UserError(f"--set {pair}: {parent} has no settings of its own")
        inner[last] = value
    return values


def dump_yaml(model: BaseModel) -> str:
    """The settings as YAML, in their order."""
    import yaml

    text: str = yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def _line(kind: type[BaseModel], fault: dict[str, Any], where: str) -> str:
    place = _place(kind, fault["loc"])
    name = ".".join(place)
    if fault["type"] == "union_tag_invalid":
        tag = fault["ctx"]["tag"]
        known = fault["ctx"]["expected_tags"].replace("'", "").split(", ")
        near = difflib.get_close_matches(tag, known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        return f"{where}: no {name} {tag!r}; {hint}"
    if fault["type"] == "missing":
        return f"{where}: the setting {name!r} is missing"
    if fault["type"] == "extra_forbidden":
        known = _names(kind, fault["loc"][:-1])
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.6)
        hint = f"; there are: {', '.join(known)}" if known else ""
        if near:
            hint = f"; did you mean {near[0]}?"
        return f"{where}: no setting {name!r}{hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if not name:  # a rule between settings, which names them itself
        return f"{where}: {message}"
    return f"{where}: {name} = {fault['input']!r}: {message[:1].lower()}{message[1:]}"


def _place(kind: type[BaseModel], parts: Sequence[int | str]) -> list[str]:
    """The dotted name without the tags of unions: loss.temperature, not loss.smooth_ap.temp..."""
    place: list[str] = []
    models: list[type[BaseModel]] = [kind]
    for part in parts:
        tagged = len(models) > 1
        if tagged:
            models = [model for model in models if _tag(model) == part]
            if models:
                continue
        place.append(str(part))
        field = models[0].model_fields.get(str(part)) if models else None
        models = _models(field.annotation) if field is not None else []
    return place


def _tag(model: type[BaseModel]) -> Any:
    return model.model_fields["name"].default if "name" in model.model_fields else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation: itself, or the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _names(kind: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The settings there are where `loc` points."""
    models = [kind]
    for part in loc:
        if len(models) > 1:
            models = [model for model in models if _tag(model) == part]
            continue
        field = models[0].model_fields.get(str(part)) if models else None
        models = _models(field.annotation) if field is not None else []
    return list(models[0].model_fields) if len(models) == 1 else []
