"""`--recipe auto`: an ordinary recipe with settings that suit the images and the machine.

The closed form comes first; training goes on from it. What is chosen here was measured on five sets
of real images (docs/choose-a-recipe.md) and is written to the run as settings like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resight.data.imageset import ImageSet
from resight.models.open import AUTO

MINUTES = 5.0  # where no time is given
BATCH = 64  # images a step
_AUGMENT = {"crop": "resized-crop", "scale": [0.4, 1.0], "flip": 0.0, "erase": 0.0, "jitter": 0.2}


@dataclass(frozen=True)
class Choice:
    """Settings by name, and a line for each decision: what, and why."""

    values: dict[str, Any]
    lines: tuple[str, ...]


def choose(images: ImageSet, *, unlabelled: bool = False) -> Choice:
    """What to train these images with."""
    counts = images.table.group_by("object").len().drop_nulls()["len"]
    several = counts.filter(counts > 1)
    if unlabelled or not len(several):
        return _without_labels(images, unlabelled)
    each = float(several.median() or 2)  # type: ignore[arg-type]
    per_object = 2 if each < 3 else 4
    ids = max(2, min(BATCH // per_object, len(several)))
    per_object = max(per_object, min(8, BATCH // ids))
    loss = {"name": "fastap"}
    values = {
        "recipe": "smooth_ap",
        "backbone": AUTO,
        "weights": AUTO,
        "start": "closed-form",
        "refit": True,
        "resize": "stretch",
        "augment": dict(_AUGMENT),
        "ids": ids,
        "images": per_object,
        "loss": loss,
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "warmup": 0.05,
        "freeze_bn": True,
    }
    cameras = images.table["camera"].n_unique() if images.has("camera") else 0
    lines = [
        f"auto: {len(counts):,} objects, {len(images):,} images"
        + (f", {cameras} cameras" if cameras else ""),
        "first a closed form on all depths of the network, chosen on objects held out",
        f"then {loss['name']} from there: it gets farthest in few steps",
        f"batches of {ids} objects x {per_object} images, rate 1e-4, a cosine over the time given",
        "cropped and jittered, not mirrored: print and marks are not their mirror images",
    ]
    return Choice(values, tuple(lines))


def _without_labels(images: ImageSet, asked: bool) -> Choice:
    why = "as asked" if asked else "no two images are labelled as the same object"
    values: dict[str, Any] = {"recipe": "graph", "backbone": AUTO, "weights": AUTO}
    lines = (
        f"auto: {len(images):,} images, labels are not used ({why})",
        "first a closed form on all depths of the network but the last ones",
        "images that are each other's nearest stand in for images of one object",
        "then training in stages towards what the graph of nearest neighbours says, as far as two "
        "halves of the features agree",
    )
    return Choice(values, lines)
