"""Revisited Oxford and Paris in their own layout, read from a miniature."""

from __future__ import annotations

import json
import pickle

import pytest
from tests.pictures import save
from tests.vectors import angles

from resight.data.sources import load_images
from resight.errors import UserError
from resight.evaluate.catalogue import protocol
from resight.evaluate.scores import evaluate

NAMES = [*(f"oxford_00000{number}" for number in range(1, 5)), "balliol_000005"]
TRUTH = {
    "qimlist": ["all_souls_000013", "magdalen_000058"],
    "imlist": NAMES,
    "gnd": [
        {"bbx": [1.5, 2, 7, 6], "easy": [0], "hard": [2], "junk": [1]},
        {"bbx": [0, 0, 8, 6], "easy": [], "hard": [3], "junk": []},
    ],
}


@pytest.fixture
def oxford(tmp_path):
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(TRUTH, protocol=2))
    save(tmp_path / "jpg" / "oxford_000001.jpg")
    return tmp_path


def test_every_row(oxford):
    images = load_images(oxford)
    assert images.layout == "roxford5k"
    columns = ("path", "object", "split", "role", "name", "box", "easy", "hard", "junk")
    queries = [("all_souls_000013", [1.5, 2, 7, 6], [NAMES[0]], [NAMES[2]], [NAMES[1]])]
    queries += [("magdalen_000058", [0, 0, 8, 6], [], [NAMES[3]], [])]
    assert images.table.select(columns).rows() == [
        *((f"jpg/{name}.jpg", None, "test", "query", name, *rest) for name, *rest in queries),
        *((f"jpg/{name}.jpg", None, "test", "gallery", name, *[None] * 4) for name in NAMES),
    ]
    assert images.notes == (
        "Revisited Oxford: 2 query images, published 70",
        "Revisited Oxford: 5 gallery images, published 4,993",
    )


def test_paris_and_json(oxford):
    pickled = load_images(oxford).table
    (oxford / "gnd_roxford5k.pkl").unlink()
    (oxford / "gnd_rparis6k.json").write_text(json.dumps(TRUTH))
    images = load_images(oxford)
    assert images.layout == "rparis6k" and images.table.equals(pickled)
    assert images.notes[1] == "Revisited Paris: 5 gallery images, published 6,322"


def test_a_missing_part(oxford):
    (oxford / "gnd_roxford5k.pkl").unlink()
    wanted = r"missing gnd_roxford5k\.pkl or gnd_roxford5k\.json; found jpg/"
    with pytest.raises(UserError, match=wanted):
        load_images(oxford, layout="roxford5k")


class Evil:
    """A pickle that would run a command."""

    def __reduce__(self):
        return print, ("this must not be printed",)


def test_a_pickle_that_asks_for_code(oxford, capsys):
    (oxford / "gnd_roxford5k.pkl").write_bytes(pickle.dumps({"imlist": Evil()}))
    with pytest.raises(UserError, match=r"builtins\.print, which is not plain data"):
        load_images(oxford)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gnd": None}, "no list 'gnd' in it"),
        ({"qimlist": ["a"]}, "1 queries in qimlist, 2 in gnd"),
        ({"imlist": [7]}, "7 is no name of an image"),
        ({"imlist": ["\ud800"]}, "is no name of an image"),
        ({"gnd": [TRUTH["gnd"][0], {}]}, r"gnd\[1\] \(magdalen_000058\) is broken: KeyError"),
        ({"gnd": [TRUTH["gnd"][0] | {"easy": [5]}] * 2}, r"gnd\[0\] .* is broken: IndexError"),
        ({"gnd": [TRUTH["gnd"][0] | {"junk": [-1]}] * 2}, r"gnd\[0\] .* is broken: IndexError"),
        ({"gnd": [TRUTH["gnd"][0] | {"bbx": "abcd"}] * 2}, r"gnd\[0\] .* is broken: ValueError"),
        ({"gnd": [TRUTH["gnd"][0] | {"bbx": [7, 2, 1, 6]}] * 2}, "x1 < x2 and y1 < y2"),
    ],
)
def test_a_broken_truth(oxford, change, message):
    (oxford / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(TRUTH | change))
    with pytest.raises(UserError, match=message):
        load_images(oxford)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x02]q\x00h\x07.", b"\x80\x02K\x01."])
def test_no_pickle_at_all(oxford, content):
    (oxford / "gnd_roxford5k.pkl").write_bytes(content)
    with pytest.raises(UserError, match=r"gnd_roxford5k\.pkl: "):
        load_images(oxford)


def test_easy_medium_and_hard_by_hand(oxford):
    """Gallery 1 to 5 at 10, 20, 30, 40 and 5 degrees, the queries at 0 and 38.

    Query 0 finds 5, 1, 2, 3, 4. A hit at rank r (from 0) as the h-th gives, trapezoidal,
    ((h - 1) / r + h / (r + 1)) / 2 over the number of positives.
    Easy: 2 and 3 are junk, so 5, 1: (0 + 1/2) / 2 = 1/4. Query 1 has no easy image: left out.
    Hard: 1 and 2 are junk, so 5, 3: 1/4. Query 1 finds 4 first: 1. Mean 5/8.
    Medium: 2 is junk, so 5, 1, 3: ((0 + 1/2) / 2 + (1/2 + 2/3) / 2) / 2 = 5/12. Query 1 finds 4
    first: 1. Mean 17/24.
    """
    images = load_images(oxford)
    features = angles(0, 38, 10, 20, 30, 40, 5)
    for name, value, queries in (("easy", 1 / 4, 1), ("medium", 17 / 24, 2), ("hard", 5 / 8, 2)):
        asked = protocol(f"roxford5k-{name}")
        scores = evaluate(features, images, protocol=asked).summary()
        assert scores[asked.metric] == pytest.approx(value)
        assert (scores["queries"], scores["gallery"]) == (queries, 5)
