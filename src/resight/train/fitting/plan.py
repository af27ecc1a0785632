"""Which images a closed form is fitted to, and which choose among several."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.data.splits import Parts, training_parts
from resight.errors import UserError
from resight.evaluate.records.job import as_trained
from resight.models.embedder import Embedder

VAL_SHARE = 0.2  # of the training objects, held out while candidates are compared


@dataclass(frozen=True)
class Plan:
    """Which rows of a set serve for what: (N,) bool each; `images` are the N that aren't test.

    `rows`: where they stand in the set; `fit`: what sums are made of; `val`: what chooses, none
    without labels; `objects`: (N,) int. `fingerprint`: of the whole set, with its splits.
    """

    images: ImageSet
    rows: list[int]
    fingerprint: str
    fit: NDArray[np.bool_]
    val: NDArray[np.bool_]
    objects: NDArray[np.int64]
    cameras: NDArray[np.int64] | None
    labelled: bool
    notes: tuple[str, ...] = ()


def plan_rows(
    embedder: Embedder,
    images: ImageSet,
    *,
    unlabelled: bool = False,
    val_share: float = VAL_SHARE,
    seed: int = 0,
) -> Plan:
    """Test rows out; with labels some training objects hold out.

    A set without splits is split as `train` does it where labels are used, or where the embedder
    was trained on it. Raises UserError when no row is left.
    """
    counts = images.table["object"].drop_nulls().value_counts()["count"]
    if unlabelled or int((counts > 1).sum()) < 2:
        notes: list[str] = []
        return _plan(as_trained(embedder, images, notes.append), (), False, tuple(notes))
    try:
        parts = training_parts(images, val_share=val_share, seed=seed)
    except UserError as reason:
        return _plan(images, (), False, (f"{reason}; so labels are not used",))
    return plan_of(parts)


def plan_of(parts: Parts) -> Plan:
    """The same parts as a training on them has."""
    return _plan(parts.images, parts.val.objects(), True, parts.notes)


def _plan(
    images: ImageSet, held_out: Collection[str], labelled: bool, notes: tuple[str, ...]
) -> Plan:
    split = images.table["split"]
    rows = (split.is_null() | (split != "test").fill_null(False)).arg_true().to_list()
    if not rows:
        raise UserError(
            f"{images.source}: all its rows are test rows; nothing is fitted to what it is "
            "measured on: give another set"
        )
    used = images.rows(rows)
    names, chosen = used.table["object"], set(held_out)
    codes = {name: k for k, name in enumerate(used.objects())} if labelled else {}
    objects = np.array([codes.get(name, -1) for name in names], np.int64)
    val = np.array([name in chosen for name in names], bool)
    cameras = None
    if not used.table["camera"].null_count():
        cameras = np.unique(used.table["camera"].to_numpy(), return_inverse=True)[1]
    left = f" of {len(images):,}; no test image is used" if len(used) < len(images) else ""
    return Plan(
        images=used,
        rows=rows,
        fingerprint=images.fingerprint(),
        fit=~val,
        val=val,
        objects=objects,
        cameras=cameras,
        labelled=labelled,
        notes=(*notes, f"fitted to {len(used):,} images{left}"),
    )
