"""INSTRE in its own layout, read from a miniature."""

from __future__ import annotations

import numpy as np
import pytest
from tests.matfiles import save_mat
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate

BOOK, MILK, BOTH = "INSTRE-S1/01a_book/", "INSTRE-S1/01b_milk/", "INSTRE-M/01/"
GALLERY = [f"{BOOK}001.jpg", f"{MILK}001.jpg", f"{BOTH}001.jpg", "INSTRE-S2/Goofy/001.jpg"]
QUERIES = [f"{BOOK}002.jpg", f"{BOTH}002.jpg"]
ENTRIES = [
    {"ok": np.array([[1, 3]], np.uint16), "bbx": np.array([[1, 2, 7, 6]], np.uint16)},
    {"ok": np.array([[1, 2, 3]], np.uint16), "bbx": np.array([[2, 1, 8, 6]], np.uint16)},
]


def truth(folder, **change):
    parts = {"gnd": ENTRIES, "qimlist": QUERIES, "imlist": GALLERY} | change
    return save_mat(folder / "gnd_instre.mat", packed=True, **parts)


@pytest.fixture
def instre(tmp_path):
    truth(tmp_path)
    for name in ("INSTRE-S1", "INSTRE-S2", "INSTRE-M"):
        (tmp_path / name).mkdir()
    save(tmp_path / GALLERY[0])
    return tmp_path


def test_every_row(instre):
    images = load_images(instre)
    assert images.layout == "instre"
    columns = ("path", "object", "split", "role", "box", "positives", "subset")
    assert images.table.select(columns).rows() == [
        (QUERIES[0], None, "test", "query", [1, 2, 7, 6], [GALLERY[0], GALLERY[2]], "S1"),
        (QUERIES[1], None, "test", "query", [2, 1, 8, 6], GALLERY[:3], "M"),
        (GALLERY[0], None, "test", "gallery", None, None, "S1"),
        (GALLERY[1], None, "test", "gallery", None, None, "S1"),
        (GALLERY[2], None, "test", "gallery", None, None, "M"),
        (GALLERY[3], None, "test", "gallery", None, None, "S2"),
    ]
    assert images.table["name"].to_list() == images.table["path"].to_list()
    assert images.notes == (
        "INSTRE: 2 query images, published 1,250",
        "INSTRE: 4 gallery images, published 27,293",
        "INSTRE: 1 gallery images of two objects, published 5,223",
    )


def test_the_truth_in_its_archive_s_folder(instre):
    before = load_images(instre).table
    (instre / "gnd_instre.mat").unlink()
    truth(instre / "test_script")
    assert load_images(instre).table.equals(before)


def test_a_missing_part(instre):
    (instre / "INSTRE-M").rmdir()
    with pytest.raises(UserError, match=r"missing INSTRE-M/; found gnd_instre\.mat"):
        load_images(instre)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imlist": np.array([[1]], np.uint16)}, "imlist is not a list of image names"),
        ({"qimlist": QUERIES[:1]}, "gnd is not one entry for each of 1 queries"),
        ({"gnd": [{"ok": np.array([[0]], np.uint16)}] * 2}, r"gnd\(1\) .*a position below 1"),
        ({"gnd": [{"ok": np.array([[5]], np.uint16)}] * 2}, r"gnd\(1\) .* is broken: IndexError"),
        ({"gnd": [{"ok": np.array([[1]], np.uint16)}] * 2}, r"gnd\(1\) .* is broken: KeyError"),
        ({"gnd": [{"ok": np.array([[np.nan]])}] * 2}, r"gnd\(1\) .* is broken: ValueError"),
    ],
)
def test_a_broken_truth(instre, change, message):
    truth(instre, **change)
    with pytest.raises(UserError, match=rf"gnd_instre\.mat: .*{message}"):
        load_images(instre)


def test_an_image_of_two_objects_matches_both_by_hand(instre):
    """Book, milk, both and Goofy at 20, 30, 10 and 5 degrees, the queries at 0 and 31.

    Query 0 (book) finds Goofy, both (right), book (right): rectangular (1/2 + 2/3) / 2 = 7/12,
    trapezoidal (1/4 + (1/2 + 2/3) / 2) / 2 = 5/12. Query 1 (both) finds milk, book, both: 1.
    """
    asked = protocol("instre")
    expected = {"rectangular": (7 / 12 + 1) / 2, "trapezoidal": (5 / 12 + 1) / 2}[asked.ap]
    features = angles(0, 31, 20, 30, 10, 5)
    scores = evaluate(features, load_images(instre), protocol=asked).summary()
    assert scores[asked.metric] == pytest.approx(expected)
    assert scores["R@1"] == 1 / 2
    assert (scores["queries"], scores["gallery"]) == (2, 4)
