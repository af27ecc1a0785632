"""Near-duplicates of a collection: found once, the first of each group is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.features.store import Features
from resight.files import atomic_open
from resight.graph.pool import build_pool
from resight.mining.twins import representatives, tell_twins, twins
from resight.train.prepare import Tell
from resight.train.recipes.unlabelled import PoolSettings

COPIES = "copies.npy"  # in the run's folder: for each image the first of its near-duplicates
_AMONG = 20  # nearest neighbours that are looked at as near-duplicates


def usable_firsts(
    features: Features, images: ImageSet, settings: PoolSettings, run: Path, tell: Tell
) -> NDArray[np.bool_]:
    """(N,) bool: which images are usable and no near-duplicate of an earlier one.

    Proposed by the features that it is first called with, then read from the run's folder.
    """
    valid = np.array(features.valid, bool)
    if not settings.leave_out_copies or valid.sum() < 2:
        return valid
    path = run / COPIES
    if not path.is_file():
        near = build_pool(features, k=_AMONG, method=settings.method, valid=valid)
        pairs = twins(near, images, settings.copies_from)
        if len(pairs):
            tell(f"{tell_twins(pairs, images)}; the first of each group is trained on")
        with atomic_open(path) as file:
            np.save(file, representatives(pairs, len(images)), allow_pickle=False)
    firsts: NDArray[np.bool_] = np.load(path, allow_pickle=False) == np.arange(len(valid))
    return valid & firsts
