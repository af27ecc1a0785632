"""Pictures that have keypoints, the same seen again, and features made by hand."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from resight.spatial.local import LocalFeatures


@lru_cache(maxsize=16)
def scene(number: int, size: int = 320) -> Image.Image:
    """Shapes of all sizes and colours, other ones for each number.

    Not rendered photos of objects: two of those may show the same words, and then match rightly.
    """
    rng = np.random.default_rng([9, number])
    canvas = np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(150):
        colour = rng.integers(0, 256, 3).tolist()
        centre, radius = rng.integers(0, size, 2), int(rng.integers(3, size // 8))
        if rng.random() < 0.5:
            axes = (radius, int(rng.integers(2, radius + 1)))
            cv2.ellipse(canvas, centre.tolist(), axes, rng.uniform(0, 180), 0, 360, colour, -1)
        else:
            corners = centre + rng.integers(-radius, radius + 1, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], colour)
    return Image.fromarray(cv2.GaussianBlur(canvas, (0, 0), 0.8))


def warped(image: Image.Image, homography: np.ndarray) -> Image.Image:
    """The picture as the homography moves it, at the same size, with a little noise."""
    moved = cv2.warpPerspective(np.asarray(image), homography, image.size, borderValue=(128,) * 3)
    noisy = moved + np.random.default_rng(0).normal(0, 4, moved.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def by_hand(points: np.ndarray, seed: int = 0, kinds: np.ndarray | None = None) -> LocalFeatures:
    """Features at these points (n, 2); the descriptor of kind k is the same wherever it stands."""
    kinds = np.arange(len(points)) if kinds is None else kinds
    table = np.random.default_rng(seed).integers(0, 60, (int(kinds.max(initial=0)) + 1, 128))
    return LocalFeatures(points.astype(np.float32), table[kinds].astype(np.uint8), (480, 480))
