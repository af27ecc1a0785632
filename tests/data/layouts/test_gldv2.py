"""Google Landmarks v2 in its own layout, read from a miniature."""

from __future__ import annotations

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate

ONE, TWO, THREE = "1aa0000000000001", "2aa0000000000002", "3aa0000000000003"
ASKS, ALSO, IGNORED = "abc000000000000a", "bcd000000000000b", "cde000000000000c"
SOLUTION = (
    f"id,images,Usage\n{ASKS},{ONE} {THREE},Public\n{IGNORED},None,Ignored\n{ALSO},{TWO},Private\n"
)
TRAIN = "id,url,landmark_id\n" + "".join(
    f'{name},"http://x/{name},1.jpg",{landmark}\n'
    for name, landmark in (("d0f0", 7), ("e0f0", 7), ("f0f0", 12))
)


@pytest.fixture
def gldv2(tmp_path):
    lists = tmp_path / "metadata"
    lists.mkdir()
    (lists / "index.csv").write_text(f"id\n{ONE}\n{TWO}\n{THREE}\n")
    (lists / "test.csv").write_text(f"id\n{ASKS}\n{IGNORED}\n{ALSO}\n")
    (lists / "retrieval_solution_v2.1.csv").write_text(SOLUTION)
    (lists / "train.csv").write_text(TRAIN)
    (lists / "train_clean.csv").write_text("landmark_id,images\n7,d0f0 e0f0\n")
    save(tmp_path / "index" / "1" / "a" / "a" / f"{ONE}.jpg")
    return tmp_path


def test_every_row(gldv2):
    images = load_images(gldv2)
    assert images.layout == "gldv2" and len(images.missing()) == 7
    columns = ("path", "object", "split", "role", "name", "usage", "positives", "clean")
    assert images.table.select(columns).rows() == [
        (f"test/a/b/c/{ASKS}.jpg", None, "test", "query", ASKS, "public", [ONE, THREE], None),
        (f"test/b/c/d/{ALSO}.jpg", None, "test", "query", ALSO, "private", [TWO], None),
        (f"index/1/a/a/{ONE}.jpg", None, "test", "gallery", ONE, None, None, None),
        (f"index/2/a/a/{TWO}.jpg", None, "test", "gallery", TWO, None, None, None),
        (f"index/3/a/a/{THREE}.jpg", None, "test", "gallery", THREE, None, None, None),
        ("train/d/0/f/d0f0.jpg", "7", "train", None, "d0f0", None, None, True),
        ("train/e/0/f/e0f0.jpg", "7", "train", None, "e0f0", None, None, True),
        ("train/f/0/f/f0f0.jpg", "12", "train", None, "f0f0", None, None, False),
    ]
    assert images.notes == (
        "Google Landmarks v2: 3 training images, published 4,132,914 or 1,580,470",
        "Google Landmarks v2: 2 training objects, published 203,094 or 81,313",
        "Google Landmarks v2: 2 query images, published 1,129",
        "Google Landmarks v2: 3 gallery images, published 761,757",
    )


def test_lists_beside_the_images_or_in_the_folder(gldv2):
    before = load_images(gldv2).table
    for name, place in (
        ("index", "index"),
        ("retrieval_solution_v2.1", "test"),
        ("train", "train"),
    ):
        (gldv2 / place).mkdir(exist_ok=True)
        (gldv2 / "metadata" / f"{name}.csv").rename(gldv2 / place / f"{name}.csv")
    assert load_images(gldv2).table.equals(before)
    (gldv2 / "index" / "index.csv").rename(gldv2 / "index.csv")
    assert load_images(gldv2).table.equals(before)


def test_parts_of_it(gldv2):
    lists = gldv2 / "metadata"
    (lists / "train.csv").unlink()
    rows = load_images(gldv2).table.filter(split="train")
    assert rows.select("name", "object", "clean").rows() == [
        ("d0f0", "7", True),
        ("e0f0", "7", True),
    ]
    (lists / "train_clean.csv").unlink()
    assert load_images(gldv2).table["split"].unique().to_list() == ["test"]
    (lists / "train.csv").write_text(TRAIN)
    (lists / "index.csv").unlink()
    with pytest.raises(UserError, match=r"index\.csv is missing, which the test needs"):
        load_images(gldv2)
    (lists / "retrieval_solution_v2.1.csv").unlink()
    save(gldv2 / "train" / "d" / "0" / "f" / "d0f0.jpg")
    assert load_images(gldv2, layout="gldv2").table["split"].unique().to_list() == ["train"]
    (lists / "train.csv").unlink()
    with pytest.raises(UserError, match=r"not a whole Google Landmarks v2: missing index\.csv or"):
        load_images(gldv2, layout="gldv2")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("index", "image\nx\n", r"index\.csv, line 1: no column id; it has image"),
        ("retrieval_solution_v2.1", SOLUTION + "x,y\n", r"line 5: no value in column Usage"),
        ("retrieval_solution_v2.1", SOLUTION + "x,y,z\n", r"line 5: Usage 'z' is none of"),
        ("train", TRAIN + "x,y,z,9\n", r"train\.csv, line 5: 4 values for 3 columns"),
        ("train_clean", "landmark_id,images\n7\n", r"line 2: no value in column images"),
    ],
)
def test_a_broken_list(gldv2, name, text, message):
    (gldv2 / "metadata" / f"{name}.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load_images(gldv2)


def test_public_and_private_by_hand(gldv2):
    """Gallery 1, 2 and 3 at 20, 10 and 30 degrees, the queries at 0 and 24.

    The public one finds 2, 1 (right), 3 (right): (1/2 + 2/3) / min(2, 100) = 7/12. The private
    one finds 1, 3, 2 (right): 1/3. Training images, all at 0, take no part.
    """
    images = load_images(gldv2)
    features = angles(0, 24, 20, 10, 30, 0, 0, 0)
    for usage, value in (("public", 7 / 12), ("private", 1 / 3)):
        asked = protocol(f"gldv2-{usage}")
        scores = evaluate(features, images, protocol=asked).summary()
        assert scores[asked.metric] == pytest.approx(value)
        assert (scores["queries"], scores["gallery"]) == (1, 3)


def test_its_own_index_csv_is_no_index_of_ours(gldv2):
    for path in (gldv2 / "metadata").iterdir():
        path.rename(gldv2 / path.name)
    assert load_images(gldv2).layout == "gldv2"
