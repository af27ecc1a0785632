"""The built-in protocols, protocols as files, and what is said of a file that is wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from resight.data.imageset import ImageSet, normalise
from resight.data.layouts import LAYOUTS
from resight.errors import UserError
from resight.evaluate.catalogue import ENTRIES, of_layout, protocol
from resight.evaluate.protocols import Protocol, at_level
from resight.evaluate.scores import evaluate

NAMES = [entry.protocol.name for entry in ENTRIES]


def of(name: str) -> Protocol:
    return protocol(name)


def test_names_are_unique_and_found():
    assert [name for name, times in Counter(NAMES).items() if times > 1] == []
    for entry in ENTRIES:
        assert protocol(entry.protocol.name) is entry.protocol and entry.about
        assert set(entry.protocol.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("name", NAMES)
def test_each_survives_json_and_yaml(name, tmp_path):
    one = of(name)
    through_json = Protocol.from_dict(json.loads(json.dumps(one.to_dict())))
    through_yaml = Protocol.from_dict(yaml.safe_load(yaml.safe_dump(one.to_dict())))
    (tmp_path / "any name.yaml").write_text(one.to_yaml(), encoding="utf-8")
    for back in (through_json, through_yaml, protocol(str(tmp_path / "any name.yaml"))):
        assert back == one and back.notes == one.notes and hash(back) == hash(one)
        assert [type(v) for v in vars(back).values()] == [type(v) for v in vars(one).values()]
    assert at_level(one, one.level) is one


def test_every_setting_survives_a_file(tmp_path):
    whole = Protocol(
        "query-gallery", name="Größe, ü", level="image", split="val", rows="a=b", queries="q",
        within="w", min_images=2, gallery_images=3, repeats=4, seed=5, positives=("p", "r"),
        junk=("j",), crop="none", size=(256, 128), resize="fit", scales=(1.0, 0.5),
        ap="trapezoidal", ap_at=7, ap_divisor="found", cutoffs=(2, 9), ties="pessimistic",
        pairs=True, open_set=True, notes=("why: because",),
    )  # fmt: skip
    (tmp_path / "a.yml").write_text(whole.to_yaml(), encoding="utf-8")
    back = Protocol.read(tmp_path / "a.yml")
    assert back == whole and back.notes == whole.notes
    assert Protocol.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


def test_each_layout_has_its_own():
    layouts = {layout.name for layout in LAYOUTS}
    named = {entry.layout for entry in ENTRIES}
    assert named - {""} <= layouts
    assert layouts - named == {"veri"}  # without a publication among ours
    for layout in layouts:
        usual = of_layout(layout)
        assert bool(usual) == (layout in named)
        assert all(one.name.startswith(layout) and one.split == "test" for one in usual)
        assert not any(one.legacy for one in usual)
        for level in ("image", "object"):
            assert of_layout(layout, level) == [one for one in usual if one.level == level]
    assert of_layout("") == [] and of_layout("no such") == []


def test_what_the_papers_say():
    """papers.md: sections A, B and C."""
    for name in ("market1501", "dukemtmc"):
        one = of(name)
        assert one.cross_camera and one.mode == "query-gallery" and one.ap == "rectangular"
        assert {1, 5, 10, 20, 50} <= set(one.cutoffs)
        assert [p.name for p in of_layout(name)] == [name, f"{name}-centroid"]
        assert of(f"{name}-centroid-legacy").legacy and of(f"{name}-centroid").cross_camera
    for name in ("deepfashion", "street2shop"):
        assert not of(name).cross_camera and not of(f"{name}-centroid").cross_camera
        assert of(name).mode == "query-gallery"
    assert of("street2shop-per-category").within == "category" and of("street2shop").within is None
    assert of("sop").cutoffs == (1, 10, 100, 1000) and of("inat2018").cutoffs == (1, 4, 16, 32)
    for name in ("sop", "inat2018", "vggface2", "ijbc", "vehicleid-small"):
        assert of(name).mode == "leave-one-out" and of(name).repeats == 1
    assert of("ijbc").templates == "template" and of("ijbc").min_images == 5
    for size in ("small", "medium", "large"):
        one = of(f"vehicleid-{size}-one-gallery")
        assert (one.gallery_images, one.repeats, one.rows) == (1, 10, size)
        assert of(f"vehicleid-{size}").rows == size
    for layout in ("roxford5k", "rparis6k"):
        easy, medium, hard = (of(f"{layout}-{name}") for name in ("easy", "medium", "hard"))
        assert easy.positives == ("easy",) and set(easy.junk) == {"junk", "hard"}
        assert set(medium.positives) == {"easy", "hard"} and medium.junk == ("junk",)
        assert hard.positives == ("hard",) and set(hard.junk) == {"junk", "easy"}
        for one in (easy, medium, hard):
            assert one.ap == "trapezoidal" and one.size == 1024 and one.crop == "box"
            assert one.precisions == (1, 5, 10)
            assert one.scales == pytest.approx((1, 0.7071, 0.5), abs=1e-4)
    for usage in ("public", "private"):
        one = of(f"gldv2-{usage}")
        assert (one.metric, one.ap_at, one.ap_divisor, one.ap) == (
            "mAP@100", 100, "min", "rectangular",
        )  # fmt: skip
        assert one.queries == f"usage={usage}"
    assert of("instre").size == 256
    assert of("cross-camera").cross_camera and of("single-shot").repeats == 100


@pytest.fixture(scope="module")
def everything() -> ImageSet:
    """A set with all columns that any protocol reads."""
    rng = np.random.default_rng(0)
    n = 200
    truth = {
        name: [[str(v) for v in rng.choice(n, 2)] for _ in range(n)]
        for name in ("easy", "hard", "junk", "positives")
    }
    table = pl.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(n)],
            "name": [str(i) for i in range(n)],
            "object": [f"o{i % 11}" for i in range(n)],
            "camera": [f"c{i}" for i in rng.integers(0, 5, n)],
            "split": ["test" if i < 180 else "train" for i in range(n)],
            "role": ["query" if i % 3 == 0 else "gallery" for i in range(n)],
            "category": [f"k{i % 4}" for i in range(n)],
            "template": [f"t{i % 97}" for i in range(n)],
            "usage": [("public", "private", "ignored")[i % 5 % 3] for i in range(n)],
            **{name: list(rng.random(n) < 0.6) for name in ("small", "medium", "large")},
            "gallery_of_val": [i >= 190 for i in range(n)],
        }
    ).with_columns(
        pl.Series(name, values, dtype=pl.List(pl.String)) for name, values in truth.items()
    )
    return ImageSet(normalise(table), Path("."))


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_carried_out(name, everything):
    """Features that hold the object: better than those that hold nothing, and within 0 and 1."""
    rng = np.random.default_rng(1)
    one = of(name)
    objects = np.arange(200) % 11
    features = rng.normal(size=(200, 12)) + 6 * np.eye(12)[objects]
    good = evaluate(features, everything, protocol=one)
    poor = evaluate(rng.normal(size=(200, 12)), everything, protocol=one)
    for scores in (good, poor):
        assert 0 <= scores.mAP <= 1 and scores.protocol is one
        assert scores.per_query["AP"].is_between(0, 1).all()
    if not one.positives:
        assert good.mAP > 0.9 > poor.mAP
    assert {k for k in one.cutoffs if f"R@{k}" + " legacy" * one.legacy in good.names()} == set(
        one.cutoffs
    )
    if one.split == "test":
        assert good.per_query["row"].max() < 180


GOOD = """
mode: query-gallery
split: test
positives: right          # a single one needs no list
junk: [left, other]
cutoffs: 3
scales: [1, 0.5]
size: [256, 128]
notes: mine
"""


def test_a_file_of_a_user(tmp_path):
    path = tmp_path / "my own.yaml"
    path.write_text(GOOD)
    one = protocol(str(path))
    assert one == Protocol(
        "query-gallery", name="my own", split="test", positives=("right",), junk=("left", "other"),
        cutoffs=(3,), scales=(1.0, 0.5), size=(256, 128),
    )  # fmt: skip
    assert one.notes == ("mine",)
    path.write_text(GOOD + "name: called so\n")
    assert protocol(str(path)).name == "called so"
    for ending in (".yml", ".YAML"):
        other = tmp_path / f"b{ending}"
        other.write_text("mode: leave-one-out")
        assert protocol(str(other)).name == "b"


MISTAKES: dict[str, tuple[str, str]] = {
    "unknown key": ("mode: leave-one-out\nkutoffs: [1]", "unknown kutoffs; a protocol has ap,"),
    "key that is a number": ("mode: leave-one-out\n1: 2", "unknown 1; a protocol has"),
    "no mode": ("level: image", "no mode; a protocol has"),
    "empty": ("", "no mode"),
    "wrong mode": ("mode: one-out", "mode = 'one-out': input should be 'query-gallery' or"),
    "wrong kind of mode": ("mode: [1]", "mode = "),
    "wrong ties": ("mode: leave-one-out\nties: random", "ties = 'random': .*optimistic"),
    "wrong ap": ("mode: leave-one-out\nap: interpolated", "ap = 'interpolated': .*trapezoidal"),
    "wrong divisor": ("mode: leave-one-out\nap_divisor: max", "ap_divisor = 'max'"),
    "wrong level": ("mode: leave-one-out\nlevel: pixel", "level = 'pixel'"),
    "number that is a word": ("mode: leave-one-out\nmin_images: some", "min_images = 'some': "),
    "number with a fraction": ("mode: leave-one-out\nrepeats: 1.5", "repeats = 1.5: "),
    "number too small": ("mode: leave-one-out\nap_at: 0", "ap_at 0 is not a whole number from 1"),
    "no gallery": ("mode: leave-one-out\ngallery_images: 0", "gallery_images 0 is not"),
    "negative seed": ("mode: leave-one-out\nseed: -1", "seed -1 is not a whole number from 0"),
    "cutoff of zero": ("mode: leave-one-out\ncutoffs: [1, 0]", r"cutoffs \(1, 0\) are not whole"),
    "no cutoffs": ("mode: leave-one-out\ncutoffs: []", "cutoffs"),
    "cutoff that is a word": ("mode: leave-one-out\ncutoffs: [1, five]", "cutoffs = "),
    "size of zero": ("mode: leave-one-out\nsize: [0, 9]", "size"),
    "size of three": ("mode: leave-one-out\nsize: [1, 2, 3]", "size = "),
    "scales that are words": ("mode: leave-one-out\nscales: [big]", "scales = "),
    "rule that is a word": ("mode: leave-one-out\ncross_camera: maybe", "cross_camera = 'maybe'"),
    "column that is a number": ("mode: leave-one-out\npositives: 7", "positives = 7: "),
    "column that is a list": ("mode: leave-one-out\nwithin: [a]", "within = "),
    "name that is nothing": ("mode: leave-one-out\nname:", "name = None"),
    "what does not go together": (
        "mode: query-gallery\npositives: p\nlevel: object", "listed positives go with image level"
    ),
    "legacy at image level": ("mode: query-gallery\nlegacy: true", "legacy is a form of object"),
    "no YAML": ("a: [", "not valid YAML"),
    "no mapping": ("- mode", "lines of the form name: value"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_file_is_one_clear_line(name, tmp_path):
    text, expected = MISTAKES[name]
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        protocol(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and message.count(str(path)) == 1


def test_a_file_that_is_not_there_and_a_name_that_is_none():
    with pytest.raises(UserError, match=r"^/no/such\.yaml: no such settings file$"):
        protocol("/no/such.yaml")
    with pytest.raises(UserError, match=r"no protocol 'market'; there are market1501, market1501-"):
        protocol("market")
    with pytest.raises(UserError, match=r"no protocol 'xyz'; there are market1501, .*yaml file"):
        protocol("xyz")


def test_levels_change_the_name():
    values: dict[str, Any] = {"mode": "query-gallery", "name": "mine", "cross_camera": True}
    one = Protocol.from_dict(values)
    centroid = at_level(one, "object")
    assert centroid.name == "mine-centroid" and centroid.level == "object"
    assert centroid.cross_camera and at_level(centroid, "image") == one


@pytest.mark.parametrize("name", ["../out", "a/b", "a\\b", ".hidden", "scores.json", "a\nb"])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(UserError, match="can't name a folder"):
        Protocol("leave-one-out", name=name)
