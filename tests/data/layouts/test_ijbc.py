"""IJB-C in its own layout, read from a miniature."""

from __future__ import annotations

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate

HEADER = "SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT,FRAME_NUM\n"
LINES = (
    "1,img/5.jpg,10,1,2,4,3,nan\n"
    "1,frames/20.png,11,0,0,4,4,7\n"
    "1,frames/21.png,11,1,0,4,4,9\n"
    "2,img/5.jpg,12,5,2,3,3,nan\n"  # another person in the same picture
)
LEFT_OUT = (
    "1,video/3.mp4,11,nan,nan,nan,nan,nan\n"  # a whole video
    "nan,img/7.jpg,nan,nan,nan,nan,nan,nan\n"  # an image without a face
    "2,img/8.jpg,13,0,0,0,4,nan\n"  # a face of no size
    "1,img/5.jpg,14,1,2,4,3,nan\n"  # a face that stands there already
    "1,img/9.jpg,15,0,0,4,4,nan\n2,img/9.jpg,16,0,0,4,4,nan\n"  # one face, two people
)


@pytest.fixture
def ijbc(tmp_path):
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols" / "ijbc_metadata.csv").write_text(HEADER + LINES + LEFT_OUT)
    save(tmp_path / "images" / "img" / "5.jpg")
    save(tmp_path / "images" / "frames" / "20.png")
    return tmp_path


def test_every_row(ijbc):
    images = load_images(ijbc)
    assert images.layout == "ijbc"
    assert images.table.select("path", "object", "split", "role", "box", "template").rows() == [
        ("images/img/5.jpg", "1", "test", None, [1, 2, 5, 5], "1 10"),
        ("images/frames/20.png", "1", "test", None, [0, 0, 4, 4], "1 11"),
        ("images/frames/21.png", "1", "test", None, [1, 0, 5, 4], "1 11"),
        ("images/img/5.jpg", "2", "test", None, [5, 2, 8, 5], "2 12"),
    ]
    notice, count = images.notes
    assert "NIST stopped" in notice
    assert count == "IJB-C: 2 test objects, published 3,531"


@pytest.mark.parametrize("name", ["ijbc_metadata_with_age.csv", "archive/ijbc_metadata.csv"])
def test_other_editions(ijbc, name):
    before = load_images(ijbc).table
    (ijbc / "protocols" / "archive").mkdir()
    (ijbc / "protocols" / "ijbc_metadata.csv").rename(ijbc / "protocols" / name)
    assert load_images(ijbc).table.equals(before)


def test_ids_saved_as_decimals_and_a_face_without_sighting(ijbc):
    path = ijbc / "protocols" / "ijbc_metadata.csv"
    path.write_text(HEADER + "1.0,img/5.jpg,10.0,1.0,2.0,4.0,3.0,\n1.0,img/6.jpg,,1,2,4,3,\n")
    rows = load_images(ijbc).table.select("object", "template").rows()
    assert rows == [("1", "1 10"), ("1", "1 img/6.jpg")]


def test_a_missing_part(ijbc):
    (ijbc / "images" / "frames" / "20.png").unlink()
    (ijbc / "images" / "frames").rmdir()
    with pytest.raises(UserError, match="missing images/frames/; found images/img/"):
        load_images(ijbc)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "1,img/5.jpg,10,x,2,4,3,nan\n", "line 2: 'x' is not a number in column FACE_X"),
        (HEADER + LINES + "1,img/5.jpg,1,1,1,1,1,1,1\n", "line 6: 9 values for 8 columns"),
        ("SUBJECT_ID,FILENAME\n1,img/5.jpg\n", "line 1: no column SIGHTING_ID, FACE_X"),
        (HEADER, "no face of a known subject in it"),
    ],
)
def test_a_broken_list(ijbc, text, message):
    (ijbc / "protocols" / "ijbc_metadata.csv").write_text(text)
    with pytest.raises(UserError, match=rf"ijbc_metadata\.csv.*{message}"):
        load_images(ijbc)


def test_videos_averaged_and_small_subjects_dropped_by_hand(ijbc):
    """Subject 1: stills at 0, 1, 2, 3 and a video whose frames at -25 and 65 average to 20.

    Subject 2: stills at 22, 60, 61, 62, 63. Subject 3 has but four stills, at 19, 21, 23, 24.
    All others find their own four first: 1, eight times. The video finds 22, then its own at
    ranks 2 to 5: (1/2 + 2/3 + 3/4 + 4/5) / 4 = 163/240. 22 finds all five of subject 1, then its
    own at ranks 6 to 9: (1/6 + 2/7 + 3/8 + 4/9) / 4 = 641/2016.
    """
    places = [(1, 0), (1, 1), (1, 2), (1, 3), (2, 22), (2, 60), (2, 61), (2, 62), (2, 63)]
    places += [(3, 19), (3, 21), (3, 23), (3, 24)]
    lines = [f"{who},img/{at}.jpg,{at},0,0,4,4,nan\n" for who, at in places]
    lines += [f"1,frames/{at}.png,90,0,0,4,4,{at}\n" for at in (20, 21)]
    (ijbc / "protocols" / "ijbc_metadata.csv").write_text(HEADER + "".join(lines))
    features = angles(*(at for _, at in places), -25, 65)
    scores = evaluate(features, load_images(ijbc), protocol=protocol("ijbc")).summary()
    assert scores["mAP"] == pytest.approx((8 + 163 / 240 + 641 / 2016) / 10)
    assert scores["R@1"] == 8 / 10
    assert scores["queries"] == 10
