"""DeepFashion consumer-to-shop in its own layout, read from a miniature."""

from __future__ import annotations

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate

BLOUSE, SUIT = "img/CLOTHING/Blouse", "img/CLOTHING/Summer_Wear"
PAIRS = f"""5
image_pair_name_1 image_pair_name_2 item_id evaluation_status
{BLOUSE}/id_00000001/comsumer_01.jpg {BLOUSE}/id_00000001/shop_01.jpg id_00000001 train
{BLOUSE}/id_00000002/comsumer_01.jpg {BLOUSE}/id_00000002/shop_01.jpg id_00000002 val
{SUIT}/id_00000003/comsumer_01.jpg {SUIT}/id_00000003/shop_01.jpg id_00000003 test
{SUIT}/id_00000005/comsumer_01.jpg {SUIT}/id_00000005/shop_01.jpg id_00000005 test
{SUIT}/id_00000005/comsumer_01.jpg {SUIT}/id_00000005/shop_02.jpg id_00000005 test
"""
BOXES = f"""10
image_name clothes_type source_type x_1 y_1 x_2 y_2
{BLOUSE}/id_00000001/comsumer_01.jpg 1 2 10 20 110 220
{BLOUSE}/id_00000001/shop_01.jpg     1 1 000 001 050 060
{BLOUSE}/id_00000002/comsumer_01.jpg 1 2 10 20 110 220
{BLOUSE}/id_00000002/shop_01.jpg     1 1 10 20 110 220
{SUIT}/id_00000003/comsumer_01.jpg   3 2 10 20 110 220
{SUIT}/id_00000003/shop_01.jpg       3 1 0 0 0 0
{SUIT}/id_00000004/shop_01.jpg       3 1 10 20 110 220
{SUIT}/id_00000005/comsumer_01.jpg   3 2 10 20 110 220
{SUIT}/id_00000005/shop_01.jpg       3 1 10 20 110 220
{SUIT}/id_00000005/shop_02.jpg       3 1 10 20 110 220
"""
# What every variant gives, without path and box. Object 4 has no split and is left out.
ROWS = [
    ("id_00000001", "train", None, "consumer", False),
    ("id_00000001", "train", None, "shop", False),
    ("id_00000002", "val", "query", "consumer", False),
    ("id_00000002", "val", "gallery", "shop", True),
    ("id_00000003", "test", "query", "consumer", False),
    ("id_00000003", "test", "gallery", "shop", False),
    ("id_00000005", "test", "query", "consumer", False),
    ("id_00000005", "test", "gallery", "shop", False),
    ("id_00000005", "test", "gallery", "shop", False),
]
BOX = [10.0, 20.0, 110.0, 220.0]


@pytest.fixture
def fashion(tmp_path):
    for name, text in (
        ("Eval/list_eval_partition.txt", PAIRS),
        ("Anno/list_bbox_consumer2shop.txt", BOXES),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_row(fashion):
    save(fashion / "Img" / SUIT / "id_00000003" / "shop_01.jpg")
    images = load_images(fashion)
    assert images.layout == "deepfashion"
    columns = ("object", "split", "role", "source", "gallery_of_val")
    assert images.table.select(columns).rows() == ROWS
    assert images.table["path"].to_list() == [
        f"Img/{BLOUSE}/id_00000001/comsumer_01.jpg",
        f"Img/{BLOUSE}/id_00000001/shop_01.jpg",
        f"Img/{BLOUSE}/id_00000002/comsumer_01.jpg",
        f"Img/{BLOUSE}/id_00000002/shop_01.jpg",
        f"Img/{SUIT}/id_00000003/comsumer_01.jpg",
        f"Img/{SUIT}/id_00000003/shop_01.jpg",
        f"Img/{SUIT}/id_00000005/comsumer_01.jpg",
        f"Img/{SUIT}/id_00000005/shop_01.jpg",
        f"Img/{SUIT}/id_00000005/shop_02.jpg",
    ]
    # the box of object 3's shop image has no area
    boxes = [BOX, [0, 1, 50, 60], BOX, BOX, BOX, None, BOX, BOX, BOX]
    assert images.table["box"].to_list() == boxes
    assert images.notes == (
        "DeepFashion consumer-to-shop: 9 images, published 239,557",
        "DeepFashion consumer-to-shop: 4 objects, published 33,881",
    )


def test_images_beside_the_folder_img(fashion):
    save(fashion / BLOUSE / "id_00000001" / "shop_01.jpg")
    assert load_images(fashion).table["path"][1] == f"{BLOUSE}/id_00000001/shop_01.jpg"


def test_full_size_images_have_their_boxes_scaled(fashion):
    """The boxes are for a long side of 300: 600 x 400 doubles them, 450 x 900 trebles them.

    The folder Summer_Wear of the lists is called Summer_Suit among the full-size images.
    """
    full = fashion / "Img" / "img_highres" / "CLOTHING"
    save(full / "Blouse" / "id_00000001" / "comsumer_01.jpg", size=(600, 400))
    save(full / "Summer_Suit" / "id_00000003" / "comsumer_01.jpg", size=(450, 900))
    save(full / "Summer_Suit" / "id_00000003" / "shop_01.jpg", size=(450, 900))
    save(fashion / "Img" / BLOUSE / "id_00000001" / "comsumer_01.jpg", size=(300, 200))
    images = load_images(fashion)
    assert images.table["path"][0] == (
        "Img/img_highres/CLOTHING/Blouse/id_00000001/comsumer_01.jpg"
    )
    assert images.table["path"][5] == (
        "Img/img_highres/CLOTHING/Summer_Suit/id_00000003/shop_01.jpg"
    )
    # no box where the image is not there, or where there was none
    assert images.table["box"].to_list() == [
        [20, 40, 220, 440], None, None, None, [30, 60, 330, 660], None, None, None, None,
    ]  # fmt: skip
    assert images.missing() == [1, 2, 3, 6, 7, 8]


def test_a_missing_part(fashion):
    with pytest.raises(UserError, match="missing Img/img_highres/ or img_highres/ or Img/img/ or"):
        load_images(fashion)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("Anno/list_bbox_consumer2shop.txt", "img/a/id_1/x.jpg 1 2 3 4", "line 13: 5 words"),
        ("Anno/list_bbox_consumer2shop.txt", "img/a/id_1/x.jpg 1 2 3 4 5 z", "line 13: not a path"),
        ("Anno/list_bbox_consumer2shop.txt", "img/a/id_1/x.jpg 1 3 1 1 5 5", "line 13: not a path"),
        ("Anno/list_bbox_consumer2shop.txt", "x.jpg 1 2 3 4 5 6", "line 13: not a path"),
        ("Eval/list_eval_partition.txt", "a b c train", "line 8: no id in 'a'"),
        ("Eval/list_eval_partition.txt", "a/id_9/x b c later", "line 8: 'later' is none of"),
        ("Eval/list_eval_partition.txt", "a/id_00000001/x b c val", "line 8: id_00000001 is val"),
    ],
)
def test_a_broken_line(fashion, name, line, message):
    save(fashion / "Img" / BLOUSE / "id_00000001" / "shop_01.jpg")
    with open(fashion / name, "a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        load_images(fashion)
    assert name in str(caught.value)


def test_deepfashion_by_hand(fashion):
    """Object 3 worn at 0 degrees, sold at 20; object 5 worn at 90, sold at 10 and 100.

    3 finds 10, 20 (+): AP 1/2. 5 finds 100 (+), 20, 10 (+): AP (1 + 2/3) / 2. What is sold at 0 is
    of the validation half and not in the gallery.
    """
    save(fashion / "Img" / SUIT / "id_00000003" / "shop_01.jpg")
    images, features = load_images(fashion), angles(0, 0, 0, 0, 0, 20, 90, 10, 100)
    summary = evaluate(features, images, protocol=protocol("deepfashion")).summary()
    assert summary["mAP"] == pytest.approx(2 / 3)
    assert summary["R@1"] == pytest.approx(1 / 2)
    assert (summary["queries"], summary["gallery"]) == (2, 3)


def test_deepfashion_with_the_validation_shops_by_hand(fashion):
    """As above, and what is sold at 0 of the validation half is searched too.

    3 finds 0, 10, 20 (+): AP 1/3. 5 finds 100 (+), 20, 10 (+), 0: AP (1 + 2/3) / 2 as before.
    """
    save(fashion / "Img" / SUIT / "id_00000003" / "shop_01.jpg")
    images, features = load_images(fashion), angles(0, 0, 0, 0, 0, 20, 90, 10, 100)
    summary = evaluate(features, images, protocol=protocol("deepfashion-val-gallery")).summary()
    of_val = int(images.table["gallery_of_val"].sum())
    assert of_val == 1 and summary["gallery"] == 3 + of_val
    assert summary["mAP"] == pytest.approx((1 / 3 + (1 + 2 / 3) / 2) / 2)
