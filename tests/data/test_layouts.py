"""Benchmarks' own layouts, read from miniatures."""

from __future__ import annotations

import pytest
from tests.pictures import save

from resight.data.sources import load_images
from resight.errors import UserError


@pytest.fixture
def market(tmp_path):
    for name in (
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/0002_c3s2_000451_03.jpg",
        "query/0007_c6s1_000001_00.jpg",
        "bounding_box_test/0007_c2s1_000002_00.jpg",
        "bounding_box_test/0000_c2s1_000003_00.jpg",
        "bounding_box_test/-1_c4s1_000004_00.jpg",
    ):
        save(tmp_path / name)
    (tmp_path / "bounding_box_test" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "readme.txt").write_text("")
    return tmp_path


def test_market_1501(market):
    images = load_images(market)
    assert images.table.drop("box").rows() == [
        ("bounding_box_train/0002_c1s1_000451_03.jpg", "0002", "1", "train", None),
        ("bounding_box_train/0002_c3s2_000451_03.jpg", "0002", "3", "train", None),
        ("query/0007_c6s1_000001_00.jpg", "0007", "6", "test", "query"),
        # 0000 is nobody's match, -1 is left out
        ("bounding_box_test/0000_c2s1_000003_00.jpg", None, "2", "test", "gallery"),
        ("bounding_box_test/0007_c2s1_000002_00.jpg", "0007", "2", "test", "gallery"),
    ]
    assert images.missing() == []
    assert images.layout == "market1501"
    assert images.notes == (
        "Market-1501: 2 training images, published 12,936",
        "Market-1501: 1 training objects, published 751",
        "Market-1501: 1 query images, published 3,368",
        "Market-1501: 1 query objects, published 750",
        "Market-1501: 2 gallery images without junk, published 15,913",
        "Market-1501: 1 gallery distractors, published 2,798",
    )


def test_market_1501_with_a_strange_name(market):
    save(market / "query" / "person.jpg")
    with pytest.raises(UserError, match=r"person\.jpg: not a Market-1501 name"):
        load_images(market)


def test_an_index_file_comes_before_the_layout(market):
    (market / "index.csv").write_text("path,object\nquery/0007_c6s1_000001_00.jpg,x\n")
    assert load_images(market).objects() == ["x"]


def test_a_part_is_missing(market):
    for path in (market / "query").iterdir():
        path.unlink()
    (market / "query").rmdir()
    with pytest.raises(UserError) as caught:
        load_images(market)
    message = str(caught.value)
    assert "not a whole Market-1501: missing query/" in message
    assert "found bounding_box_train/, bounding_box_test/" in message
    assert "https://" in message and "academic" in message
    plain = load_images(market, layout="folder")
    assert set(plain.objects()) == {"bounding_box_train", "bounding_box_test"}


def test_a_layout_asked_for_by_name(market, tmp_path_factory):
    assert load_images(market, layout="market1501").layout == "market1501"
    other = tmp_path_factory.mktemp("other")
    with pytest.raises(UserError, match="found none of its parts"):
        load_images(other, layout="market1501")
    with pytest.raises(UserError, match="--layout market: none of folder, market1501"):
        load_images(other, layout="market")
