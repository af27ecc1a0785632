"""Stanford Online Products in its own layout, read from a miniature."""

from __future__ import annotations

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate

HEADER = "image_id class_id super_class_id path\n"


@pytest.fixture
def sop(tmp_path):
    (tmp_path / "Ebay_train.txt").write_text(HEADER + "1 1 1 bicycle_final/111_0.JPG\n")
    (tmp_path / "Ebay_test.txt").write_text(
        HEADER
        + "1 11319 1 bicycle_final/251_0.JPG\n"
        + "2 11319 1 bicycle_final/251_1.JPG\n"
        + "3 11320 2 cabinet_final/300_0.JPG\n"
        + "4 11320 2 cabinet_final/300_1.JPG\n"
    )
    save(tmp_path / "bicycle_final" / "111_0.JPG")
    return tmp_path


def test_every_row(sop):
    images = load_images(sop)
    assert images.layout == "sop"
    columns = images.table.select("path", "object", "split", "role", "super_class_id")
    assert columns.rows() == [
        ("bicycle_final/111_0.JPG", "1", "train", None, "1"),
        ("bicycle_final/251_0.JPG", "11319", "test", None, "1"),
        ("bicycle_final/251_1.JPG", "11319", "test", None, "1"),
        ("cabinet_final/300_0.JPG", "11320", "test", None, "2"),
        ("cabinet_final/300_1.JPG", "11320", "test", None, "2"),
    ]
    assert images.notes == (
        "Stanford Online Products: 1 training images, published 59,551",
        "Stanford Online Products: 1 training objects, published 11,318",
        "Stanford Online Products: 4 test images, published 60,502",
        "Stanford Online Products: 2 test objects, published 11,316",
    )


def test_a_missing_list(sop):
    (sop / "Ebay_train.txt").unlink()
    with pytest.raises(UserError, match=r"missing Ebay_train\.txt; found Ebay_test\.txt"):
        load_images(sop, layout="sop")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "1 11319 1\n", r"Ebay_test\.txt, line 2: 3 words, 4 are needed"),
        ("1 11319 1 bicycle_final/251_0.JPG\n", r"Ebay_test\.txt, line 1: not the header"),
        ("", r"Ebay_test\.txt, line 1: not the header"),
    ],
)
def test_a_broken_list(sop, text, message):
    (sop / "Ebay_test.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        load_images(sop)


def test_sop_by_hand(sop):
    """Class 11319 at 0 and 4 degrees, class 11320 at 10 and 30; 11 is a training image.

    0 and 4 find each other first; 30 finds 10 first; 10 finds 4 and 0 before 30, at rank 3:
    mAP (1 + 1 + 1 + 1/3) / 4, R@1 3/4.
    """
    summary = evaluate(
        angles(11, 0, 4, 10, 30), load_images(sop), protocol=protocol("sop")
    ).summary()
    assert summary["mAP"] == pytest.approx(5 / 6)
    assert summary["R@1"] == pytest.approx(3 / 4)
    assert summary["R@10"] == 1
    assert summary["queries"] == 4
