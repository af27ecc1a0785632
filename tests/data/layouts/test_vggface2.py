"""VGGFace2 in its own layout, read from a miniature."""

from __future__ import annotations

import shutil

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate

BOXES = (
    'NAME_ID,X,Y,W,H\n"n000001/0001_01",-1,2,5,3\n'
    '"n000001/0003_02",1,1,4,4\n"n000009/9999_01",0,0,1,1\n'
)


@pytest.fixture
def faces(tmp_path):
    for name in (
        "train/n000002/0001_01.jpg",
        "test/n000001/0001_01.jpg",
        "test/n000001/0002_01.jpg",
        "test/n000001/0003_02.jpg",
        "test/n000009/0001_01.jpg",
        "test/n000009/0002_01.jpg",
        "samples/loose_crop/n000001/0001_01.jpg",
    ):
        save(tmp_path / name)
    (tmp_path / "test" / "n000001" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "test" / ".DS_Store").write_bytes(b"")
    (tmp_path / "bb_landmark").mkdir()
    (tmp_path / "bb_landmark" / "loose_bb_test.csv").write_text(BOXES)
    return tmp_path


def test_every_row(faces):
    images = load_images(faces)
    assert images.layout == "vggface2" and images.missing() == []
    assert images.table.select("path", "object", "split", "role", "box").rows() == [
        ("train/n000002/0001_01.jpg", "n000002", "train", None, None),
        ("test/n000001/0001_01.jpg", "n000001", "test", None, [-1, 2, 4, 5]),
        ("test/n000001/0002_01.jpg", "n000001", "test", None, None),
        ("test/n000001/0003_02.jpg", "n000001", "test", None, [1, 1, 5, 5]),
        ("test/n000009/0001_01.jpg", "n000009", "test", None, None),
        ("test/n000009/0002_01.jpg", "n000009", "test", None, None),
    ]
    notice, *counts = images.notes
    assert "no longer give it out" in notice
    assert counts == [
        "VGGFace2: 1 training images, published 3,141,890",
        "VGGFace2: 1 training objects, published 8,631",
        "VGGFace2: 5 test images, published 169,396",
        "VGGFace2: 2 test objects, published 500",
    ]


def test_the_test_half_alone_and_without_boxes(faces):
    shutil.rmtree(faces / "train")
    shutil.rmtree(faces / "bb_landmark")
    images = load_images(faces)
    assert images.layout == "vggface2" and len(images) == 5
    assert not images.has("box")


def test_a_missing_part(tmp_path):
    save(tmp_path / "bb_landmark" / "x.jpg")
    with pytest.raises(UserError, match="missing train/ or test/; found none of its parts"):
        load_images(tmp_path, layout="vggface2")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"n000009/0001_01",1,1,4\n', "no value in column H"),
        ('"n000009/0001_01",1,one,4,4\n', "'one' is not a number in column Y"),
    ],
)
def test_a_broken_list_of_boxes(faces, line, message):
    (faces / "bb_landmark" / "loose_bb_test.csv").write_text(BOXES + line)
    with pytest.raises(UserError, match=rf"loose_bb_test\.csv, line 5: {message}"):
        load_images(faces)


def test_folders_of_another_kind_are_left_alone(tmp_path):
    save(tmp_path / "train" / "n01440764" / "n01440764_10026.jpg")
    assert load_images(tmp_path).layout == ""


def test_leave_one_out_by_hand(faces):
    """Person 1 at 0, 20 and 60 degrees, person 9 at 11 and 70.

    0 finds 11, 20 (right), 60 (right): (1/2 + 2/3) / 2 = 7/12. 20 finds 11, 0, 60: 7/12.
    60 finds 70, 20 (right), 11, 0 (right): (1/2 + 2/4) / 2 = 1/2. 11 finds 20, 0, 60, 70: 1/4.
    70 finds 60, 20, 11: 1/3. Mean 9/20. The training image, at 0 too, takes no part.
    """
    features = angles(0, 0, 20, 60, 11, 70)
    scores = evaluate(features, load_images(faces), protocol=protocol("vggface2")).summary()
    assert scores["mAP"] == pytest.approx(9 / 20)
    assert scores["R@1"] == 0 and scores["R@5"] == 1
    assert scores["queries"] == 5
