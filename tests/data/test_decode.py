"""Decoding against slow oracles, and hostile files."""

from __future__ import annotations

import io
import math
import pickle
import resource
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.pictures import ORIENTATION, claim, encoded, noise, picture

from resight.data.decode import BadImage, decode, upright_size

WHITE = (255, 255, 255)
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """What the EXIF orientation `turn` says about (H, W, 3) pixels."""
    across = pixels.transpose(1, 0, 2)
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: across,
        6: across[:, ::-1],
        7: across[::-1, ::-1],
        8: across[::-1],
    }[turn]


def cropped(pixels: np.ndarray, box) -> np.ndarray:
    height, width = pixels.shape[:2]
    columns = [x for x in range(width) if x + 1 > box[0] and x < box[2]]
    rows = [y for y in range(height) if y + 1 > box[1] and y < box[3]]
    return pixels[rows][:, columns]


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation(kind, turn):
    image = noise(turn)
    data = encoded(image, kind, turn=turn, **LOSSLESS[kind])
    expected = upright(np.asarray(image), turn)
    assert np.array_equal(decode(data), expected)
    box = (3, 5, 15, 18)
    assert np.array_equal(decode(data, box=box), cropped(expected, box))
    with Image.open(io.BytesIO(data)) as opened:
        assert upright_size(opened) == (expected.shape[1], expected.shape[0])


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_of_a_jpeg_at_full_and_at_reduced_size(turn):
    image = picture(turn, (320, 200))
    plain, turned = encoded(image, "JPEG"), encoded(image, "JPEG", turn=turn)
    for target in (None, (50, 50)):
        flat = np.asarray(decode(plain, target=target))
        assert flat.shape[:2] == ((200, 320) if target is None else (50, 80))
        assert np.array_equal(decode(turned, target=target), upright(flat, turn))


edge = st.floats(-8, 40) | st.integers(-8, 40)


@settings(max_examples=150, deadline=None)
@given(box=st.tuples(edge, edge, edge, edge), turn=st.integers(1, 8))
def test_boxes(box, turn):
    image = noise(0)
    expected = cropped(upright(np.asarray(image), turn), box)
    data = encoded(image, "PNG", turn=turn)
    if box[0] >= box[2] or box[1] >= box[3]:
        return  # the image set refuses these
    if expected.size == 0:
        with pytest.raises(BadImage, match="lies outside the"):
            decode(data, box=box)
    else:
        assert np.array_equal(decode(data, box=box), expected)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    target=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    turn=st.integers(1, 8),
    data=st.data(),
)
def test_a_reduced_jpeg_reaches_its_target(size, target, turn, data):
    width, height = size if turn < 5 else size[::-1]
    left = data.draw(st.integers(-20, width - 1))
    top = data.draw(st.integers(-20, height - 1))
    right = data.draw(st.integers(max(left, 0) + 1, width + 20))
    bottom = data.draw(st.integers(max(top, 0) + 1, height + 20))
    box = data.draw(st.sampled_from([None, (left, top, right, bottom)]))
    file = encoded(picture(0, size), "JPEG", turn=turn)
    full, small = decode(file, box=box), decode(file, box=box, target=target)
    assert small.height >= min(target[0], full.height)
    assert small.width >= min(target[1], full.width)
    # By 1, 2, 4 or 8, as far as the target allows; a box's edge may add a pixel on each side.
    shrink = min(full.width / target[1], full.height / target[0])
    factor = max(f for f in (1, 2, 4, 8) if f <= max(1, shrink))
    assert abs(small.width - full.width / factor) <= 2
    assert abs(small.height - full.height / factor) <= 2


@pytest.mark.parametrize("target", [(100, 90), (64, 64), (31, 29)])
def test_a_reduced_jpeg_looks_like_the_full_one_made_small(target):
    file = encoded(picture(3, (800, 600)), "JPEG", quality=90)
    for box in (None, (104, 48, 696, 552)):
        shape = (target[1], target[0])
        full = decode(file, box=box)
        small = decode(file, box=box, target=target)
        assert small.width < full.width / 1.9
        a, b = (
            np.asarray(x.resize(shape, Image.Resampling.BOX), dtype=float) for x in (full, small)
        )
        assert np.abs(a - b).mean() < 2 and np.abs(a - b).max() < 25


@settings(max_examples=25, deadline=None)
@given(
    box=st.tuples(st.integers(0, 200), st.integers(0, 150), st.integers(60, 120)),
    target=st.integers(8, 60),
)
def test_a_reduced_box_is_right_within_a_pixel(box, target):
    left, top, side = box
    image = Image.new("RGB", (400, 300), WHITE)
    image.paste((200, 0, 0), (left, top, left + side, top + side))
    file = encoded(image, "JPEG", quality=95, subsampling=0)
    crop = decode(file, box=(left, top, left + side, top + side), target=(target, target))
    inner = np.asarray(crop)[1:-1, 1:-1].astype(int)
    assert np.abs(inner - (200, 0, 0)).max() < 40
    assert crop.width == pytest.approx(crop.height, abs=1)


def test_other_formats_ignore_the_target():
    assert decode(encoded(noise(0, (64, 64)), "PNG"), target=(8, 8)).size == (64, 64)


def test_16_bits():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(values / 257)
    for kind in ("PNG", "TIFF"):
        result = np.asarray(decode(encoded(Image.fromarray(values), kind)))
        assert np.array_equal(result, np.stack([expected] * 3, axis=2))
    # A dark picture stays dark, whatever its brightest pixel.
    dark = np.asarray(decode(encoded(Image.fromarray(values[:1]), "PNG")))
    assert dark.max() == 1


@pytest.mark.parametrize(
    ("top", "kind"), [(1.0, np.float32), (255, np.float32), (255, np.int32), (65535, np.int32)]
)
def test_32_bits_are_judged_by_the_brightest(top, kind):
    values = (np.linspace(0, 1, 256) * top).astype(kind).reshape(16, 16)
    result = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert np.abs(result.ravel() - np.arange(256.0)).max() <= 1
    assert (result.min(), result.max()) == (0, 255)


def test_float_pictures_may_hold_nothing_at_places():
    values = np.full((4, 4), 0.5, np.float32)
    values[0, 0] = np.nan
    result = np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))
    assert result[0, 0, 0] == 0 and result[1, 1, 0] == 128


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_white(mode):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, len(mode)), dtype=np.uint8)
    result = np.asarray(decode(encoded(Image.fromarray(pixels, mode), "PNG")), dtype=float)
    alpha = pixels[..., -1:] / 255
    expected = pixels[..., :-1] * alpha + 255 * (1 - alpha)
    assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize(
    ("mode", "kind", "key"),
    [("P", "PNG", 1), ("P", "GIF", 1), ("L", "PNG", 80), ("RGB", "PNG", (10, 80, 90))],
)
def test_a_transparent_colour_becomes_white(mode, kind, key):
    image = Image.new("RGB", (4, 4), (200, 10, 10))
    image.putpixel((1, 2), (10, 80, 90))
    if mode == "P":
        image = image.quantize(2)
        key = image.getpixel((1, 2))
    elif mode == "L":
        image = image.convert("L")
        key = image.getpixel((1, 2))
    result = decode(encoded(image, kind, transparency=key))
    assert result.getpixel((1, 2)) == WHITE
    assert result.getpixel((0, 0)) == image.convert("RGB").getpixel((0, 0)) != WHITE


def test_palettes_greys_and_single_bits():
    for mode in ("P", "L", "1"):
        image = noise(0).convert(mode)
        assert np.array_equal(decode(encoded(image, "PNG")), image.convert("RGB"))


def test_cmyk():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    ink = pixels / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    result = np.asarray(decode(encoded(Image.fromarray(pixels, "CMYK"), "TIFF")), dtype=float)
    assert np.abs(result - expected).max() <= 1
    flat = Image.new("CMYK", (16, 16), (0, 200, 100, 20))
    jpeg = decode(encoded(flat, "JPEG", quality=95))
    assert jpeg.mode == "RGB"
    assert jpeg.getpixel((8, 8)) == pytest.approx((235, 50.7, 142.8), abs=3)


def test_the_first_frame_counts():
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("#c00000", "#00c000")]
    more = {"save_all": True, "append_images": frames[1:]}
    for kind in ("GIF", "TIFF", "WEBP", "PNG", "MPO"):
        result = decode(encoded(frames[0], kind, **more))
        assert result.getpixel((5, 5)) == pytest.approx((0xC0, 0, 0), abs=6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_bad(kind):
    data = encoded(noise(0, (64, 64)), kind)
    with pytest.raises(BadImage) as error:
        decode(data[: len(data) * 2 // 3])
    if kind in ("JPEG", "PNG", "GIF"):
        assert error.value.reason == "truncated"


def test_a_bomb_is_refused_before_it_is_unpacked():
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for data in (claim(50_000, 50_000), claim(15_000, 15_000)):
        with pytest.raises(BadImage, match=r"more than 178,956,970 pixels"):
            decode(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert time.process_time() - start < 5
    with pytest.raises(BadImage, match="30 x 20 is more than 599 pixels"):
        decode(encoded(noise(0), "PNG"), max_pixels=599)
    assert decode(encoded(noise(0), "PNG"), max_pixels=600).size == (30, 20)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "print.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")
    reasons = {
        "text.jpg": "not an image of a known format",
        "empty.png": "not an image of a known format",
        "page.png": "not an image of a known format",
        "print.jpg": "not an image of a known format",  # Pillow would start Ghostscript
        "": "a folder, not a file",
        "absent.png": "no such file",
        "text.jpg/a.png": "no such file",
        "nul\0.png": "can't be decoded (embedded null byte)",
    }
    for name, reason in reasons.items():
        with pytest.raises(BadImage) as error:
            decode(tmp_path / name if name else tmp_path)
        assert error.value.reason == reason
        assert error.value.path == str(tmp_path / name if name else tmp_path)
    with pytest.raises(BadImage, match="<bytes>: not an image"):
        decode(b"")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]),
    harm=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.floats(0.2, 1),
)
def test_a_harmed_file_gives_a_picture_or_a_bad_image(kind, harm, keep):
    data = bytearray(encoded(noise(1), kind, **({"exif": b""} if kind == "JPEG" else {})))
    for place, value in harm:
        data[math.floor(place * (len(data) - 1))] = value
    try:
        result = decode(bytes(data[: math.ceil(keep * len(data))]), target=(8, 8), max_pixels=10**6)
    except BadImage:
        return
    assert result.mode == "RGB" and result.width * result.height <= 10**6


def test_sources_may_be_paths_text_or_bytes(tmp_path):
    path = tmp_path / "ä b.png"
    noise(0).save(path)
    for source in (path, str(path), path.read_bytes()):
        assert np.array_equal(decode(source), noise(0))


def test_a_file_is_closed_and_its_picture_stands_alone(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(noise(0), "JPEG", turn=6))
    result = decode(path)
    path.unlink()
    assert result.copy().size == (20, 30)
    assert result.getexif().get(ORIENTATION) in (None, 1)  # nobody turns it once more


def test_a_bad_image_crosses_processes():
    error = pickle.loads(pickle.dumps(BadImage("a/b.png", "truncated")))
    assert (error.path, error.reason, str(error)) == ("a/b.png", "truncated", "a/b.png: truncated")
