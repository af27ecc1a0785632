"""PKU VehicleID in its own layout, read from a miniature."""

from __future__ import annotations

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate

LISTS = {
    "train_list.txt": "0000001 7\n0000002 7\n",
    "test_list_800.txt": "0279029 23781\n0279028 23781\n",
    "test_list_1600.txt": "0279029 23781\n0279028 23781\n0300001 501\n0300002 501\n",
    "test_list_2400.txt": "0300001 501\n0300002 501\n",
    "test_list_3200.txt": "not read\n",
}


@pytest.fixture
def vehicleid(tmp_path):
    save(tmp_path / "image" / "0279029.jpg")
    (tmp_path / "train_test_split").mkdir()
    for name, text in LISTS.items():
        (tmp_path / "train_test_split" / name).write_text(text)
    return tmp_path


def test_every_row(vehicleid):
    images = load_images(vehicleid)
    assert images.layout == "vehicleid"
    columns = images.table.select("path", "object", "split", "role", "small", "medium", "large")
    assert columns.rows() == [
        ("image/0000001.jpg", "7", "train", None, False, False, False),
        ("image/0000002.jpg", "7", "train", None, False, False, False),
        # an image of several lists is one row
        ("image/0279029.jpg", "23781", "test", None, True, True, False),
        ("image/0279028.jpg", "23781", "test", None, True, True, False),
        ("image/0300001.jpg", "501", "test", None, False, True, True),
        ("image/0300002.jpg", "501", "test", None, False, True, True),
    ]
    assert images.notes == (
        "PKU VehicleID: 2 training images, published 110,178 or 113,346",
        "PKU VehicleID: 1 training objects, published 13,134 or 13,164",
        "PKU VehicleID: 2 small test images, published 7,332 or 6,493",
        "PKU VehicleID: 4 medium test images, published 12,995 or 13,377",
        "PKU VehicleID: 2 large test images, published 20,038 or 19,777",
        "PKU VehicleID: 1 small test objects, published 800",
        "PKU VehicleID: 2 medium test objects, published 1,600",
        "PKU VehicleID: 1 large test objects, published 2,400",
    )


def test_some_lists_are_enough(vehicleid):
    for name in LISTS:
        if name != "test_list_800.txt":
            (vehicleid / "train_test_split" / name).unlink()
    table = load_images(vehicleid).table
    assert table["small"].to_list() == [True, True]
    assert table["large"].to_list() == [False, False]


def test_a_missing_part(vehicleid):
    for name in LISTS:
        (vehicleid / "train_test_split" / name).unlink()
    with pytest.raises(UserError, match=r"missing train_test_split/train_list\.txt or"):
        load_images(vehicleid, layout="vehicleid")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0279027\n", r"test_list_1600\.txt, line 5: 1 words, 2 are needed"),
        ("0279029 9\n", "line 5: image 0279029 is vehicle 9 .test. here, and 23781 .test. before"),
        ("0000001 7\n", "line 5: image 0000001 is vehicle 7 .test. here, and 7 .train. before"),
    ],
)
def test_a_broken_list(vehicleid, line, message):
    with open(vehicleid / "train_test_split" / "test_list_1600.txt", "a") as file:
        file.write(line)
    with pytest.raises(UserError, match=message):
        load_images(vehicleid)


def test_vehicleid_by_hand(vehicleid):
    """Vehicle 23781 at 0 and 4 degrees, vehicle 501 at 30 and -30; training images are no matter.

    Leave one out, medium: 0 and 4 find each other first; 30 and -30 find 0 and 4 before each other,
    at rank 3: mAP (1 + 1 + 1/3 + 1/3) / 4. In small there is 23781 only. One gallery image:
    whatever is drawn, the other of 23781 finds it first, that of 501 finds it behind 23781's.
    """
    images, features = load_images(vehicleid), angles(0, 0, 0, 4, 30, -30)

    def summary(name):
        return evaluate(features, images, protocol=protocol(name)).summary()

    medium = summary("vehicleid-medium")
    assert medium["mAP"] == pytest.approx(2 / 3)
    assert (medium["R@1"], medium["R@5"]) == (pytest.approx(1 / 2), 1)
    assert medium["queries"] == 4
    small = summary("vehicleid-small")
    assert (small["mAP"], small["queries"]) == (1, 2)
    drawn = summary("vehicleid-medium-one-gallery")
    assert drawn["mAP"] == pytest.approx(3 / 4)
    assert drawn["R@1"] == pytest.approx(1 / 2)
