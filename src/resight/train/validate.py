"""Scores on held-out objects, by which the best checkpoint is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.evaluate.protocols import Level
from resight.evaluate.scores import evaluate
from resight.features.collapsed import NOTE
from resight.features.compute import EmbedOptions, embed_rows
from resight.models.embedder import Embedder

COLLAPSED = "collapsed"


@dataclass(frozen=True)
class Validation:
    """Rows of held-out objects, how often they are looked at, and what decides."""

    images: ImageSet
    every: int = 1
    select_by: str = "mAP"
    workers: int | None = None

    def run(self, embedder: Embedder) -> dict[str, float]:
        """mAP and R@1 at image and object level, as fractions; "collapsed" 1.0 where they are.

        Raises UserError when none of the images can be read.
        """
        training = embedder.training
        # A fixed batch: its size must not change the last digits from one run to the next.
        options = EmbedOptions(batch_size=64, workers=self.workers)
        vectors, _ = embed_rows(embedder, self.images, options=options)
        embedder.train(training)
        return held_out_scores(vectors, self.images)


def held_out_scores(vectors: NDArray[np.float32], images: ImageSet) -> dict[str, float]:
    """mAP and R@1 of vectors (N, D) at image and object level, as fractions, "collapsed" 1.0 where
    they are; NaN rows drop out.

    Raises UserError when no row can be used.
    """
    valid: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
    if not valid.any():
        raise UserError(f"{images.source}: none of the validation images can be used")
    # The rows' split (train or val) would keep them out of an evaluation.
    unsplit = images.table.with_columns(pl.lit(None, pl.String()).alias("split"))
    images = replace(images, table=unsplit)
    scores = {}
    levels: tuple[tuple[Level, str], ...] = (("image", ""), ("object", "object_"))
    for level, prefix in levels:
        found = evaluate(vectors, images, level=level, valid=valid)
        scores[f"{prefix}mAP"] = found.mAP
        scores[f"{prefix}R@1"] = found.recall(1)
        if found.collapsed:
            scores[COLLAPSED] = 1.0
    return scores


def in_words(scores: Mapping[str, float]) -> str:
    """Scores as one line of text, with a warning where the features have collapsed."""
    shown = [f"{name} {100 * value:.1f}" for name, value in scores.items() if name != COLLAPSED]
    return ", ".join([*shown, *[NOTE] * (COLLAPSED in scores)])
