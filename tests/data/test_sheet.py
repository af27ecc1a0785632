"""Contact sheets: every tile in its place, nothing drawn over a neighbour."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from resight.data.sheet import PLAIN, RIGHT, WRONG, Opener, Tile, contact_sheet

PAD, FRAME, TEXT = 6, 4, 14


def places(rows: int, columns: int, tile: int, lines: int, top: int):
    """(row, column, x, y) of the upper left corner of each tile's frame."""
    width, height = tile + 2 * (PAD + FRAME), tile + 2 * FRAME + lines * TEXT + 2 * PAD
    for row in range(rows):
        for column in range(columns):
            yield row, column, column * width + PAD, top + row * height + PAD


def plain(colour: str, size: tuple[int, int] = (50, 50)) -> Image.Image:
    return Image.new("RGB", size, colour)


@pytest.mark.parametrize("title", ["", "Titel ü 鞋"])
def test_tiles_and_frames_stand_in_rows(title):
    colours = [["#800000", "#008000", "#000080"], ["#808000", "#008080", "#800080"]]
    frames = [[RIGHT, WRONG, PLAIN], [None, RIGHT, WRONG]]
    rows = [
        [Tile(plain(c), "caption", f) for c, f in zip(*pair, strict=True)]
        for pair in zip(colours, frames, strict=True)
    ]
    sheet = contact_sheet(rows, title=title, tile=64)
    top = 30 if title else 0
    for row, column, x, y in places(2, 3, 64, 2, top):
        frame = (frames[row][column] or "#eeeeee").lstrip("#")
        expected = tuple(bytes.fromhex(frame))
        for dx, dy in ((0, 0), (71, 0), (0, 71), (71, 71)):
            assert sheet.getpixel((x + dx, y + dy)) == expected
        middle = sheet.getpixel((x + 36, y + 36))
        assert middle == tuple(bytes.fromhex(colours[row][column][1:]))
    assert sheet.size == (320, top + 2 * (64 + 8 + 28 + 12) + PAD)


@pytest.mark.parametrize("size", [(200, 50), (50, 200), (7, 7), (4000, 1), (1, 1)])
def test_pictures_keep_their_shape_inside_the_tile(size):
    sheet = np.asarray(contact_sheet([[Tile(plain("#ff0000", size))]], tile=100))
    red = (sheet == (255, 0, 0)).all(2)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    scale = 100 / max(size)
    assert abs(len(columns) - max(1, size[0] * scale)) <= 1
    assert abs(len(rows) - max(1, size[1] * scale)) <= 1
    assert abs(rows.mean() - (PAD + FRAME + 49.5)) <= 1
    assert abs(columns.mean() - (PAD + FRAME + 49.5)) <= 1


def test_a_caption_is_cut_to_its_own_tile_and_lines():
    long = "a very long name of a file in a very deep folder/0123456789.jpg\nb\nc\nd\ne"
    with_caption = contact_sheet([[Tile(None, long), Tile(None)], [Tile(None)]], lines=2)
    without = contact_sheet([[Tile(None), Tile(None)], [Tile(None)]], lines=2)
    changed = (np.asarray(with_caption) != np.asarray(without)).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert columns.max() <= PAD + 128 + 2 * FRAME
    assert rows.min() >= PAD + 128 + 2 * FRAME
    assert rows.max() < PAD + 128 + 2 * FRAME + 2 * TEXT + PAD


def test_an_unreadable_picture_says_so():
    sheet = contact_sheet([[Tile(None, frame=WRONG)]])
    inside = np.asarray(sheet)[PAD + FRAME : PAD + FRAME + 128, PAD + FRAME : PAD + FRAME + 128]
    assert (inside == 0xEE).all(2).mean() > 0.9 and (inside < 0xC0).any()


def test_a_file_that_is_gone_says_so_and_is_counted(tmp_path):
    plain("#ff0000").save(tmp_path / "here.png")
    (tmp_path / "text.png").write_text("no picture")
    opener = Opener(64)
    tiles = [
        opener.tile(tmp_path / name, None, name, None)
        for name in ("here.png", "gone.png", "text.png", "deep/gone.png", "gone.png")
    ]
    assert [tile.picture is None for tile in tiles] == [False, True, True, True, True]
    words = [tile.why for tile in tiles]
    assert words[1:] == ["file is gone", "not readable", "file is gone", "file is gone"]
    first = tmp_path / "gone.png"
    (line,) = opener.notes()
    assert line.startswith("2 of the 4 photos") and f"(the first: {first})" in line
    sheets = [np.asarray(contact_sheet([[Tile(None, why=why)]])) for why in words[1:3]]
    assert (sheets[0] != sheets[1]).any()
    assert Opener().notes() == []


def test_a_sheet_of_nothing():
    assert contact_sheet([]).size[0] == 320
    assert contact_sheet([[], [Tile(None)]], title="x" * 500).size[0] == 320
