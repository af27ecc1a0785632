"""Which rows a fit may see: never test rows, and none of those that choose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from resight.data.imageset import ImageSet
from resight.data.sources import load_images
from resight.data.splits import hold_out_test, training_parts
from resight.errors import UserError
from resight.train.fitting.plan import Plan, plan_of, plan_rows


@pytest.fixture(scope="module")
def images(shapes: Path) -> ImageSet:
    return load_images(shapes)


def changed(images: ImageSet, **columns: list) -> ImageSet:
    made = [pl.Series(name, values, pl.String) for name, values in columns.items()]
    return replace(images, table=images.table.with_columns(made))


def split(images: ImageSet, test: int, val: int = 0) -> ImageSet:
    """The last `test` objects are test, the `val` before them val."""
    names = images.objects()
    kind = dict.fromkeys(names, "train") | dict.fromkeys(names[-test:], "test")
    kind |= dict.fromkeys(names[-test - val : -test], "val")
    return changed(images, split=[kind[name] for name in images.table["object"]])


def sound(plan: Plan, images: ImageSet) -> None:
    """What holds of every plan."""
    assert (plan.fit ^ plan.val).all() and plan.fit.any()
    assert len(plan.images) == len(plan.rows) == len(plan.objects) == len(plan.fit)
    paths = images.table["path"][plan.rows].to_list()
    assert plan.images.table["path"].to_list() == paths
    assert "test" not in plan.images.table["split"].to_list()
    assert not set(plan.objects[plan.fit & (plan.objects >= 0)]) & set(plan.objects[plan.val])
    if plan.labelled:
        names = np.array([name or "" for name in plan.images.table["object"]])
        for code in set(plan.objects.tolist()):
            assert len(set(names[plan.objects == code])) == 1
        assert (names[plan.objects < 0] == "").all() and plan.val.any() == (plan.val.sum() > 0)
    else:
        assert (plan.objects == -1).all() and not plan.val.any()


def test_an_unsplit_set_is_split_as_training_splits_it(embedder, images):
    plan = plan_rows(embedder, images, seed=3)
    sound(plan, images)
    parts = training_parts(images, val_share=0.2, seed=3)
    assert plan.labelled and len(plan.images) == 40
    assert set(plan.images.rows(np.flatnonzero(plan.val).tolist()).objects()) == set(
        parts.val.objects()
    )
    assert set(plan.images.rows(np.flatnonzero(plan.fit).tolist()).objects()) == set(
        parts.train.objects()
    )
    assert plan.fingerprint == hold_out_test(images).fingerprint()
    assert plan.notes[-1] == "fitted to 40 images of 60; no test image is used"
    same = plan_of(parts)
    assert same.rows == plan.rows and (same.val == plan.val).all() and same.notes == plan.notes
    other = plan_rows(embedder, images, seed=4)
    assert other.rows == plan.rows  # the seed chooses the objects held out, not the test


@pytest.mark.parametrize("val", [0, 2])
def test_a_set_with_splits_keeps_them(embedder, images, val):
    given = split(images, test=3, val=val)
    plan = plan_rows(embedder, given)
    sound(plan, given)
    assert plan.labelled and len(plan.images) == 45 and plan.val.sum() == 10
    if val:
        names = set(plan.images.rows(np.flatnonzero(plan.val).tolist()).objects())
        assert names == set(images.objects()[7:9])
    bare = plan_rows(embedder, given, unlabelled=True)
    sound(bare, given)
    assert not bare.labelled and bare.rows == plan.rows
    assert plan.fingerprint == bare.fingerprint == given.fingerprint()


def test_rows_without_split_or_object_are_fitted_to_and_choose_nothing(embedder, images):
    given = split(images, test=3)
    splits, objects = given.table["split"].to_list(), given.table["object"].to_list()
    splits[0], objects[1] = None, None
    given = changed(given, split=splits, object=objects)
    plan = plan_rows(embedder, given)
    sound(plan, given)
    assert plan.rows[:2] == [0, 1] and plan.fit[1] and plan.objects[1] == -1
    assert plan.objects[0] == plan.objects[2]


def test_without_labels_a_set_is_taken_whole_unless_it_was_trained_on(embedder, images):
    plan = plan_rows(embedder, images, unlabelled=True)
    sound(plan, images)
    assert len(plan.images) == 60 and plan.notes == ("fitted to 60 images",)
    for part in ("data", "fit"):
        trained = type("Known", (), {"info": {part: {"fingerprint": plan_of_set(images)}}})()
        again = plan_rows(trained, images, unlabelled=True)
        sound(again, hold_out_test(images))
        assert len(again.images) == 40 and again.fingerprint == plan_of_set(images)


def plan_of_set(images: ImageSet) -> str:
    return hold_out_test(images).fingerprint()


def test_too_few_labels_count_for_none(embedder, images):
    """One object with several images says nothing of what differs between objects."""
    names = ["a"] * 5 + [None] * 55
    singles = [str(k) for k in range(60)]
    for objects in (names, singles, ["a", "a", *singles[2:]]):
        given = changed(images, object=objects)
        plan = plan_rows(embedder, given)
        sound(plan, given)
        assert not plan.labelled and len(plan.images) == 60
    pairs = changed(images, object=["a", "a", "b", "b"] + [None] * 56)
    plan = plan_rows(embedder, pairs)  # both would be test
    sound(plan, pairs)
    assert not plan.labelled and "so labels are not used" in plan.notes[0]


def test_few_objects_are_all_fitted_to(embedder, images):
    """Two train: none can be held out, and nothing chooses."""
    given = split(images, test=10)
    plan = plan_rows(embedder, given)
    sound(plan, given)
    assert plan.labelled and plan.fit.all() and len(plan.images) == 10


def test_only_test_rows_are_refused(embedder, images):
    given = changed(images, split=["test"] * 60)
    for unlabelled in (False, True):
        with pytest.raises(UserError, match="all its rows are test rows; nothing is fitted"):
            plan_rows(embedder, given, unlabelled=unlabelled)


def test_cameras_count_where_every_row_has_one(embedder, images):
    names = [f"c{k % 3}" for k in range(60)]
    plan = plan_rows(embedder, changed(images, camera=names))
    assert plan.cameras is not None
    assert [f"c{code}" for code in plan.cameras] == plan.images.table["camera"].to_list()
    assert plan_rows(embedder, changed(images, camera=[*names[:-1], None])) is not None
    gap = plan_rows(embedder, changed(images, camera=[None, *names[1:]]), unlabelled=True)
    assert gap.cameras is None and plan_rows(embedder, images).cameras is None
