"""Solid shapes and where rays meet them.

Units: an object is about 2 high and centred at the origin; x right, y up, z towards the viewer.
Rays are (3, h, w) float32 directions from one eye; a hit's `t` is infinite where the ray misses.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rays = NDArray[np.float32]
Point = tuple[float, float, float]
Texture = NDArray[np.uint8]

_FAR = np.float32(np.inf)
_HALF = np.float32(0.5)


def vector(point: Point) -> NDArray[np.float32]:
    """A point as an array, (3,)."""
    return np.array(point, dtype=np.float32)


class Hit(NamedTuple):
    """Per pixel: distance along the ray, place in the texture (0..1), surface normal."""

    t: Rays
    u: Rays
    v: Rays
    normal: Rays


@dataclass(frozen=True, eq=False)
class Quad:
    """A flat rectangle: centre, half its width to the right, half its height upwards.

    The texture is (h, w, 4) uint8 RGBA; where alpha is below a half the rectangle is cut away.
    """

    centre: Point
    right: Point
    up: Point
    texture: Texture = field(repr=False)
    gloss: float = 0.0
    two_sided: bool = False

    def sphere(self) -> tuple[NDArray[np.float32], float]:
        """A sphere round the shape: centre (3,) and radius."""
        return vector(self.centre), float(np.hypot(_length(self.right), _length(self.up)))

    def hit(self, eye: NDArray[np.float32], rays: Rays) -> Hit | None:
        """Where the rays meet the front; None if only the back is to be seen."""
        right, up = vector(self.right), vector(self.up)
        normal = np.cross(right, up)
        normal /= np.linalg.norm(normal)
        start = eye - vector(self.centre)
        height = float(normal @ start)
        if height <= 0 and not self.two_sided:
            return None
        slope = _dot(normal, rays)
        slope = np.where(slope == 0, np.float32(1e-9), slope)
        t: Rays = np.float32(-height) / slope
        along, over = right / (right @ right), up / (up @ up)
        at_u, at_v = np.float32(along @ start), np.float32(over @ start)
        u, v = at_u + t * _dot(along, rays), at_v + t * _dot(over, rays)
        inside = (np.abs(u) <= 1) & (np.abs(v) <= 1) & (t > 0)
        towards = normal * np.float32(np.sign(height))
        return Hit(
            np.where(inside, t, _FAR),
            (u + 1) * _HALF,
            (1 - v) * _HALF,
            np.broadcast_to(towards[:, None, None], rays.shape),
        )


@dataclass(frozen=True, eq=False)
class Frustum:
    """The side of a cone round the y axis, from (y0, r0) below to (y1, r1) above.

    The texture goes `repeats` times round; the middle of a tile faces the viewer (+z).
    """

    y0: float
    y1: float
    r0: float
    r1: float
    texture: Texture = field(repr=False)
    gloss: float = 0.0
    repeats: int = 1

    def sphere(self) -> tuple[NDArray[np.float32], float]:
        """A sphere round the shape: centre (3,) and radius."""
        reach = np.hypot((self.y1 - self.y0) / 2, max(self.r0, self.r1))
        return vector((0, (self.y0 + self.y1) / 2, 0)), float(reach)

    def hit(self, eye: NDArray[np.float32], rays: Rays) -> Hit | None:
        """Where the rays first meet the outside."""
        slope = (self.r1 - self.r0) / (self.y1 - self.y0)
        radius = self.r0 + slope * (float(eye[1]) - self.y0)  # of the cone at the eye's height
        dx, dy, dz = rays
        a = dx * dx + dz * dz - np.float32(slope**2) * dy * dy
        b = eye[0] * dx + eye[2] * dz - np.float32(slope * radius) * dy
        c = np.float32(eye[0] ** 2 + eye[2] ** 2 - radius**2)
        t = (-b - np.sqrt(np.maximum(b * b - a * c, 0))) / a
        x, y, z = eye[0] + t * dx, eye[1] + t * dy, eye[2] + t * dz
        inside = (b * b > a * c) & (y >= self.y0) & (y <= self.y1) & (t > 0)
        turn = np.arctan2(x, z) * np.float32(self.repeats / (2 * np.pi)) + np.float32(0.5)
        normal = np.stack([x, np.float32(-slope) * np.hypot(x, z), z])
        normal /= np.sqrt((normal * normal).sum(axis=0))
        v = (np.float32(self.y1) - y) / np.float32(self.y1 - self.y0)
        return Hit(np.where(inside, t, _FAR), turn % 1, v, normal)


@dataclass(frozen=True, eq=False)
class Ball:
    """An ellipsoid along the axes; its texture is projected from the front, along z."""

    centre: Point
    radii: Point
    texture: Texture = field(repr=False)
    gloss: float = 0.0

    def sphere(self) -> tuple[NDArray[np.float32], float]:
        """A sphere round the shape: centre (3,) and radius."""
        return vector(self.centre), float(max(self.radii))

    def hit(self, eye: NDArray[np.float32], rays: Rays) -> Hit | None:
        """Where the rays first meet the outside."""
        radii = vector(self.radii)
        start = (eye - vector(self.centre)) / radii
        way = rays / radii[:, None, None]
        a = (way * way).sum(axis=0)
        b = _dot(start, way)
        c = np.float32(start @ start - 1)
        t = (-b - np.sqrt(np.maximum(b * b - a * c, 0))) / a
        at = start[:, None, None] + t * way
        normal = at / radii[:, None, None]
        normal /= np.sqrt((normal * normal).sum(axis=0))
        inside = (b * b > a * c) & (t > 0)
        return Hit(np.where(inside, t, _FAR), (at[0] + 1) / 2, (1 - at[1]) / 2, normal)


Part = Quad | Frustum | Ball


def box(
    half: Point, front: Texture, side: Texture, top: Texture, *, gloss: float = 0.0
) -> list[Part]:
    """A box of the given half sizes; front and back, the two sides, and top and bottom alike."""
    x, y, z = half
    return [
        Quad((0, 0, z), (x, 0, 0), (0, y, 0), front, gloss),
        Quad((0, 0, -z), (-x, 0, 0), (0, y, 0), front, gloss),
        Quad((x, 0, 0), (0, 0, -z), (0, y, 0), side, gloss),
        Quad((-x, 0, 0), (0, 0, z), (0, y, 0), side, gloss),
        Quad((0, y, 0), (x, 0, 0), (0, 0, -z), top, gloss),
        Quad((0, -y, 0), (x, 0, 0), (0, 0, z), top, gloss),
    ]


def disc(y: float, radius: float, texture: Texture, *, gloss: float = 0.0) -> Quad:
    """A level disc that is seen from above (its texture is round by its alpha)."""
    return Quad((0, y, 0), (radius, 0, 0), (0, 0, -radius), texture, gloss)


def _length(way: Point) -> float:
    return float(np.linalg.norm(way))


def _dot(way: NDArray[np.float32], rays: Rays) -> Rays:
    """Dot product of one vector (3,) with each ray: (h, w)."""
    total = way[0] * rays[0] + way[1] * rays[1] + way[2] * rays[2]
    return np.asarray(total, dtype=np.float32)
