"""Queries from files, their answers, and the sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.pictures import picture

from resight.data.imageset import ImageSet, normalise
from resight.data.sheet import RIGHT, WRONG
from resight.data.sources import load_images
from resight.errors import UserError
from resight.search.ask import Answer, ask, load_queries, write_sheet
from resight.search.gallery import Gallery, Hit, Hits
from resight.search.rows import gallery_rows, query_rows


@pytest.fixture(scope="module")
def shop(embedder, shapes) -> Gallery:
    return Gallery(embedder).add(load_images(shapes))


def table_of(folder: Path, rows: list[dict]) -> ImageSet:
    schema = {"path": pl.String, "object": pl.String, "split": pl.String, "role": pl.String}
    return ImageSet(normalise(pl.DataFrame(rows, schema=schema)), folder, "rows")


def test_roles_say_who_asks_and_who_is_searched(tmp_path):
    roles = ["query", "gallery", "both", None, "query"]
    splits = ["test", "test", "test", "test", "train"]
    rows = [
        {"path": str(k), "split": split, "role": role}
        for k, (split, role) in enumerate(zip(splits, roles, strict=True))
    ]
    images = table_of(tmp_path, rows)
    assert query_rows(images).to_list() == [0, 2, 3]
    assert gallery_rows(images).to_list() == [1, 2, 3]
    plain = table_of(tmp_path, [row | {"role": None} for row in rows])
    assert query_rows(plain).to_list() == gallery_rows(plain).to_list() == [0, 1, 2, 3, 4]
    unsplit = table_of(tmp_path, [row | {"split": None} for row in rows])
    assert query_rows(unsplit).to_list() == [0, 2, 3, 4]
    with pytest.raises(UserError, match="no row has the role gallery"):
        gallery_rows(table_of(tmp_path, rows[:1]))


def test_queries_of_a_set_are_spread_over_it(tmp_path):
    rows = []
    for k in range(21):
        picture(k, (8, 8)).save(tmp_path / f"{k:02d}.png")
        rows.append({"path": f"{k:02d}.png", "role": "query" if k % 2 == 0 else "gallery"})
    pl.DataFrame(rows).write_csv(tmp_path / "set.csv")
    paths = [tmp_path / "set.csv"]

    def names(limit: int) -> list[str]:
        return load_queries(paths, limit, {}).table["path"].to_list()

    assert names(99) == [f"{k:02d}.png" for k in range(0, 21, 2)]
    for limit in range(1, 12):
        got = names(limit)
        assert len(got) == len(set(got)) == limit
        assert set(got) <= set(names(99)) and got == sorted(got)
    assert names(3) == ["00.png", "10.png", "20.png"]


def test_queries_from_photos_have_no_labels(tmp_path):
    for name in ("a.png", "b.png"):
        picture(1, (8, 8)).save(tmp_path / name)
    photos = [tmp_path / "b.png", tmp_path / "a.png"]
    images = load_queries(photos, 1, {})  # the limit is for sets only
    assert images.full_paths() == photos and not images.has("object")
    with pytest.raises(UserError, match=r"c\.png: not found"):
        load_queries([*photos, tmp_path / "c.png"], 9, {})
    with pytest.raises(UserError, match="an image set goes alone"):
        load_queries([photos[0], tmp_path], 9, {})


def test_a_query_never_finds_its_own_file_at_image_level(shop, shapes, embedder, monkeypatch):
    images = load_images(shapes)
    answers = ask(shop, images, 3)
    assert [answer.object for answer in answers] == images.table["object"].to_list()
    for answer in answers:
        assert len(answer.hits) == 3
        assert answer.path not in [hit.path for hit in answer.hits]
    # Nor when it is called by another name.
    monkeypatch.chdir(shapes / "object 00")
    for name in ("foto_ä0.png", "../object 00/./foto_ä0.png"):
        (answer,) = ask(shop, load_queries([Path(name)], 9, {}), 5)
        assert answer.path == str(shapes / "object 00" / "foto_ä0.png")
        assert answer.path not in [hit.path for hit in answer.hits]
    # A centroid stands for more than the one image, and stays.
    objects = Gallery(embedder, "object").add(images)
    (answer,) = ask(objects, images.rows([0]), 12)
    assert answer.hits[0].object == "object 00" and answer.hits[0].images == 5
    assert len(answer.hits) == 12


def test_answers_say_which_hits_are_right(shop, shapes):
    (answer,) = ask(shop, load_images(shapes).rows([7]), 12)
    content = json.loads(json.dumps(answer.to_dict()))
    assert content["object"] == "object 01"
    assert [hit["right"] for hit in content["hits"]] == [
        hit.object == "object 01" for hit in answer.hits
    ]
    assert sum(hit["right"] for hit in content["hits"]) == 1
    (unknown,) = ask(shop, load_queries([shapes / "object 01" / "foto_ä2.png"], 9, {}), 2)
    assert unknown.object is None
    assert [hit["right"] for hit in unknown.to_dict()["hits"]] == [None, None]
    assert [hit.object for hit in unknown.hits] == [hit.object for hit in answer.hits[:2]]


def test_unreadable_queries(shop, shapes, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    good = shapes / "object 05" / "foto_ä0.png"
    lines: list[str] = []
    both = load_queries([tmp_path / "bad.jpg", good], 9, {})
    (answer,) = ask(shop, both, 2, tell=lines.append)
    assert answer.path == str(good)
    assert lines == [f"skipped {tmp_path / 'bad.jpg'}: not an image of a known format"]
    with pytest.raises(UserError, match="--strict stops"):
        ask(shop, both, 2, strict=True)
    with pytest.raises(UserError, match=r"bad\.jpg: not an image"):
        ask(shop, both.rows([0]), 2)
    with pytest.raises(UserError, match="none of the 2 queries can be read"):
        ask(shop, both.rows([0, 0]), 2)
    with pytest.raises(UserError, match="no embedder"):
        ask(Gallery(), both, 2)


@pytest.mark.parametrize(
    ("ending", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("JPEG", "JPEG"), ("webp", "WEBP")]
)
def test_the_sheet(tmp_path, ending, kind):
    picture(0, (200, 100)).save(tmp_path / "p.png")
    path = str(tmp_path / "p.png")

    def hit(rank: int, name: str, where: str = path) -> Hit:
        return Hit(rank, name, 0.5, where, (0.0, 0.0, 50.0, 50.0), 1)

    hits = [hit(1, "a"), hit(2, "b"), hit(3, "c", str(tmp_path / "gone.png"))]
    both = Hits(tuple(hits)), Hits(tuple(hits[:1]))
    answers = [Answer(path, "a", None, both[0]), Answer(path, None, None, both[1])]
    told: list[str] = []
    out = write_sheet(answers, tmp_path / f"sheet.{ending}", tile=64, tell=told.append)
    assert len(told) == 1 and "1 of the 2 photos on the sheet are gone" in told[0]
    assert f"(the first: {tmp_path / 'gone.png'}); index them where they are now" in told[0]
    with Image.open(out) as sheet:
        assert sheet.format == kind
        # A cell: the tile, 4 of frame and 6 of space around it, two lines of 14 below.
        assert sheet.size == (4 * (64 + 20), 2 * (64 + 8 + 28 + 12) + 6)
        rgb = np.asarray(sheet.convert("RGB")).astype(int)
    for column, colour in ((1, RIGHT), (2, WRONG), (3, WRONG)):
        wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        corner = rgb[6 + 1, column * 84 + 6 + 30]
        assert np.abs(corner - wanted).max() < (60 if kind != "PNG" else 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.png", out.name]


def test_a_sheet_of_an_unknown_kind(tmp_path):
    with pytest.raises(UserError, match=r"sheet\.pdf: its name must end in \.png, \.jpg"):
        write_sheet([], tmp_path / "sheet.pdf")
