"""A photo of an object: background and clutter, the object, what hides it, light, camera."""

import math

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from resight.data.rendered.backgrounds import background, occluder, over
from resight.data.rendered.bodies import Hit, Part, vector
from resight.data.rendered.cameras import CAMERAS, Camera, Image, View, aim, develop
from resight.data.rendered.objects import build

_FINE = 320  # rays along a side that a face needs; smaller pictures take more rays a pixel
_HIDDEN = 0.3  # an occluder may hide this share of the object; one that hides more is left out


def camera_of(number: int, image: int) -> Camera:
    """Cameras take turns, and start with another one at the next object."""
    return CAMERAS[(number + image) % len(CAMERAS)]


def photograph(seed: int, number: int, image: int, size: int) -> tuple[NDArray[np.uint8], int]:
    """Photo `image` of object `number`: (size, size, 3) uint8 RGB, and the JPEG quality to use."""
    rng = np.random.default_rng((seed, 5, number, image))
    camera = camera_of(number, image)
    view = aim(camera, rng, size)
    scene = background(rng, size)
    light = _light_from(rng)
    thing = cast(build(seed, number).parts, view, size, light)
    scene = over(_shadow(scene, thing[..., 3], view, light), thing)
    scene = _hide(scene, thing[..., 3], rng)
    scene = scene * _light(rng, size)
    quality = int(rng.integers(camera.quality[0], camera.quality[1] + 1))
    return develop(camera, scene, rng), quality


def _light_from(rng: Generator) -> NDArray[np.float32]:
    """Unit vector (3,) towards the lamp, in the camera's terms: above, and rather in front."""
    towards = np.array([rng.uniform(-1, 1), rng.uniform(0.3, 1.2), rng.uniform(0.5, 1.3)])
    return np.asarray(towards / np.linalg.norm(towards), dtype=np.float32)


def cast(parts: list[Part], view: View, size: int, light: NDArray[np.float32]) -> Image:
    """The parts as seen in `view`: (size, size, 4) float32, colours times alpha, and alpha."""
    fine = max(2, math.ceil(_FINE / size))
    side = size * fine
    scaled = View(
        view.rotation, view.distance, view.focal * fine,
        (view.centre[0] * fine, view.centre[1] * fine),
    )  # fmt: skip
    picture = np.zeros((side, side, 4), np.float32)
    depth = np.full((side, side), np.inf, np.float32)
    for part in parts:
        _cast_part(part, scaled, picture, depth, light)
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32)


def _cast_part(
    part: Part, view: View, picture: Image, depth: Image, light: NDArray[np.float32]
) -> None:
    """Draws one part into `picture` where it is nearer than `depth`; updates both in place."""
    side = picture.shape[0]
    centre, radius = part.sphere()
    x, y, away = view.project(centre)
    reach = view.focal * radius / math.sqrt(max(away**2 - radius**2, 0.05)) * 1.02 + 2
    x0, x1 = max(0, int(x - reach)), min(side, int(x + reach) + 1)
    y0, y1 = max(0, int(y - reach)), min(side, int(y + reach) + 1)
    if x0 >= x1 or y0 >= y1:
        return
    hit = part.hit(view.eye, view.rays(x0, y0, x1, y1))
    if hit is None:
        return
    window = (slice(y0, y1), slice(x0, x1))
    seen = hit.t < depth[window]
    colour = _texels(part, hit, seen)
    seen &= colour[..., 3] > 127
    shade, shine = _shade(part, hit, view, light)
    lit = colour * (shade[..., None] / np.float32(255)) + shine[..., None]
    lit[..., 3] = 1
    mask = seen.view(np.uint8)
    cv2.copyTo(lit, mask, picture[window])  # much faster than indexing by a mask
    cv2.copyTo(hit.t, mask, depth[window])


def _texels(part: Part, hit: Hit, seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The texture's colour at each hit, (h, w, 4) uint8."""
    high, wide = part.texture.shape[:2]
    across = np.where(seen, hit.u * np.float32(wide) - np.float32(0.5), np.float32(0))
    down = np.where(seen, hit.v * np.float32(high) - np.float32(0.5), np.float32(0))
    sampled = cv2.remap(
        part.texture, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(sampled, dtype=np.uint8)


def _shade(part: Part, hit: Hit, view: View, light: NDArray[np.float32]) -> tuple[Image, Image]:
    """Diffuse factor and added highlight, each (h, w)."""
    towards = view.rotation.T @ light
    half = towards + view.eye / np.linalg.norm(view.eye)
    half = half / np.linalg.norm(half)
    n = hit.normal
    diffuse = np.maximum(n[0] * towards[0] + n[1] * towards[1] + n[2] * towards[2], 0)
    shine = np.maximum(n[0] * half[0] + n[1] * half[1] + n[2] * half[2], 0)
    for _ in range(5):  # to the 32nd power
        shine = shine * shine
    return np.float32(0.42) + np.float32(0.66) * diffuse, shine * np.float32(0.7 * part.gloss)


def _shadow(scene: Image, alpha: Image, view: View, light: NDArray[np.float32]) -> Image:
    """Darkens the ground with the object's outline, laid down away from the lamp."""
    size = scene.shape[0]
    foot = view.project(vector((0, -1, 0)))[1]
    lean, flat = -0.9 * float(light[0]), 0.35
    turn = np.array([[1, -lean * flat, lean * flat * foot], [0, flat, (1 - flat) * foot]])
    laid = cv2.warpAffine(alpha, turn, (size, size))
    soft = cv2.GaussianBlur(laid, (0, 0), 0.025 * size)
    return np.asarray(scene * (1 - np.float32(0.55) * soft[..., None]), dtype=np.float32)


def _hide(scene: Image, alpha: Image, rng: Generator) -> Image:
    """Four times in ten, something stands before a part of the object."""
    if rng.random() > 0.4:
        return scene
    rows, columns = np.nonzero(alpha > 0.5)
    if not len(rows):
        return scene
    frame = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))
    front = occluder(rng, scene.shape[0], frame)
    hidden = float((front[..., 3] * alpha).sum() / alpha.sum())
    return scene if hidden > _HIDDEN else over(scene, front)


def _light(rng: Generator, size: int) -> Image:
    """Brightness and tint of the light over the picture, (size, size, 3)."""
    y, x = np.mgrid[-0.5 : 0.5 : size * 1j, -0.5 : 0.5 : size * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.float32(rng.uniform(0, 0.6))
    level = 1 + slope * (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)))
    if rng.random() < 0.4:  # the edge of a shadow falls across the picture
        angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
        edge = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) - np.float32(place)
        dark = np.clip(edge * np.float32(rng.uniform(6, 40)) + 0.5, 0, 1)
        level = level * (1 - np.float32(rng.uniform(0.2, 0.45)) * dark)
    tint = rng.uniform(0.9, 1.1, size=3) * np.exp(rng.uniform(-0.3, 0.25))
    return np.asarray(level[..., None] * tint, dtype=np.float32)
