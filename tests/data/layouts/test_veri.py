"""VeRi-776 in its own layout, read from a miniature."""

from __future__ import annotations

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.scores import evaluate


@pytest.fixture
def veri(tmp_path):
    for name in (
        "image_train/0001_c001_00016450_0.jpg",
        "image_query/0002_c002_00030600_0.jpg",
        "image_test/0002_c002_00030600_0.jpg",
        "image_test/0002_c014_00030640_0.jpg",
    ):
        save(tmp_path / name)
    (tmp_path / "name_query.txt").write_text("0002_c002_00030600_0.jpg\n")
    return tmp_path


def test_every_row(veri):
    images = load_images(veri)
    assert images.layout == "veri"
    assert images.table.drop("box").rows() == [
        ("image_train/0001_c001_00016450_0.jpg", "0001", "001", "train", None),
        ("image_query/0002_c002_00030600_0.jpg", "0002", "002", "test", "query"),
        # the query once more, seen by the same camera
        ("image_test/0002_c002_00030600_0.jpg", "0002", "002", "test", "gallery"),
        ("image_test/0002_c014_00030640_0.jpg", "0002", "014", "test", "gallery"),
    ]
    assert "VeRi-776: 1 training images, published 37,778" in images.notes
    assert "VeRi-776: 2 gallery images, published 11,579" in images.notes


def test_a_missing_part(veri):
    (veri / "image_train" / "0001_c001_00016450_0.jpg").unlink()
    (veri / "image_train").rmdir()
    with pytest.raises(UserError, match="not a whole VeRi-776: missing image_train/"):
        load_images(veri)


def test_a_strange_name(veri):
    save(veri / "image_test" / "car.jpg")
    with pytest.raises(UserError, match=r"car\.jpg: not a VeRi-776 name like 0002_c002_"):
        load_images(veri)


def test_veri_by_hand(veri):
    """The query at 0 degrees, so its copy (junk); another vehicle at 10, its match at 20: 1/2."""
    save(veri / "image_test" / "0003_c001_00000001_0.jpg")
    scores = evaluate(angles(0, 0, 0, 20, 10), load_images(veri))
    summary = scores.summary()
    assert summary["mAP"] == pytest.approx(1 / 2)
    assert summary["R@1"] == 0
    assert (summary["queries"], summary["gallery"]) == (1, 3)
