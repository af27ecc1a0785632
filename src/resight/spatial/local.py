"""Local features of a picture: where its keypoints are, and what it looks like around each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

SMALLEST = 256  # px: a picture of 64 has hardly a keypoint, the same picture enlarged has some
_CONTRAST = 0.02  # half of OpenCV's: smooth objects have keypoints too, and `points` is the limit


class SpatialOptions(BaseModel):
    """How two pictures are compared by what is where in them.

    `detector`: "sift", or "aliked" (learned) with the file of its `weights`. `side`: pictures with
    a longer long side are brought down to it; those below 256 px are enlarged to that. `points`:
    keypoints a picture at most, the strongest. `ratio`: the nearest descriptor must be this much
    nearer than the second (Lowe's test). `tolerance`: px, at that size, that a match may be away
    from where the homography puts it. `iterations`: samples that are tried for the homography.
    `min_inliers`: from here on a pair counts as verified; unrelated pictures reach 4 to 6.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: Literal["sift", "aliked"] = "sift"
    weights: str | None = None
    side: Annotated[int, Field(ge=64, le=4096)] = 480
    points: Annotated[int, Field(ge=8, le=8192)] = 1000
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.85
    tolerance: Annotated[float, Field(gt=0, le=100)] = 4.0
    iterations: Annotated[int, Field(ge=10, le=1_000_000)] = 2000
    min_inliers: Annotated[int, Field(ge=4)] = 8

    @model_validator(mode="after")
    def _weights_given(self) -> SpatialOptions:
        if self.detector == "aliked" and self.weights is None:
            raise ValueError("detector aliked needs weights: the path of aliked-n16.pth")
        return self


@dataclass(frozen=True)
class LocalFeatures:
    """`points` (n, 2) float32: x, y in px of the picture as compared, `size`: its width and height.

    `descriptors` (n, 128): uint8 (SIFT) or int8 (ALIKED), strongest keypoint first.
    """

    points: NDArray[np.float32]
    descriptors: NDArray[Any]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.points)


def local_features(image: Image.Image, options: SpatialOptions) -> LocalFeatures:
    """The keypoints and descriptors of an RGB picture; none of them on a blank one.

    Raises UserError when ALIKED's weights or its library are missing.
    """
    picture = np.asarray(to_side(image, options.side).convert("RGB"))
    descriptors: NDArray[Any]
    if options.detector == "aliked":
        from resight.spatial.aliked import aliked  # torch and kornia only where they are used

        points, descriptors = aliked(picture, str(options.weights), options.points)
    else:
        points, descriptors = _sift(picture, options.points)
    return LocalFeatures(points, descriptors, (picture.shape[1], picture.shape[0]))


def to_side(image: Image.Image, side: int) -> Image.Image:
    """The picture at the size at which keypoints are looked for: shape kept."""
    longest = max(image.size)
    scale = min(1.0, side / longest)
    if longest < min(SMALLEST, side):
        scale = min(SMALLEST, side) / longest
    if scale == 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    kind = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return image.resize(size, kind)


def _sift(picture: NDArray[np.uint8], most: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The strongest `most` keypoints (n, 2) of an RGB picture and their RootSIFT (n, 128).

    RootSIFT: the square root of the L1-normalised SIFT (Arandjelovic and Zisserman, "Three things
    everyone should know to improve object retrieval", CVPR 2012), here times 255 and rounded.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    finder = cv2.SIFT.create(nfeatures=most, contrastThreshold=_CONTRAST)
    found, raw = finder.detectAndCompute(grey, None)
    if raw is None or not len(found):
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8)
    points = np.array([key.pt for key in found], np.float32)
    details = np.array([(-key.response, key.size, key.angle) for key in found])
    # OpenCV keeps more than asked for where the last ones are equally strong.
    order = np.lexsort((details[:, 2], details[:, 1], points[:, 0], points[:, 1], details[:, 0]))
    order = order[:most]
    share = raw[order] / np.maximum(raw[order].sum(axis=1, keepdims=True), 1e-12)
    return points[order], np.rint(255 * np.sqrt(share)).astype(np.uint8)
