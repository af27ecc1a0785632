"""The model card: what an embedder is, whence its weights, how good it is, and for what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resight.errors import UserError
from resight.models.backbones import published
from resight.models.packaged import LICENCE, package_of, packaged_file

_HEAD = """\
---
library_name: resight
pipeline_tag: image-feature-extraction
tags:
- image-retrieval
- resight
---
"""
_USE = """\
To find photos of the same thing among photos like those it was made with: embed all of them, and
take the nearest by cosine similarity.

- How good it is on other photos is unknown: measure it on yours (`resight evaluate`).
- Near vectors are a hint, not a proof. What follows from a match is for a person to decide.
- With pictures of people the law of the place applies, and their consent.
- It inherits what its pretrained weights were biased by."""


def card(
    make: Mapping[str, Any],
    dim: int,
    info: Mapping[str, Any],
    *,
    name: str = "",
    place: str = "this/folder",
    scores: Sequence[Mapping[str, Any]] = (),
    plot: str | None = None,
) -> str:
    """The text of README.md.

    make: the configuration of the embedder, `dim` its dimensions, `info` what is known of how it
    was made. name: a title; place: what `Embedder.load` takes. scores: summaries of evaluations
    (`Scores.summary`) with "data", the set's name. plot: a picture of the training, by its file.
    """
    parts = [
        _HEAD + f"# {name or 'An embedder of resight'}",
        "Turns a photo into a vector. Photos of one thing lie near each other, so that it is found "
        "again.",
        _what(make, dim),
        f'```python\nimport resight\n\nembedder = resight.Embedder.load("{place}")\n'
        'vectors = embedder.embed(["photo.jpg"])  # (1, D), unit length\n```',
        f"## Weights\n\n{_weights(make, info)}",
        f"## Use, and its limits\n\n{_USE}",
    ]
    made = _made(info)
    if made:
        parts.append("## How it was made\n\n" + "\n".join(f"- {line}" for line in made))
    if plot:
        parts.append(f"![Loss, and scores on the objects held out]({plot})")
    figures = _figures(info, scores)
    if figures:
        parts.append(f"## Scores\n\n{figures}")
    if info:
        text = json.dumps(info, indent=2, ensure_ascii=False)
        parts.append(f"## All that is recorded\n\n```json\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def _what(make: Mapping[str, Any], dim: int) -> str:
    height, width = make["preprocess"]["size"]
    pooled = f"{make['pooling']} pooling"
    if make.get("depths"):
        pooled += f" of the maps at depths {', '.join(map(str, make['depths']))}, joined"
    projected = make.get("whiten") or make.get("projection")
    rows = {
        "backbone": make["backbone"],
        "images": f"{height} x {width}, {make['preprocess']['resize']}",
        "feature": pooled + (f", projected to {projected}" if projected else ""),
        "vector": f"{dim} dimensions",
    }
    return "| | |\n| --- | --- |\n" + "\n".join(f"| {k} | {v} |" for k, v in rows.items())


def _weights(make: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """Where the weights come from that it began with, and under what licence they are."""
    source = _part(info, "recipe").get("weights", info.get("weights"))
    backbone = str(make["backbone"])
    if source is None:
        return "Where the weights of the backbone come from, and their licence, is not recorded."
    if source == "none":
        return "Begun with random weights: nothing in it is anybody else's."
    if source == "auto" and packaged_file(backbone) is not None:
        return (
            f"Begun with ImageNet weights of the package {package_of(backbone)}, licence {LICENCE}."
        )
    if Path(source).suffix or "/" in source or Path(source).exists():
        return f"Begun with the weights {Path(source).name}. Their licence is unknown here."
    tagged = backbone if source in ("auto", "imagenet") else f"{backbone.split('.')[0]}.{source}"
    try:
        licence = published(tagged, "license")
    except UserError:
        licence = None
    said = f"licence {licence} by timm's record" if licence else "whose licence is unknown here"
    return f"Begun with timm's weights {tagged}, {said}."


def _made(info: Mapping[str, Any]) -> list[str]:
    """A line for each thing that is known."""
    lines = []
    recipe, data, fitted = (_part(info, name) for name in ("recipe", "data", "fit"))
    if "recipe" in recipe:
        words = [f"recipe {recipe['recipe']}"]
        words += [f"loss {name}" for name in (_part(recipe, "loss").get("name"),) if name]
        if recipe.get("steps"):
            words.append(f"{recipe['steps']} steps")
        elif recipe.get("steps") is None and "epochs" in recipe:
            words.append(f"{recipe['epochs']} epochs")
        lines.append(", ".join(words))
    for verb, one in (("trained on", data), ("closed form fitted to", fitted)):
        if "images" not in one:
            continue
        text = f"{verb} {one['images']:,} images"
        text += f" of {one['objects']:,} objects" if "objects" in one else ""
        if "training_objects" in one:
            text = f"{verb} {one['training_objects']:,} of the {one['objects']:,} objects"
        text += f" of {Path(str(one['source'])).name}" if "source" in one else ""
        text += f", from {one['from']}: {one.get('by', '')}" if "from" in one else ""
        lines.append(text)
    if "resight" in info:
        lines.append(f"resight {info['resight']}, torch {_part(info, 'versions').get('torch')}")
    return lines


def _part(info: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = info.get(name)
    return found if isinstance(found, Mapping) else {}


def _figures(info: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> str:
    """A table a kind: evaluations with intervals; else the validation, by which it was chosen."""
    parts = []
    if scores:
        parts += ["In percent, in brackets 95 % intervals.", ""]
        parts += ["| data | protocol | queries | mAP | R@1 |", "| --- | --- | --- | --- | --- |"]
        parts += [
            f"| {one['data']} | {one['title']} | {one['queries']:,} | {_cell(one, one['metric'])} "
            f"| {_cell(one, 'R@1')} |"
            for one in scores
        ]
    found = _part(info, "validation") or _part(_part(info, "fit"), "validation")
    if found:
        numbers = ", ".join(f"{name} {100 * value:.1f}" for name, value in found.items())
        parts += [""] if parts else []
        parts.append("On the objects held out, by which it was chosen, and so on the bright side:")
        parts.append(f"{numbers} (percent).")
    return "\n".join(parts)


def _cell(summary: Mapping[str, Any], name: str) -> str:
    value = summary.get(name)
    if value is None:
        return ""
    interval = (summary.get("intervals") or {}).get(name)
    text = f"{100 * value:.1f}"
    if interval is None or None in interval:
        return text
    low, high = (100 * float(end) for end in interval)
    return f"{text} [{low:.1f}, {high:.1f}]" if low == low else text
