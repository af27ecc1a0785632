"""How each kind of object is built: which solid parts carry the printed face, and where.

A builder takes the print (what is on the object) and the family's generator (its proportions),
and returns the parts. Proportions come from the family, so look-alikes have one shape.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from resight.data.rendered.bodies import Ball, Frustum, Part, Quad, Texture, box, disc
from resight.data.rendered.emblems import draw_emblem
from resight.data.rendered.faces import FACE, Colour, Picture, Print, draw_face, draw_word

_STEEL: Colour = (168, 170, 176)
_DARK: Colour = (46, 40, 38)
_PAPER: Colour = (236, 230, 214)


def _opaque(picture: Picture) -> Texture:
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def _plain(colour: Colour, height: int = 8, width: int = 8) -> Picture:
    picture = np.empty((height, width, 3), np.uint8)
    picture[...] = colour
    return picture


def _round(outer: Colour, inner: Colour, rim: float) -> Texture:
    """A disc texture: `outer` colour with an `inner` disc, `rim` the rim's share of the radius."""
    picture = np.zeros((128, 128, 4), np.uint8)
    cv2.circle(picture, (64, 64), 63, (*outer, 255), -1, cv2.LINE_AA)
    cv2.circle(picture, (64, 64), round(63 * (1 - rim)), (*inner, 255), -1, cv2.LINE_AA)
    return picture


def _cut(picture: Picture, mask: NDArray[np.uint8]) -> Texture:
    return np.dstack([picture, mask])


def _package(art: Print, rng: Generator) -> list[Part]:
    wide, high, deep = rng.uniform(0.6, 0.8), rng.uniform(0.8, 1.0), rng.uniform(0.2, 0.45)
    front = draw_face(art, wide / high)
    side = _plain(art.palette.second, FACE, max(32, round(FACE * deep / high)))
    middle = side.shape[1] / 2
    inks = (art.palette.accent, art.palette.base)
    draw_emblem(side, art.emblem, art.emblem_key, (middle, 70), 0.7 * middle, inks)
    draw_word(side, art.word, (middle, 160), (1.6 * middle, 40), art.palette.ink)
    top = _opaque(_plain(art.palette.base))
    return box((wide, high, deep), _opaque(front), _opaque(side), top, gloss=0.25)


def _book(art: Print, rng: Generator) -> list[Part]:
    wide, high, deep = rng.uniform(0.62, 0.78), 1.0, rng.uniform(0.08, 0.16)
    cover = draw_face(art, wide / high)
    cover[:, :6] = (cover[:, :6] * 0.7).astype(np.uint8)  # the crease beside the spine
    pages = _plain(_PAPER, 64, 64)
    pages[:, ::4] = (196, 190, 176)
    spine = _plain(art.palette.second, 40, FACE)
    draw_word(spine, art.word, (FACE / 2, 20), (0.7 * FACE, 26), art.palette.ink)
    parts = box((wide, high, deep), _opaque(cover), _opaque(pages), _opaque(pages.swapaxes(0, 1)))
    upright = np.ascontiguousarray(np.rot90(spine))
    parts[3] = Quad((-wide, 0, 0), (0, 0, deep), (0, high, 0), _opaque(upright))
    return parts


def _mug(art: Print, rng: Generator) -> list[Part]:
    radius, half = rng.uniform(0.62, 0.74), rng.uniform(0.7, 0.85)
    label = _opaque(draw_face(art, np.pi * radius / (2 * half)))
    glaze = _opaque(_plain(art.palette.accent))
    side = float(rng.choice([-1.0, 1.0]))
    parts: list[Part] = [
        Frustum(-half, half, radius * rng.uniform(0.85, 1.0), radius, label, 0.5, 2),
        disc(half, radius, _round(art.palette.accent, _DARK, 0.1)),
    ]
    for angle in np.linspace(-0.45, 0.45, 16) * np.pi:
        x = side * (radius + 0.42 * np.cos(angle) - 0.04)
        parts.append(Ball((x, 0.48 * np.sin(angle), 0.0), (0.1, 0.1, 0.1), glaze, 0.5))
    return parts


def _can(art: Print, rng: Generator) -> list[Part]:
    radius, half = rng.uniform(0.46, 0.62), rng.uniform(0.75, 0.95)
    label = _opaque(draw_face(art, np.pi * radius / (2 * half)))
    steel = _opaque(_plain(_STEEL))
    return [
        Frustum(-half, half, radius, radius, label, 0.6, 2),
        Frustum(half, half + 0.08, radius, radius * 0.86, steel, 0.8),
        Frustum(-half - 0.06, -half, radius * 0.88, radius, steel, 0.8),
        disc(half + 0.08, radius * 0.86, _round(_STEEL, (130, 132, 138), 0.12), gloss=0.5),
    ]


def _bottle(art: Print, rng: Generator) -> list[Part]:
    radius, neck = rng.uniform(0.46, 0.56), rng.uniform(0.14, 0.2)
    low, high, shoulder = -0.82, 0.2, rng.uniform(0.45, 0.6)
    label = _opaque(draw_face(art, np.pi * radius / (high - low)))
    glass = _opaque(_plain(art.palette.second))
    cap = _opaque(_plain(art.palette.accent))
    return [
        Frustum(low, high, radius, radius, label, 0.5, 2),
        Frustum(-1.05, low, radius, radius, glass, 0.9),
        Frustum(high, shoulder, radius, neck, glass, 0.9),
        Frustum(shoulder, 0.92, neck, neck, glass, 0.9),
        Frustum(0.88, 1.06, neck * 1.15, neck * 1.15, cap, 0.4),
        disc(1.06, neck * 1.15, _round(art.palette.accent, art.palette.accent, 0.1)),
    ]


def _sign(art: Print, rng: Generator) -> list[Part]:
    corners = {
        "round": [],
        "triangle": [(128, 4), (252, 226), (4, 226)],
        "square": [(6, 6), (250, 6), (250, 250), (6, 250)],
        "octagon": [(78, 4), (178, 4), (252, 78), (252, 178), (178, 252), (78, 252), (4, 178),
                    (4, 78)],
    }  # fmt: skip
    shape = str(rng.choice(list(corners)))
    centre, radius = ((128, 128), 62) if shape != "triangle" else ((128, 138), 48)
    plate, mask = _plain(art.palette.accent, FACE, FACE), np.zeros((FACE, FACE), np.uint8)
    inner = np.zeros_like(mask)
    if shape == "round":
        cv2.circle(mask, centre, 124, 255, -1, cv2.LINE_AA)
        cv2.circle(inner, centre, 104, 255, -1, cv2.LINE_AA)
    else:
        outline = np.array(corners[shape], np.float64)
        middle = np.array(centre) + ((0, 14) if shape == "triangle" else (0, 0))
        shrink = 0.76 if shape == "triangle" else 0.84
        cv2.fillPoly(mask, [outline.astype(np.int32)], 255, cv2.LINE_AA)
        cv2.fillPoly(
            inner, [((outline - middle) * shrink + middle).astype(np.int32)], 255, cv2.LINE_AA
        )
    cv2.copyTo(_plain(art.palette.base, FACE, FACE), inner, plate)
    lift = 16 if shape != "triangle" else 0
    inks = (art.palette.ink, art.palette.second)
    draw_emblem(plate, art.emblem, art.emblem_key, (128, centre[1] - lift), radius, inks)
    draw_word(plate, art.word, (128, 194), (104, 26), art.palette.ink)
    back = _cut(_plain(_STEEL, FACE, FACE), mask)
    return [
        Quad((0, 0.35, 0.1), (0.75, 0, 0), (0, 0.75, 0), _cut(plate, mask), 0.3),
        Quad((0, 0.35, 0.09), (-0.75, 0, 0), (0, 0.75, 0), back, 0.3),
        Frustum(-1.3, 0.8, 0.06, 0.06, _opaque(_plain(_STEEL)), 0.5),
    ]


def _toy(art: Print, rng: Generator) -> list[Part]:
    fur = _opaque(_plain(art.palette.base))
    paw = _opaque(_plain(art.palette.second))
    belly = _opaque(draw_face(art, 0.9))
    head = _plain(art.palette.base, 128, 128)
    cv2.ellipse(head, (64, 80), (26, 20), 0, 0, 360, _PAPER, -1, cv2.LINE_AA)
    cv2.ellipse(head, (64, 72), (9, 6), 0, 0, 360, _DARK, -1, cv2.LINE_AA)
    for eye in (44, 84):
        cv2.circle(head, (eye, 52), 7, _DARK, -1, cv2.LINE_AA)
    ear = rng.choice([0.16, 0.24, 0.42])  # a bear, a cat, a rabbit
    parts: list[Part] = [
        Ball((0, -0.3, 0), (0.62, 0.7, 0.5), belly),
        Ball((0, 0.62, 0.05), (0.46, 0.42, 0.42), _opaque(head)),
    ]
    for x in (-1.0, 1.0):
        parts.append(Ball((x * 0.32, 0.95 + ear * 0.5, 0), (0.15, float(ear), 0.1), paw))
        parts.append(Ball((x * 0.66, -0.15, 0.12), (0.18, 0.34, 0.2), fur))
        parts.append(Ball((x * 0.36, -0.9, 0.22), (0.24, 0.2, 0.32), paw))
    return parts


def _bag(art: Print, rng: Generator) -> list[Part]:
    wide = rng.uniform(0.62, 0.78)
    face = _opaque(draw_face(art, wide / 0.72))
    width = face.shape[1]
    straps = np.zeros((140, width, 4), np.uint8)
    reach = (round(0.26 * width), 120)
    cv2.ellipse(straps, (width // 2, 140), reach, 0, 180, 360, (*art.palette.accent, 255), 14)
    folds = 1 + 0.07 * np.sin(np.linspace(0, rng.uniform(9, 16), width) + rng.uniform(0, 6))
    face[..., :3] = np.clip(face[..., :3] * folds[None, :, None], 0, 255).astype(np.uint8)
    hem = _opaque(_plain(art.palette.second))
    parts = box((wide, 0.72, 0.16), face, hem, hem)
    moved = [
        Quad((q.centre[0], q.centre[1] - 0.3, q.centre[2]), q.right, q.up, q.texture)
        for q in parts
        if isinstance(q, Quad)
    ]
    handles = [
        Quad((0, 0.42 + 0.39, z), (wide, 0, 0), (0, 0.39, 0), straps, two_sided=True)
        for z in (0.15, -0.15)
    ]
    return [*moved, *handles]


BUILDERS: dict[str, Callable[[Print, Generator], list[Part]]] = {
    "package": _package,
    "mug": _mug,
    "sign": _sign,
    "book": _book,
    "can": _can,
    "toy": _toy,
    "bottle": _bottle,
    "bag": _bag,
}
