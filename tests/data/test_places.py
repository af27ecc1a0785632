"""Photos and tables moved together find each other; tables of other pictures are told apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from tests.pictures import save

from resight.data.imageset import ImageSet, normalise
from resight.data.places import difference, place_of, with_moved
from resight.data.sources import load_images
from resight.errors import UserError


def image_set(root: Path, paths: list[str], **columns: list[object]) -> ImageSet:
    return ImageSet(normalise(pl.DataFrame({"path": paths, **columns})), root, str(root))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Photos, and our table of them in a folder beside."""
    for name in ("a/0.png", "a/1.png", "b/0.png"):
        save(tmp_path / "one" / "photos" / name)
    images = load_images(tmp_path / "one" / "photos")
    (tmp_path / "one" / "runs").mkdir()
    images.write(tmp_path / "one" / "runs" / "images.parquet")
    return tmp_path / "one"


def test_moved_together_they_are_found(project, tmp_path):
    before = load_images(project / "runs" / "images.parquet")
    assert before.missing() == [] and place_of(project / "runs" / "images.parquet")
    fingerprint = before.fingerprint()
    moved = project.rename(tmp_path / "deep")
    found = load_images(moved / "runs" / "images.parquet")
    assert found.missing() == []
    assert found.full_paths() == [moved / p.relative_to(project) for p in before.full_paths()]
    assert found.fingerprint() == fingerprint and difference(found, before) == ""
    # Written again from there, and moved once more, below itself.
    found.write(moved / "runs" / "images.parquet")
    further = tmp_path / "x" / "y"
    further.parent.mkdir()
    shutil.move(moved, further)
    assert load_images(further / "runs" / "images.parquet").missing() == []


def test_a_copy_keeps_to_the_photos_as_written(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    found = load_images(tmp_path / "copy" / "runs" / "images.parquet")
    assert all(path.is_relative_to(project) for path in found.full_paths())
    shutil.rmtree(project / "photos" / "a")  # what is gone is taken from the copy
    found = load_images(tmp_path / "copy" / "runs" / "images.parquet")
    assert found.missing() == []
    homes = [path.is_relative_to(project) for path in found.full_paths()]
    assert homes == [False, False, True]


def test_only_the_table_was_moved(project, tmp_path):
    shutil.move(project / "runs", tmp_path / "elsewhere")
    assert load_images(tmp_path / "elsewhere" / "images.parquet").missing() == []


def test_only_the_photos_were_moved(project, tmp_path):
    shutil.move(project / "photos", tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match=r"moved or deleted since: put them back, or give the images as"
    ):
        load_images(project / "runs" / "images.parquet")


def test_tables_of_others_are_left_as_they_are(project, tmp_path):
    table = pl.DataFrame({"path": ["/gone/a.png", None]})
    table.write_parquet(tmp_path / "theirs.parquet")
    assert place_of(tmp_path / "theirs.parquet") == ""
    assert with_moved(table, tmp_path / "theirs.parquet").equals(table)


def test_the_same_pictures_wherever_they_lie():
    paths = ["a/0.png", "a/1.png", "b/0.png"]
    one, two = image_set(Path("/here"), paths), image_set(Path("/there/x"), paths)
    assert difference(one, two) == difference(two, one) == ""
    assert difference(one, image_set(Path("/"), [f"/here/{p}" for p in paths])) == ""
    assert difference(one, image_set(Path("/here/c/.."), paths)) == ""
    labelled = image_set(Path("/there"), paths, object=["x", "y", "z"])
    assert difference(one, labelled) == ""
    alone = image_set(Path("/a"), ["x.png"])
    assert difference(alone, image_set(Path("/b"), ["x.png"])) == ""


def test_other_pictures_another_order_another_box():
    paths = ["a/0.png", "a/1.png", "b/0.png"]
    one = image_set(Path("/here"), paths)
    swapped = image_set(Path("/here"), ["a/0.png", "b/0.png", "a/1.png"])
    assert difference(one, swapped) == "row 1 is of b/0.png, not of a/1.png"
    assert "of 2 images, not of 3" in difference(one, image_set(Path("/here"), paths[:2]))
    # The names are the same, the folders are not.
    other = image_set(Path("/here"), ["a/0.png", "a/1.png", "c/0.png"])
    assert difference(one, other) == "row 2 is of c/0.png, not of b/0.png"
    box = [[0.0, 0, 1, 1], None, None]
    boxed = image_set(Path("/there"), paths, box=box)
    assert difference(one, boxed) == "row 0 is of another box of a/0.png"
