"""iNaturalist 2018 with the lists of Smooth-AP, read from a miniature."""

from __future__ import annotations

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate

TRAIN = "train_val2018/Aves/2761/0a.jpg\ntrain_val2018/Plantae/7477/1b.jpg\n"
TEST = "".join(
    f"train_val2018/{name}.jpg\n" for name in ("Aves/3/2c", "Aves/3/3d", "Fungi/9/4e", "Fungi/9/5f")
)


@pytest.fixture
def inat(tmp_path):
    lists = tmp_path / "Inat_dataset_splits"
    lists.mkdir()
    (lists / "Inaturalist_train_set1.txt").write_text(TRAIN)
    (lists / "Inaturalist_test_set1.txt").write_text(TEST)
    save(tmp_path / "train_val2018" / "Aves" / "3" / "2c.jpg")
    return tmp_path


def test_every_row(inat):
    images = load_images(inat)
    assert images.layout == "inat2018"
    assert images.table.select("path", "object", "split", "role", "category").rows() == [
        ("train_val2018/Aves/2761/0a.jpg", "2761", "train", None, "Aves"),
        ("train_val2018/Plantae/7477/1b.jpg", "7477", "train", None, "Plantae"),
        ("train_val2018/Aves/3/2c.jpg", "3", "test", None, "Aves"),
        ("train_val2018/Aves/3/3d.jpg", "3", "test", None, "Aves"),
        ("train_val2018/Fungi/9/4e.jpg", "9", "test", None, "Fungi"),
        ("train_val2018/Fungi/9/5f.jpg", "9", "test", None, "Fungi"),
    ]
    assert images.notes == (
        "iNaturalist 2018: 2 training images, published 325,846",
        "iNaturalist 2018: 2 training objects, published 5,690",
        "iNaturalist 2018: 4 test images, published 136,093",
        "iNaturalist 2018: 2 test objects, published 2,452",
    )


def test_lists_beside_the_images(inat):
    before = load_images(inat).table
    for path in (inat / "Inat_dataset_splits").iterdir():
        path.rename(inat / path.name)
    assert load_images(inat).table.equals(before)


def test_a_missing_list(inat):
    (inat / "Inat_dataset_splits" / "Inaturalist_train_set1.txt").unlink()
    with pytest.raises(UserError, match=r"missing Inat_dataset_splits/Inaturalist_train_set1\.txt"):
        load_images(inat)


@pytest.mark.parametrize("line", ["train_val2018/Aves/1.jpg", "a/b/c/d.jpg", "Aves/3/2c.jpg"])
def test_a_broken_line(inat, line):
    path = inat / "Inat_dataset_splits" / "Inaturalist_test_set1.txt"
    path.write_text(f"{TEST}\n {line} \n")
    wanted = rf"Inaturalist_test_set1\.txt, line 6: '{line}' is no path like train_val2018/Aves"
    with pytest.raises(UserError, match=wanted):
        load_images(inat)


def test_leave_one_out_by_hand(inat):
    """Birds a and b at 0 and 10 degrees, mushrooms c and d at 12 and 50.

    a finds b first: 1. b finds c, a: 1/2. c finds b, a, d: 1/3. d finds c first: 1. Mean 17/24,
    two of four right at once. The training images, at 0 too, take no part.
    """
    features = angles(0, 0, 0, 10, 12, 50)
    scores = evaluate(features, load_images(inat), protocol=protocol("inat2018")).summary()
    assert scores["mAP"] == pytest.approx(17 / 24)
    assert scores["R@1"] == 1 / 2 and scores["R@4"] == 1
    assert scores["queries"] == 4
