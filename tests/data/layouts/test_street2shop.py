"""Exact Street2Shop in its own layout, read from a miniature."""

from __future__ import annotations

import json

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate


def _pair(photo, product, left=10, top=20, width=30, height=40):
    box = {"left": left, "top": top, "width": width, "height": height}
    return {"photo": photo, "product": product, "bbox": box}


def _shop(photo, product):
    return {"photo": photo, "product": product}


META = {
    "retrieval_bags": [_shop(101, 1), _shop(102, 2), _shop(103, 2), _shop(104, 3)],
    "train_pairs_bags": [_pair(1, 1), _pair(2, 1, width=0), _pair(9, 1)],  # 9 is gone
    "test_pairs_bags": [_pair(1, 2, left=50.0), _pair(3, 2), _pair(3, 2)],
    "retrieval_hats": [_shop(201, 1)],
    "train_pairs_hats": [],
    "test_pairs_hats": [_pair(4, 1)],
}


@pytest.fixture
def street(tmp_path):
    (tmp_path / "meta" / "json").mkdir(parents=True)
    for name, entries in META.items():
        (tmp_path / "meta" / "json" / f"{name}.json").write_text(json.dumps(entries))
    for number in (1, 2, 3, 4, 101, 102, 103, 104):
        save(tmp_path / "images" / f"{number:09}.jpg")
    save(tmp_path / "images" / "000000201.png")
    (tmp_path / "images" / "errors.txt").write_text("")
    return tmp_path


def test_every_row(street):
    images = load_images(street)
    assert images.layout == "street2shop"
    box, beside = [10.0, 20.0, 40.0, 60.0], [50.0, 20.0, 80.0, 60.0]
    columns = ["path", "object", "split", "role", "box", "category", "source", "gallery_of_train"]
    assert images.table.select(columns).rows() == [
        ("images/000000001.jpg", "bags/1", "train", None, box, "bags", "street", False),
        # the same photo, another box; photo 2 has no area, 9 is gone, 3 stands there twice
        ("images/000000001.jpg", "bags/2", "test", "query", beside, "bags", "street", False),
        ("images/000000003.jpg", "bags/2", "test", "query", box, "bags", "street", False),
        ("images/000000101.jpg", "bags/1", "train", None, None, "bags", "shop", True),
        ("images/000000102.jpg", "bags/2", "test", "gallery", None, "bags", "shop", False),
        ("images/000000103.jpg", "bags/2", "test", "gallery", None, "bags", "shop", False),
        ("images/000000104.jpg", "bags/3", "test", "gallery", None, "bags", "shop", False),
        # product 1 of the hats is not product 1 of the bags
        ("images/000000004.jpg", "hats/1", "test", "query", box, "hats", "street", False),
        ("images/000000201.png", "hats/1", "test", "gallery", None, "hats", "shop", False),
    ]
    assert images.notes == (
        "Exact Street2Shop: 3 query images, published 8,637",
        "Exact Street2Shop: 2 query objects, published 2,587",
        "Exact Street2Shop: 5 shop images, published 404,683",
        "Exact Street2Shop: 4 shop objects, published 204,795",
    )


def test_a_missing_part(street):
    for path in (street / "images").iterdir():
        path.unlink()
    (street / "images").rmdir()
    with pytest.raises(UserError, match="missing images/"):
        load_images(street)


def test_a_category_without_its_pairs(street):
    (street / "meta" / "json" / "train_pairs_hats.json").unlink()
    with pytest.raises(UserError, match=r"train_pairs_hats\.json: missing"):
        load_images(street)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"photo": 1,\n', r"test_pairs_hats\.json, line 2: not JSON"),
        ("{}", r"test_pairs_hats\.json: not a list"),
        ('[{"photo": 1}]', r"test_pairs_hats\.json, entry 1: not a photo"),
        ('[{"photo": 4, "product": 1, "bbox": 7}]', r"test_pairs_hats\.json, entry 1: not a photo"),
        ("[7]", r"test_pairs_hats\.json, entry 1: not a photo"),
    ],
)
def test_a_broken_file(street, text, message):
    (street / "meta" / "json" / "test_pairs_hats.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_images(street)


def test_street2shop_by_hand(street):
    """Bag 2 is asked for at 0 and 30 degrees and sold at 10 and 40; bag 3 is sold at 25; hat 1 is
    asked for at 60 and sold at 90. The bag of the training pairs, at 0, is in nobody's way.

    0 finds 10 (+), 25, 40 (+): AP 5/6. 30 finds 25, 40 (+), 10 (+): AP 7/12. In one gallery 60
    finds 40, 90 (+): AP 1/2; among the hats it finds 90 at once: AP 1.
    """
    images, features = load_images(street), angles(0, 0, 30, 0, 10, 40, 25, 60, 90)

    def summary(name):
        return evaluate(features, images, protocol=protocol(name)).summary()

    merged = summary("street2shop")
    assert merged["mAP"] == pytest.approx((5 / 6 + 7 / 12 + 1 / 2) / 3)
    assert merged["R@1"] == pytest.approx(1 / 3)
    assert (merged["queries"], merged["gallery"]) == (3, 4)
    by_category = summary("street2shop-per-category")
    assert by_category["mAP"] == pytest.approx((5 / 6 + 7 / 12 + 1) / 3)
    assert by_category["R@1"] == pytest.approx(2 / 3)
