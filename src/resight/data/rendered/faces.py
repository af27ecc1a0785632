"""Printed art: patterns, emblems and lettering, put together into the face of an object.

Coordinates inside a face are fractions of its height, so the same art fits any aspect.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from resight.data.rendered.emblems import draw_emblem

Colour = tuple[int, int, int]
Picture = NDArray[np.uint8]
Plane = NDArray[np.float32]
Field = Callable[[Generator, Plane, Plane], Plane]

FACE = 256  # pixels: the height every face is drawn at


@dataclass(frozen=True)
class Palette:
    """The four inks of a print, as RGB 0..255."""

    base: Colour
    second: Colour
    accent: Colour
    ink: Colour


@dataclass(frozen=True)
class Print:
    """All that decides a face; equal values draw equal pixels.

    The keys seed the pattern and the emblem, so that two objects can share the one
    and differ in the other.
    """

    palette: Palette
    layout: str
    pattern: str
    pattern_key: tuple[int, ...]
    emblem: str
    emblem_key: tuple[int, ...]
    word: str
    note: str


@dataclass(frozen=True)
class Layout:
    """Where things go, in fractions of the face's height; `backing` lies under the emblem."""

    emblem_y: float
    emblem_radius: float
    text_y: float
    text_height: float
    pattern_from: float
    pattern_to: float
    backing: str
    margin: float = 0.0  # width of the patterned frame round a plain panel; 0 for no panel


LAYOUTS: dict[str, Layout] = {
    "banner": Layout(0.38, 0.29, 0.82, 0.22, 0.0, 1.0, "disc"),
    "header": Layout(0.62, 0.30, 0.15, 0.22, 0.0, 1.0, "square"),
    "split": Layout(0.32, 0.29, 0.76, 0.22, 0.6, 1.0, "none"),
    "frame": Layout(0.40, 0.27, 0.77, 0.17, 0.0, 1.0, "none", 0.09),
}


def _plane(values: object) -> Plane:
    return np.asarray(values, dtype=np.float32)


def _wave(phase: Plane) -> Plane:
    return _plane(np.sin(phase) * 0.15)


def _stripes(rng: Generator, x: Plane, y: Plane) -> Plane:
    angle = int(rng.integers(4)) * np.pi / 4
    return _wave((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi * rng.uniform(3, 8))


def _dots(rng: Generator, x: Plane, y: Plane) -> Plane:
    count = rng.uniform(4, 8)
    row = np.floor(y * count)
    across, down = (x * count + 0.5 * (row % 2)) % 1 - 0.5, (y * count) % 1 - 0.5
    return _plane((rng.uniform(0.2, 0.36) - np.hypot(across, down)) / count)


def _checks(rng: Generator, x: Plane, y: Plane) -> Plane:
    wave = 2 * np.pi * rng.uniform(2, 5)
    return _plane(np.sin(x * wave) * np.sin(y * wave) * 0.15)


def _zigzag(rng: Generator, x: Plane, y: Plane) -> Plane:
    count = rng.uniform(3, 6)
    saw = np.abs((x * count) % 1 - 0.5)
    return _wave((y * count + saw) * 2 * np.pi)


def _waves(rng: Generator, x: Plane, y: Plane) -> Plane:
    bend = rng.uniform(0.03, 0.08) * np.sin(x * 2 * np.pi * rng.uniform(1.5, 3))
    return _wave((y + bend) * 2 * np.pi * rng.uniform(4, 8))


def _rings(rng: Generator, x: Plane, y: Plane) -> Plane:
    far = np.hypot(x - rng.uniform(0, 0.8), y - rng.uniform(0, 1))
    return _wave(far * 2 * np.pi * rng.uniform(4, 8))


def _rays(rng: Generator, x: Plane, y: Plane) -> Plane:
    angle = np.arctan2(y - rng.uniform(0.2, 0.8), x - 0.4)
    return _wave(angle * int(rng.integers(5, 13)))


def _plaid(rng: Generator, x: Plane, y: Plane) -> Plane:
    wave = 2 * np.pi * rng.uniform(2, 4)
    return _plane((np.maximum(np.sin(x * wave), np.sin(y * wave)) - rng.uniform(0.5, 0.85)) * 0.15)


def _triangles(rng: Generator, x: Plane, y: Plane) -> Plane:
    count = rng.uniform(4, 7)
    return _plane(((y * count) % 1 - 2 * np.abs((x * count) % 1 - 0.5)) / count)


def _gradient(rng: Generator, x: Plane, y: Plane) -> Plane:
    # The slope is far below that of the other patterns, so that the edge stays a blend.
    angle = rng.uniform(0, 2 * np.pi)
    return _plane(((x - 0.4) * np.cos(angle) + (y - 0.5) * np.sin(angle)) * 0.009)


PATTERNS: dict[str, Field] = {
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "zigzag": _zigzag,
    "waves": _waves,
    "rings": _rings,
    "rays": _rays,
    "plaid": _plaid,
    "triangles": _triangles,
    "gradient": _gradient,
}


def draw_pattern(
    name: str, rng: Generator, height: int, width: int, first: Colour, second: Colour
) -> Picture:
    """A two-coloured pattern, (height, width, 3) uint8, with soft edges about a pixel wide."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(height)
    share = np.clip(PATTERNS[name](rng, x, y) * 100 + 0.5, 0, 1)[..., None]
    low, high = np.array(first, dtype=np.float32), np.array(second, dtype=np.float32)
    return np.asarray(low + (high - low) * share, dtype=np.uint8)


@lru_cache(maxsize=4096)
def _word_mask(word: str) -> Picture:
    """The word in the built-in font, tightly cropped: (h, w) uint8, 255 inside the letters."""
    font = ImageFont.load_default(72)
    left, top, right, bottom = font.getbbox(word)
    image = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4), 0)
    ImageDraw.Draw(image).text((2 - left, 2 - top), word, fill=255, font=font)
    # The built-in font is thin; a printed label is set in bold.
    return np.asarray(cv2.dilate(np.asarray(image), np.ones((5, 5), np.uint8)), dtype=np.uint8)


def draw_word(
    face: Picture, word: str, centre: tuple[float, float], box: tuple[float, float], ink: Colour
) -> None:
    """Letters `word` into `face` (in place), to fill `box` (wide, high) round `centre`; px."""
    mask = _word_mask(word)
    scale = min(box[0] / mask.shape[1], box[1] / mask.shape[0])
    wide, high = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    small = np.asarray(cv2.resize(mask, (wide, high), interpolation=cv2.INTER_AREA))
    left, top = round(centre[0] - wide / 2), round(centre[1] - high / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + wide, face.shape[1]), min(top + high, face.shape[0])
    share = small[y0 - top : y1 - top, x0 - left : x1 - left, None].astype(np.float32) / 255
    part = face[y0:y1, x0:x1]
    part[...] = (part * (1 - share) + np.array(ink) * share).astype(np.uint8)


def draw_face(art: Print, aspect: float) -> Picture:
    """The face of an object: (FACE, round(FACE * aspect), 3) uint8 RGB."""
    height, width = FACE, round(FACE * aspect)
    face = _draw_ground(art, height, width)
    layout, palette = LAYOUTS[art.layout], art.palette
    radius = min(layout.emblem_radius * height, 0.42 * width)
    centre = (width / 2, layout.emblem_y * height)
    _draw_backing(face, layout.backing, centre, radius, palette.base)
    draw_emblem(face, art.emblem, art.emblem_key, centre, radius, (palette.accent, palette.second))
    _draw_text(face, art, layout)
    return face


def _draw_ground(art: Print, height: int, width: int) -> Picture:
    layout, palette = LAYOUTS[art.layout], art.palette
    face = np.empty((height, width, 3), np.uint8)
    face[...] = palette.base
    top, bottom = round(layout.pattern_from * height), round(layout.pattern_to * height)
    rng = np.random.default_rng(art.pattern_key)
    drawn = draw_pattern(art.pattern, rng, height, width, palette.base, palette.second)
    face[top:bottom] = drawn[top:bottom]
    if layout.margin:
        rim = round(layout.margin * height)
        face[rim:-rim, rim:-rim] = palette.base
    return face


def _draw_backing(
    face: Picture, backing: str, centre: tuple[float, float], radius: float, colour: Colour
) -> None:
    x, y, reach = round(centre[0]), round(centre[1]), round(radius * 1.12)
    if backing == "disc":
        cv2.circle(face, (x, y), reach, colour, -1, cv2.LINE_AA)
    elif backing == "square":
        cv2.rectangle(face, (x - reach, y - reach), (x + reach, y + reach), colour, -1)


def _draw_text(face: Picture, art: Print, layout: Layout) -> None:
    height, width = face.shape[:2]
    middle, high = layout.text_y * height, layout.text_height * height
    ink = art.palette.ink
    if not layout.margin:  # over a pattern, letters need a plain band
        cv2.rectangle(
            face, (0, round(middle - high / 2)), (width, round(middle + high / 2)), ink, -1
        )
        ink = art.palette.base
    centre = (width / 2, middle - 0.12 * high)
    draw_word(face, art.word, centre, (0.84 * width, 0.58 * high), ink)
    draw_word(face, art.note, (width / 2, middle + 0.34 * high), (0.6 * width, 0.2 * high), ink)
