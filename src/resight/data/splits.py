"""Which objects train, which validate, which test: always whole objects, by a fixed rule."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import polars as pl

from resight.data.denied import denied
from resight.data.imageset import ImageSet
from resight.errors import UserError

TEST_SHARE = 0.3


@dataclass(frozen=True)
class Parts:
    """`train` and `val` rows of `images`, disjoint in objects; `images` has every row's split."""

    images: ImageSet
    train: ImageSet
    val: ImageSet
    notes: tuple[str, ...]


def pick_objects(objects: Iterable[str], share: float, seed: int, *, at_least: int = 1) -> set[str]:
    """A share of the objects, chosen by hash: other objects coming or going moves few of them."""
    ranked = sorted(objects, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
    return set(ranked[: max(at_least, round(share * len(ranked)))])


def hold_out_test(images: ImageSet, seed: int = 0) -> ImageSet:
    """For a set without splits: 30 % of the objects become test, the others train."""
    chosen = pick_objects(images.objects(), TEST_SHARE, seed, at_least=2)
    split = (
        pl.when(pl.col("object").is_null())
        .then(None)
        .when(pl.col("object").is_in(sorted(chosen)))
        .then(pl.lit("test"))
        .otherwise(pl.lit("train"))
    )
    return replace(images, table=images.table.with_columns(split.alias("split")))


def training_parts(images: ImageSet, *, val_share: float, seed: int) -> Parts:
    """Split an image set for training with labels.

    The set's own train and val rows, if it has any; a set without splits first gives 30 % of its
    objects to test. Without usable val rows, a `val_share` of the training objects is held out.
    The test rows are in neither part, and no row is trained as an object that it denies
    (`data.denied`).

    Raises UserError when fewer than two objects are left to train on, or none has two images.
    """
    notes = []
    wrong = denied(images.table)
    if wrong.any():
        notes.append(f"{int(wrong.sum())} images left out: their not_object denies their object")
        known = pl.when(~wrong).then(pl.col("object"))
        images = replace(images, table=images.table.with_columns(known.alias("object")))
    if not images.objects():
        raise UserError(
            f"{images.source}: no labels; training needs an object for each image "
            "(a sub-folder an object, or a column 'object')"
        )
    if not images.has("split"):
        images = hold_out_test(images, 0)
        test = images.table.filter(pl.col("split") == "test")["object"].n_unique()
        notes.append(f"no splits given: {test} of {len(images.objects())} objects held out as test")
    train = images.where((pl.col("split") == "train") & pl.col("object").is_not_null())
    val = images.where((pl.col("split") == "val") & pl.col("object").is_not_null())
    if not _can_rank(val):
        # An object with one image has no match: it can't validate, but it can train.
        pairs = train.where(pl.len().over("object") > 1).objects()
        chosen = pick_objects(pairs, val_share, seed, at_least=2)
        if len(train.objects()) - len(chosen) < 2 or len(chosen) == len(pairs):
            chosen = set()
        held = pl.col("object").is_in(sorted(chosen))
        train, val = train.where(~held), train.where(held)
        notes.append(
            f"{len(chosen)} training objects held out to choose the best checkpoint"
            if chosen
            else "too few training objects to hold some out for validation"
        )
    if len(train.objects()) < 2:
        raise UserError(
            f"{images.source}: {len(train.objects())} object(s) to train on; at least 2 are needed"
        )
    if train.table["object"].value_counts()["count"].max() < 2:  # type: ignore[operator]
        raise UserError(
            f"{images.source}: no training object has two images; nothing to learn from"
        )
    return Parts(images, train, val, tuple(notes))


def _can_rank(val: ImageSet) -> bool:
    counts = val.table["object"].value_counts()["count"]
    return len(counts) >= 2 and bool((counts >= 2).any())
