"""DukeMTMC-reID in its own layout, read from a miniature."""

from __future__ import annotations

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate


@pytest.fixture
def duke(tmp_path):
    for name in (
        "bounding_box_train/0001_c2_f0046182.jpg",
        "bounding_box_train/0001_c5_f0051341.jpg",
        "query/0005_c2_f0046985.jpg",
        "bounding_box_test/0005_c2_f0046986.jpg",
        "bounding_box_test/0005_c8_f0051602.jpg",
        "bounding_box_test/7006_c7_f0000001.jpg",
    ):
        save(tmp_path / name)
    return tmp_path


def test_every_row(duke):
    images = load_images(duke)
    assert images.layout == "dukemtmc"
    assert images.table.drop("box").rows() == [
        ("bounding_box_train/0001_c2_f0046182.jpg", "0001", "2", "train", None),
        ("bounding_box_train/0001_c5_f0051341.jpg", "0001", "5", "train", None),
        ("query/0005_c2_f0046985.jpg", "0005", "2", "test", "query"),
        ("bounding_box_test/0005_c2_f0046986.jpg", "0005", "2", "test", "gallery"),
        ("bounding_box_test/0005_c8_f0051602.jpg", "0005", "8", "test", "gallery"),
        # a distractor: a person of its own, whom no query shows
        ("bounding_box_test/7006_c7_f0000001.jpg", "7006", "7", "test", "gallery"),
    ]


def test_notes(duke):
    first, *counts = load_images(duke).notes
    assert "withdrawn by its authors" in first and "privacy" in first
    assert counts == [
        "DukeMTMC-reID: 2 training images, published 16,522",
        "DukeMTMC-reID: 1 training objects, published 702",
        "DukeMTMC-reID: 1 query images, published 2,228",
        "DukeMTMC-reID: 1 query objects, published 702",
        "DukeMTMC-reID: 3 gallery images, published 17,661",
        "DukeMTMC-reID: 2 gallery objects, published 1,110",
    ]


def test_a_missing_part(duke):
    (duke / "query" / "0005_c2_f0046985.jpg").unlink()
    (duke / "query").rmdir()
    with pytest.raises(UserError, match="not a whole DukeMTMC-reID: missing query/"):
        load_images(duke)


def test_a_strange_name(duke):
    save(duke / "query" / "0005-2.jpg")
    with pytest.raises(UserError, match=r"0005-2\.jpg: not a DukeMTMC-reID name like 0005_c2_f"):
        load_images(duke)


def test_duke_by_hand(duke):
    """The query at 0 degrees; by its camera at 0 (junk), the distractor at 10, its match at 20.

    Without the junk the match has rank 2: AP 1/2, R@1 0.
    """
    images = load_images(duke)
    summary = evaluate(angles(5, 5, 0, 0, 20, 10), images, protocol=protocol("dukemtmc")).summary()
    assert summary["mAP"] == pytest.approx(1 / 2)
    assert summary["R@1"] == 0
    assert (summary["queries"], summary["gallery"]) == (1, 3)
