"""What is around an object: walls, tables, clutter behind it, things in front of it.

Scenes are (size, size, 3) float32 RGB in 0..1; layers have a fourth channel, alpha, and colours
already multiplied by it.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from resight.data.rendered.cameras import Image
from resight.data.rendered.faces import PATTERNS, Colour, draw_pattern
from resight.data.rendered.objects import PALETTES

_SKIN = ((224, 180, 150), (190, 138, 104), (120, 82, 60))
_PATCH = 64  # pixels: the size clutter is drawn at before it is warped


def over(scene: Image, layer: Image) -> Image:
    """The layer laid over the scene (which may be a layer, too)."""
    kept = scene * (1 - layer[..., 3:])
    return np.asarray(kept + layer[..., : scene.shape[2]], dtype=np.float32)


def background(rng: Generator, size: int) -> Image:
    """A wall, a table before it, and clutter."""
    scene = _surface(rng, size)
    if rng.random() < 0.75:
        horizon = round(size * float(rng.uniform(0.25, 0.75)))
        table = _tilted(_surface(rng, size), rng)
        scene[horizon:] = table[horizon:]
        scene[horizon : horizon + max(1, size // 80)] *= np.float32(rng.uniform(0.5, 0.9))
    for _ in range(int(rng.integers(1, 6))):
        _add_clutter(scene, rng)
    depth = float(rng.uniform(0.3, 1.4)) * size / 160  # the background is a little out of focus
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), depth), dtype=np.float32)


def _colour(rng: Generator) -> Colour:
    """A muted colour, or (a quarter of the time) one that objects have too."""
    if rng.random() < 0.25:
        palette = PALETTES[rng.integers(len(PALETTES))]
        return (palette.base, palette.second, palette.accent)[rng.integers(3)]
    grey, spread = rng.uniform(40, 225), rng.uniform(0, 35)
    red, green, blue = np.clip(grey + rng.uniform(-spread, spread, size=3), 0, 255)
    return int(red), int(green), int(blue)


def _noise(rng: Generator, size: int, stretch: int = 1) -> Image:
    """Cloudy noise, (size, size) about -1..1; `stretch` > 1 draws it out sideways, as in wood."""
    total = np.zeros((size, size), np.float32)
    for cells, weight in ((4, 0.5), (10, 0.3), (24, 0.25), (60, 0.2)):
        grid = rng.uniform(-1, 1, (cells, max(2, cells // stretch))).astype(np.float32)
        total += np.float32(weight) * cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR)
    return total


def _surface(rng: Generator, size: int) -> Image:
    """A plain, grained, patterned or tiled surface, with some unevenness."""
    kind = rng.choice(["plain", "wood", "pattern", "tiles"], p=[0.3, 0.25, 0.25, 0.2])
    first = _colour(rng)
    if kind == "pattern":
        name = str(rng.choice(list(PATTERNS)))
        drawn = draw_pattern(name, rng, size, size, first, _near(first, rng))
        flat = drawn.astype(np.float32)
    else:
        flat = np.empty((size, size, 3), np.float32)
        flat[...] = first
    grain = _noise(rng, size, 8 if kind == "wood" else 1) * np.float32(rng.uniform(0.05, 0.22))
    if kind == "tiles":
        grain = grain - np.float32(0.25) * _joints(rng, size)
    return np.asarray(np.clip(flat / 255 * (1 + grain[..., None]), 0, 1), dtype=np.float32)


def _near(colour: Colour, rng: Generator) -> Colour:
    red, green, blue = np.clip(np.array(colour) + rng.uniform(-45, 45, size=3), 0, 255)
    return int(red), int(green), int(blue)


def _joints(rng: Generator, size: int) -> Image:
    """1 on the joints of a brick wall, (size, size)."""
    rows, wide = int(rng.integers(4, 11)), float(rng.uniform(1.0, 2.5))
    y, x = np.mgrid[0 : rows : size * 1j, 0 : rows / wide : size * 1j]
    x = x + 0.5 * (np.floor(y) % 2)
    return np.asarray((y % 1 < 0.08) | (x % 1 < 0.08 / wide), dtype=np.float32)


def _tilted(surface: Image, rng: Generator) -> Image:
    """The surface lying down: narrower in the distance."""
    size, pinch = surface.shape[0], float(rng.uniform(0.0, 0.35))
    flat = np.array([[0, 0], [size, 0], [size, size], [0, size]], dtype=np.float32)
    seen = np.array([[-pinch, 0], [1 + pinch, 0], [1, 1], [0, 1]], dtype=np.float32) * size
    # The picture shows the middle of a wide far edge, so map the other way round.
    turn = cv2.getPerspectiveTransform(seen, flat)
    tilted = cv2.warpPerspective(surface, turn, (size, size), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(tilted, dtype=np.float32)


def _patch(rng: Generator) -> NDArray[np.uint8]:
    """A printed piece of something, rectangular or oval, (_PATCH, _PATCH, 4) uint8."""
    if rng.random() < 0.6:
        name = str(rng.choice(list(PATTERNS)))
        drawn = draw_pattern(name, rng, _PATCH, _PATCH, _colour(rng), _colour(rng))
    else:
        drawn = np.empty((_PATCH, _PATCH, 3), np.uint8)
        drawn[...] = _colour(rng)
    mask = np.full((_PATCH, _PATCH), 255, np.uint8)
    if rng.random() < 0.35:
        mask[...] = 0
        cv2.circle(mask, (_PATCH // 2, _PATCH // 2), _PATCH // 2 - 1, 255, -1, cv2.LINE_AA)
    left, right = rng.uniform(0.65, 1.1, size=2)
    shade = np.linspace(float(left), float(right), _PATCH)[None, :, None]
    drawn = np.clip(drawn * shade, 0, 255).astype(np.uint8)
    return np.dstack([drawn, mask])


def _paint(canvas: Image, patch: NDArray[np.uint8], corners: NDArray[np.float64]) -> None:
    """Draws the patch, warped to four corners (4, 2) in px, over the canvas (in place)."""
    size = canvas.shape[0]
    x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, size).astype(int)
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, size).astype(int)
    if x0 >= x1 or y0 >= y1:
        return
    flat = np.array([[0, 0], [_PATCH, 0], [_PATCH, _PATCH], [0, _PATCH]], dtype=np.float32)
    turn = cv2.getPerspectiveTransform(flat, (corners - (x0, y0)).astype(np.float32))
    warped = cv2.warpPerspective(patch, turn, (int(x1 - x0), int(y1 - y0)))
    layer = np.asarray(warped, dtype=np.float32) * np.float32(1 / 255)
    layer[..., :3] *= layer[..., 3:]
    canvas[y0:y1, x0:x1] = over(canvas[y0:y1, x0:x1], layer)


def _corners(
    rng: Generator, centre: tuple[float, float], half: tuple[float, float], turn: float
) -> NDArray[np.float64]:
    """A turned and slightly skewed rectangle, (4, 2)."""
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    square = square * (1 + rng.uniform(-0.15, 0.15, size=(4, 2)))
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray(square @ spin + centre, dtype=np.float64)


def _add_clutter(scene: Image, rng: Generator) -> None:
    """One more thing behind the object, anywhere in the scene (in place)."""
    size = scene.shape[0]
    centre = (float(rng.uniform(0, size)), float(rng.uniform(0, size)))
    half = (float(rng.uniform(0.06, 0.26)) * size, float(rng.uniform(0.06, 0.26)) * size)
    turn = float(rng.normal(0, 0.35))
    _paint(scene, _patch(rng), _corners(rng, centre, half, turn))


def occluder(rng: Generator, size: int, frame: tuple[int, int, int, int]) -> Image:
    """Something before an object that fills `frame` (x0, y0, x1, y1): a layer (size, size, 4)."""
    x0, y0, x1, y1 = frame
    wide, high = x1 - x0, y1 - y0
    kind = rng.choice(["bar", "thing", "hand"])
    if kind == "hand":
        return _hand(rng, size, frame)
    if kind == "bar":
        centre = (x0 + wide * float(rng.uniform(0, 1)), y0 + high * 0.5)
        half = (size * float(rng.uniform(0.02, 0.05)), size * 1.3)
    else:
        centre = (x0 + wide * float(rng.integers(2)), y0 + high * float(rng.uniform(0.5, 1.0)))
        half = (wide * float(rng.uniform(0.15, 0.4)), high * float(rng.uniform(0.15, 0.35)))
    layer = np.zeros((size, size, 4), np.float32)
    _paint(layer, _patch(rng), _corners(rng, centre, half, float(rng.normal(0, 0.4))))
    return layer


def _hand(rng: Generator, size: int, frame: tuple[int, int, int, int]) -> Image:
    """Fingers that reach round one side of the object."""
    x0, y0, x1, y1 = frame
    left = rng.random() < 0.5
    edge, inwards = (x0, 1) if left else (x1, -1)
    colour, thick = _SKIN[rng.integers(len(_SKIN))], max(2, round(0.07 * (y1 - y0)))
    top = y0 + (y1 - y0) * float(rng.uniform(0.25, 0.55))
    picture = np.zeros((size, size, 4), np.uint8)
    for finger in range(int(rng.integers(2, 5))):
        y = round(top + finger * thick * 1.15)
        reach = (x1 - x0) * float(rng.uniform(0.12, 0.3))
        start = (edge - inwards * size // 4, y + size // 20)
        tone = 1 - 0.06 * finger
        shaded = (colour[0] * tone, colour[1] * tone, colour[2] * tone, 255)
        cv2.line(picture, start, (round(edge + inwards * reach), y), shaded, thick, cv2.LINE_AA)
    layer = picture.astype(np.float32) * np.float32(1 / 255)
    layer[..., :3] *= layer[..., 3:]
    return layer
