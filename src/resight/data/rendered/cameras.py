"""The cameras: where each one stands, and what it does to the light it gets.

Pictures are (size, size, 3) float32 RGB in 0..1 until `develop` makes them uint8.
Lengths in pixels (blur, motion) are for a picture of 160 px and grow with the size.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Image = NDArray[np.float32]
Span = tuple[float, float]

_NOMINAL = 160


@dataclass(frozen=True)
class Camera:
    """One camera's habits; a `Span` is a range from which each picture draws its own value."""

    name: str
    pitch: Span  # degrees from which it looks down
    yaw: float  # degrees to either side
    roll: float  # degrees to either side
    fill: Span  # the object's height as a share of the picture's
    distance: Span  # in object units; near means strong perspective
    cast: tuple[float, float, float]  # gain of red, green, blue
    contrast: float
    saturation: float
    gamma: float
    blur: Span
    motion: Span
    noise: Span  # standard deviation, of 1
    resolution: Span  # true pixels a pixel of the picture
    quality: tuple[int, int]  # JPEG


CAMERAS = (
    Camera("phone", (5, 28), 36, 8, (0.72, 0.95), (4.5, 7), (1.06, 1.0, 0.93), 1.05, 1.15, 0.95,
           (0.2, 0.6), (0, 0), (0.005, 0.015), (1.0, 1.0), (82, 95)),
    Camera("ceiling", (25, 45), 42, 12, (0.62, 0.82), (3.4, 4.5), (0.92, 1.0, 1.1), 0.95, 0.9, 1.0,
           (0.3, 0.8), (0, 1.5), (0.01, 0.025), (0.65, 0.8), (70, 88)),
    Camera("webcam", (-4, 14), 42, 5, (0.64, 0.92), (4, 7), (0.95, 1.05, 0.92), 0.72, 0.7, 1.0,
           (0.3, 0.8), (0, 2), (0.015, 0.035), (0.55, 0.7), (45, 72)),
    Camera("night", (0, 25), 42, 10, (0.64, 0.9), (4, 7), (1.15, 0.92, 0.66), 1.0, 0.75, 1.2,
           (0.3, 0.8), (0, 4), (0.02, 0.045), (0.75, 0.95), (60, 85)),
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """A pinhole camera at `distance` before the object, which is turned by `rotation` (3, 3).

    `focal` and `centre` (x, y) are in pixels.
    """

    rotation: NDArray[np.float32]
    distance: float
    focal: float
    centre: tuple[float, float]

    @property
    def eye(self) -> NDArray[np.float32]:
        """The camera's place in the object's own coordinates, (3,)."""
        return np.asarray(self.rotation[2] * self.distance, dtype=np.float32)

    def project(self, point: NDArray[np.float32]) -> tuple[float, float, float]:
        """Pixel x, pixel y and depth of a point (3,) of the object."""
        x, y, z = (float(value) for value in self.rotation @ point)
        depth = self.distance - z
        scale = self.focal / depth
        return self.centre[0] + scale * x, self.centre[1] - scale * y, depth

    def rays(self, x0: int, y0: int, x1: int, y1: int) -> NDArray[np.float32]:
        """Directions through the pixels [y0, y1) x [x0, x1), (3, h, w), in the object's terms."""
        x = (np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - self.centre[0])) / self.focal
        y = (np.float32(self.centre[1] - 0.5) - np.arange(y0, y1, dtype=np.float32)) / self.focal
        turn = self.rotation.T[:, :, None, None]
        rays = turn[:, 0] * x[None, None, :] + turn[:, 1] * y[None, :, None] - turn[:, 2]
        return np.asarray(rays, dtype=np.float32)


def aim(camera: Camera, rng: Generator, size: int) -> View:
    """A view of an object as this camera would take it, for a picture `size` px wide and high."""
    yaw = np.radians(rng.uniform(-camera.yaw, camera.yaw))
    pitch = np.radians(rng.uniform(*camera.pitch))
    roll = np.radians(rng.uniform(-camera.roll, camera.roll))
    distance = float(rng.uniform(*camera.distance))
    fill = rng.uniform(*camera.fill)
    slack = (1 - fill) * 0.4 * size
    x, y = rng.uniform(-slack, slack, size=2)
    return View(
        rotation=_rotation(yaw, pitch, roll),
        distance=distance,
        focal=float(fill * size * distance / 2.2),  # 2.2: an object's height and a margin
        centre=(size / 2 + float(x), size / 2 + float(y)),
    )


def _rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float32]:
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    tilt = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(lean @ tilt @ turn, dtype=np.float32)


def develop(camera: Camera, scene: Image, rng: Generator) -> NDArray[np.uint8]:
    """What the camera makes of a scene: colours, vignette, blur, true resolution, noise."""
    size = scene.shape[0]
    picture = _colours(camera, scene) * _vignette(size, float(rng.uniform(0, 0.35)))
    picture = _blur(camera, picture, rng, size / _NOMINAL)
    native = max(8, round(size * float(rng.uniform(*camera.resolution))))
    picture = cv2.resize(picture, (native, native), interpolation=cv2.INTER_AREA)
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    picture = picture + noise * np.float32(rng.uniform(*camera.noise))
    picture = np.clip(picture, 0, 1)
    if native != size:
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(picture * 255 + 0.5, 0, 255), dtype=np.uint8)


def _colours(camera: Camera, scene: Image) -> Image:
    picture = scene * np.array(camera.cast, dtype=np.float32)
    grey = picture.mean(axis=2, keepdims=True)
    picture = grey + (picture - grey) * np.float32(camera.saturation)
    picture = (picture - 0.45) * np.float32(camera.contrast) + np.float32(0.45)
    return np.asarray(np.clip(picture, 0, 1) ** np.float32(camera.gamma), dtype=np.float32)


def _vignette(size: int, strength: float) -> Image:
    """Darkening towards the corners, (size, size, 1)."""
    side = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    fall = np.float32(1) - np.float32(strength / 2) * (side[:, None] + side[None, :])
    return np.asarray(fall[..., None], dtype=np.float32)


def _blur(camera: Camera, picture: Image, rng: Generator, scale: float) -> Image:
    sigma, length = rng.uniform(*camera.blur) * scale, rng.uniform(*camera.motion) * scale
    angle = float(rng.uniform(0, np.pi))
    soft = cv2.GaussianBlur(picture, (0, 0), max(float(sigma), 0.1))
    if length > 1:
        soft = cv2.filter2D(soft, -1, _smear(float(length), angle))
    return np.asarray(soft, dtype=np.float32)


def _smear(length: float, angle: float) -> Image:
    """Kernel of a straight hand movement `length` px long."""
    side = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((side, side), np.float32)
    middle, reach = side / 2 - 0.5, length / 2
    ends = [
        (round(float(middle + s * reach * np.cos(angle))),
         round(float(middle + s * reach * np.sin(angle))))
        for s in (-1, 1)
    ]  # fmt: skip
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)
