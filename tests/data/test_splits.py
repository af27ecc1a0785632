"""Splits: whole objects, always the same ones, whatever else comes or goes."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.data.imageset import ImageSet, normalise
from resight.data.splits import hold_out_test, pick_objects, training_parts
from resight.errors import UserError

names = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=40, unique=True)
shares = st.floats(0, 1)


def image_set(objects: list[str | None], splits: list[str | None] | None = None) -> ImageSet:
    columns = {"path": [f"{n}.png" for n in range(len(objects))], "object": objects}
    table = pl.DataFrame(columns | {"split": splits or [None] * len(objects)})
    return ImageSet(normalise(table), Path("set"), "set")


def several(counts: dict[str, int]) -> list[str | None]:
    return [name for name, count in counts.items() for _ in range(count)]


@settings(max_examples=100, deadline=None)
@given(objects=names, share=shares, seed=st.integers(0, 5), least=st.integers(1, 3), data=st.data())
def test_a_share_of_the_objects(objects, share, seed, least, data):
    chosen = pick_objects(objects, share, seed, at_least=least)
    assert chosen <= set(objects)
    assert len(chosen) == min(len(objects), max(least, round(share * len(objects))))
    shuffled = data.draw(st.permutations(objects))
    assert pick_objects(shuffled, share, seed, at_least=least) == chosen


@settings(max_examples=100, deadline=None)
@given(objects=names, share=shares, new=st.text(min_size=5, max_size=6))
def test_a_new_object_moves_at_most_one_other(objects, share, new):
    before = pick_objects(objects, share, 0)
    after = pick_objects([*objects, new], share, 0)
    assert len((before ^ after) - {new}) <= 1


def test_another_seed_picks_others():
    objects = [str(number) for number in range(100)]
    picks = [pick_objects(objects, 0.3, seed) for seed in range(5)]
    assert all(len(pick) == 30 for pick in picks)
    assert len({frozenset(pick) for pick in picks}) == 5


def test_hold_out_test():
    objects: list[str | None] = [str(number // 2) for number in range(40)]
    table = hold_out_test(image_set([*objects, None])).table
    by_object = dict(table.drop_nulls("object").group_by("object").agg(pl.col("split")).iter_rows())
    assert all(len(set(splits)) == 1 for splits in by_object.values())
    assert sorted(splits[0] for splits in by_object.values()) == ["test"] * 6 + ["train"] * 14
    assert table["split"][-1] is None
    again = hold_out_test(image_set([*objects, None])).table
    assert again.equals(table)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 4), max_size=15),
    unknown=st.integers(0, 3),
    given_splits=st.booleans(),
    val_share=st.floats(0, 0.9),
    seed=st.integers(0, 3),
    data=st.data(),
)
def test_parts_share_no_object(counts, unknown, given_splits, val_share, seed, data):
    objects = several(counts) + [None] * unknown
    splits = None
    if given_splits and objects:
        split = {name: data.draw(st.sampled_from(["train", "val", "test"])) for name in counts}
        splits = [split.get(name, "train") for name in objects]
    images = image_set(objects, splits)
    try:
        parts = training_parts(images, val_share=val_share, seed=seed)
    except UserError as error:
        assert str(error).startswith("set: ")
        return
    train, val = set(parts.train.objects()), set(parts.val.objects())
    split = dict(parts.images.table.select("path", "split").iter_rows())
    test = set(parts.images.where(pl.col("split") == "test").objects())
    assert not train & val and not (train | val) & test
    assert len(train) >= 2 and not parts.train.table["object"].null_count()
    assert parts.train.table["object"].value_counts()["count"].max() >= 2
    if val:  # it can be ranked
        assert len(val) >= 2 and any(counts[name] >= 2 for name in val)
    rows = set(parts.train.table["path"]) | set(parts.val.table["path"])
    assert not any(split[path] == "test" for path in rows)
    # No row with a known object gets lost, but val rows that can't be ranked.
    known = parts.images.table.drop_nulls("object")
    if splits is None:
        assert rows == set(known.filter(pl.col("split") != "test")["path"])
    again = training_parts(images, val_share=val_share, seed=seed)
    assert again.train.table.equals(parts.train.table) and again.val.table.equals(parts.val.table)


def test_given_val_rows_are_used_as_they_are():
    images = image_set(list("aabbccddee"), ["train"] * 4 + ["val"] * 4 + ["test"] * 2)
    parts = training_parts(images, val_share=0.5, seed=0)
    assert parts.train.objects() == ["a", "b"] and parts.val.objects() == ["c", "d"]
    assert parts.notes == ()


def test_without_usable_val_rows_training_objects_are_held_out():
    objects = [str(number // 2) for number in range(40)]
    images = image_set([*objects, "v"], ["train"] * 40 + ["val"])
    parts = training_parts(images, val_share=0.1, seed=0)
    assert (len(parts.train.objects()), len(parts.val.objects())) == (18, 2)
    assert parts.notes == ("2 training objects held out to choose the best checkpoint",)
    other = training_parts(images, val_share=0.1, seed=1)
    assert other.val.objects() != parts.val.objects()


def test_only_objects_with_a_pair_validate():
    counts = {f"single {n}": 1 for n in range(50)} | {f"pair {n}": 2 for n in range(6)}
    objects = several(counts)
    parts = training_parts(image_set(objects, ["train"] * len(objects)), val_share=0.1, seed=0)
    assert len(parts.val.objects()) == 2
    assert all(name.startswith("pair") for name in parts.val.objects())


def test_too_few_to_hold_any_out():
    parts = training_parts(image_set(list("aabbcc"), ["train"] * 6), val_share=0.5, seed=0)
    assert len(parts.train) == 6 and len(parts.val) == 0
    assert parts.notes == ("too few training objects to hold some out for validation",)


@pytest.mark.parametrize(
    ("objects", "splits", "message"),
    [
        ([None, None], None, "no labels; training needs an object for each image"),
        (["a", "a"], None, "0 object.s. to train on; at least 2"),
        (["a", "a"], ["train", "train"], "1 object.s. to train on"),
        (["a", "a", "b", "b"], ["test"] * 4, "0 object.s. to train on"),
        (list("abcdefgh"), ["train"] * 8, "no training object has two images"),
        (list("abcdefgh"), None, "no training object has two images"),
    ],
)
def test_sets_that_can_not_train(objects, splits, message):
    with pytest.raises(UserError, match=message):
        training_parts(image_set(objects, splits), val_share=0.1, seed=0)
