"""From two sets of features to a page that asks a person."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.evaluate.asking.design import inclusion, systematic
from resight.evaluate.asking.differing import Bar, Differing, differing
from resight.evaluate.records.job import require_same
from resight.evaluate.report.render import write_page
from resight.evaluate.report.thumbnails import open_thumbnails, within
from resight.evaluate.uncertainty import Floats, Ints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resight.features.store import Features

SIDE = 320  # pixels of a photo's longer side
PAGE_BYTES = 5_500_000  # for all photos of a page


@dataclass(frozen=True)
class Asked:
    """What a page asks: `queries` of the `differ` photos, `pairs` of photos to look at.

    photos: all that were compared; copies: near-duplicates that were left out of them. page: None
    where the two never differ, so that there is nothing to ask.
    """

    page: Path | None
    photos: int
    copies: int
    differ: int
    queries: int
    pairs: int


def ask(
    a: Features | NDArray[np.floating[Any]],
    b: Features | NDArray[np.floating[Any]],
    out: str | Path,
    *,
    images: ImageSet | None = None,
    names: tuple[str, str] = ("A", "B"),
    pairs: int = 40,
    seed: int = 0,
    bar: Bar = lambda what: lambda done, total: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Asked:
    """Write a page that asks which photos show the same thing, where two embedders differ.

    a, b: features (N, D) of the same images, those of `images` (default: their own). Each photo
    that is drawn has two pairs: with the nearest other photo under A, and under B; `pairs` is how
    many there are in all. Nothing on the page shows whose a pair is. What it saves,
    `compare_answers` reads. The same input and seed give the same page. `tell` gets a line about
    each thing that was left out.

    Raises UserError: features of other images, or lengths differ; pairs below 2.
    """
    if pairs < 2:
        raise UserError(f"pairs = {pairs}: at least 2, as each photo that is asked about has two")
    images, valid = _same_rows(a, b, images)
    if seed < 0:
        raise UserError(f"seed {seed}: must not be negative")
    found = differing(a, b, images, valid, bar)
    if found.copies:
        tell(f"{found.copies:,} near-duplicates of other photos left out")
    if not len(found.rows):
        return Asked(None, found.photos, found.copies, 0, 0, 0)
    random = np.random.default_rng(seed)
    useful = found.useful()
    probability = inclusion(useful, max(1, pairs // 2))
    drawn = random.permutation(systematic(probability, useful, random))
    questions = _questions(found, drawn, probability[drawn], random)
    shown = _design(questions, found, images, names, seed)
    _write(Path(out), shown, questions.pairs, images)
    return Asked(
        Path(out), found.photos, found.copies, len(found.rows), len(drawn), len(questions.pairs)
    )


def _same_rows(a: Any, b: Any, images: ImageSet | None) -> tuple[ImageSet, NDArray[np.bool_]]:
    """The images of both, and which of them both can use."""
    for one in (a, b):
        own = getattr(one, "images", None)
        if own is not None and images is not None:
            require_same(own, images, own.source or "features")
        images = images if images is not None else own
    if images is None:
        raise UserError("ask: images are missing, the image set of the features' rows")
    valid = np.ones(len(images), bool)
    for one in (a, b):
        if len(one) != len(images):
            raise UserError(
                f"features of {len(one):,} images, but {images.source} has {len(images):,}"
            )
        valid &= np.asarray(getattr(one, "valid", True), bool)
        for start in range(0, len(one), 8192):
            part = np.asarray(one[start : start + 8192])
            valid[start : start + 8192] &= np.isfinite(part).all(axis=1)
    return images, valid


@dataclass(frozen=True)
class _Questions:
    """Pairs of rows in the order in which they are asked, and for each photo drawn its two."""

    pairs: list[tuple[int, int]]
    queries: list[dict[str, Any]]


def _questions(
    found: Differing, drawn: Ints, probability: Floats, random: np.random.Generator
) -> _Questions:
    """The two pairs of a photo follow each other, whose first is left to chance.

    So one who stops half-way has answered whole photos, drawn at random. A pair that two photos
    share, each being the other's nearest, is asked once.
    """
    pairs: list[tuple[int, int]] = []
    places: dict[tuple[int, int], int] = {}
    queries = []
    for at, p in zip(drawn.tolist(), probability.tolist(), strict=True):
        row = int(found.rows[at])
        entry: dict[str, Any] = {"row": row, "probability": p}
        for side in random.permutation(2).tolist():
            other = int((found.a, found.b)[side][at])
            key = (min(row, other), max(row, other))
            if key not in places:
                places[key] = len(pairs)
                pairs.append((row, other))
            entry["ab"[side]] = places[key]
        queries.append(entry)
    return _Questions(pairs, queries)


def _design(
    questions: _Questions, found: Differing, images: ImageSet, names: tuple[str, str], seed: int
) -> dict[str, Any]:
    """All that the estimate needs, as it goes through the page into the file of answers."""
    paths = images.table["path"]
    design: dict[str, Any] = {
        "a": names[0],
        "b": names[1],
        "photos": found.photos,
        "differ": len(found.rows),
        "seed": seed,
        "queries": [
            {"photo": paths[one["row"]], "probability": one["probability"]}
            | {side: one[side] for side in "ab"}
            for one in questions.queries
        ],
        "pairs": [[paths[left], paths[right]] for left, right in questions.pairs],
    }
    text = json.dumps(design, sort_keys=True)
    return {"id": hashlib.sha256(text.encode()).hexdigest()[:16]} | design


def _write(
    out: Path, design: dict[str, Any], pairs: list[tuple[int, int]], images: ImageSet
) -> None:
    """The page, with each photo in it once."""
    rows = sorted({row for pair in pairs for row in pair})
    load = open_thumbnails(images, SIDE)
    budget = PAGE_BYTES // max(len(rows), 1)
    content = {
        "design": design,
        "photos": [within(load(row), SIDE, budget) for row in rows],
        "shown": [[rows.index(row) for row in pair] for pair in pairs],
    }
    write_page(
        out, "ask.html.j2", package="resight.evaluate.asking",
        content=content, names=[design["a"], design["b"]], total=len(pairs),
    )  # fmt: skip
