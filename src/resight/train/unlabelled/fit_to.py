"""What the settings leave open, from the size of the collection."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.graph.across import MOST
from resight.graph.pool import Pool
from resight.mining.calibrate import pool_levels
from resight.train.prepare import Tell
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.recipes.unlabelled import UnlabelledSettings

Kind = TypeVar("Kind", bound=UnlabelledSettings)
LEAST = 8  # images; with fewer there is no neighbour that means anything
FEWEST_STEPS, _MOST_STEPS = 8, 5000  # of an epoch


def unlabelled_rows(settings: UnlabelledSettings, images: ImageSet, tell: Tell) -> ImageSet:
    """The images to train on: of a set with splits those that are not for testing, else all.

    Raises UserError when they are too few.
    """
    chosen = images
    if settings.part == "gallery":
        chosen = images.where(pl.col("role").is_null() | (pl.col("role") != "query"))
        tell("training on the gallery, without its labels; the queries are left out")
    elif images.has("split"):
        chosen = images.where(pl.col("split").is_null() | (pl.col("split") != "test"))
        tell(f"{len(images) - len(chosen):,} test images are left out of training")
    if settings.only_objects_with is not None and chosen.objects():
        chosen = chosen.where(pl.len().over("object") >= settings.only_objects_with)
        tell(f"{len(chosen):,} images of objects with {settings.only_objects_with} or more")
    if len(chosen) < LEAST:
        raise UserError(
            f"{images.source}: {len(chosen)} images to train on; without labels at least {LEAST} "
            "are needed, and some hundred to gain much"
        )
    if settings.oracle:
        if not chosen.objects():
            raise UserError(f"{images.source}: no labels, which --set oracle=true asks for")
        tell("oracle: the labels say who is who, as perfect mining would")
    elif chosen.objects():
        tell("labels are not used for training; what is mined is checked against them")
    # The splits have done their work: from here on every row is one to train on.
    unsplit = chosen.table.with_columns(pl.lit(None, pl.String()).alias("split"))
    return replace(chosen, table=unsplit)


def source_column(images: ImageSet, name: str) -> pl.Series:
    """The values (strings, "" where there is none) that say where each image is from.

    Raises UserError: no such column, or not from 2 to 10 different values.
    """
    if name not in images.table.columns:
        raise UserError(
            f"--sources {name}: {images.source} has no such column; there are: "
            f"{', '.join(images.table.columns)}"
        )
    if images.table[name].dtype.is_nested():
        raise UserError(f"--sources {name}: a value of this column is no single name")
    column = images.table[name].cast(pl.String).fill_null("")
    values = column.n_unique()
    if not 2 <= values <= MOST:
        raise UserError(
            f"--sources {name}: {values:,} different values; 2 to {MOST} can be told apart"
        )
    return column


def check_different(images: ImageSet, valid: NDArray[np.bool_], firsts: NDArray[np.bool_]) -> None:
    """Raises UserError when too few images (N,) can be decoded, or too few of those differ."""
    usable, different = int(valid.sum()), int(firsts.sum())
    if different < LEAST:
        found = f"only {usable:,} of {len(images):,} images can be used"
        if different < usable:
            found = (
                f"of {usable:,} images all but {different:,} are near-duplicates of others "
                "(pool.leave_out_copies)"
            )
        raise UserError(f"{images.source}: {found}; without labels at least {LEAST} are needed")


def whitened_dims(settings: UnlabelledSettings, count: int, features: int) -> int | None:
    """Dimensions of the whitening: as set, or 128, fewer for few images; None for none.

    Raises UserError when more are asked for than there are.
    """
    if settings.whiten is None:
        return None
    if settings.whiten == "auto":
        return min(128, features, max(8, count // 8), count - 1)
    if settings.whiten > min(features, count - 1):
        raise UserError(
            f"--set whiten={settings.whiten}: {count:,} images of {features} features allow at "
            f"most {min(features, count - 1)} dimensions"
        )
    return settings.whiten


def fitted(settings: Kind, count: int) -> Kind:
    """The settings of a stage with what a collection of `count` different images asks for.

    A tenth of them as candidates, at most the paper's 500; 16 tuples a batch, but no more than
    an eighth of the images; an epoch that draws about as many pictures as there are.
    """
    size = settings.neighbours + settings.views
    tuples = settings.tuples or max(2, min(16, count // (2 * size)))
    steps = settings.steps or round(count / (tuples * size))
    if settings.steps is None:
        steps = min(_MOST_STEPS, max(FEWEST_STEPS, steps))
    neighbours = settings.pool.neighbours or min(500, max(10, count // 10))
    pool = settings.pool.model_copy(update={"neighbours": min(neighbours, count - 1)})
    return settings.model_copy(update={"tuples": tuples, "steps": steps, "pool": pool})


def calibrated(settings: InsCLRSettings, pool: Pool, rows: NDArray[np.int64]) -> InsCLRSettings:
    """The settings with thresholds on similarity that fit this pool, where `calibrate` asks for it.

    With c = `calibrate`: selection keeps at c neighbours an image, positives start at c / 2,
    candidates at 8 c, and scores count from 2 c. Where selection compares what the model sees now
    (`similarity`), its levels follow the model from epoch to epoch.
    """
    c, spatial = settings.calibrate, settings.spatial
    if c is None:
        return settings
    weight, cap = (spatial.weight, spatial.cap) if spatial else (0.0, 1)
    counts = (c, 2 * c, c / 2, 8 * c)
    keep, count, sure, open_ = pool_levels(pool, rows, counts, weight, cap)
    select, mining = settings.select, settings.mining
    if select is not None:
        select = select.model_copy(update={"threshold": keep, "floor": count})
    if mining is not None:
        rule = mining.rule.model_copy(update={"threshold": keep, "floor": count})
        changes = {"initial_at": sure, "candidate_at": open_, "rule": rule}
        mining = mining.model_copy(update=changes)
    return settings.model_copy(update={"select": select, "mining": mining})
