"""Which keypoints of two pictures show the same place, and whether one plane explains them.

Mutual nearest neighbours with Lowe's ratio test in both directions, then a homography by MAGSAC++
(Barath et al., "MAGSAC++, a fast, reliable and accurate robust estimator", CVPR 2020, in OpenCV),
which draws its samples among the best matches first (PROSAC, Chum and Matas, CVPR 2005).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from resight.spatial.local import LocalFeatures, SpatialOptions

Pairs = NDArray[np.int64]
Floats = NDArray[np.float64]

_MOST_SCALE = 12.0  # times that one picture may show the thing larger than the other
_MOST_STRETCH = 8.0  # ratio of the two axes of a circle's image; a plane at 75 degrees has 4


def match(a: LocalFeatures, b: LocalFeatures, ratio: float) -> Pairs:
    """Rows of `a` and `b` that are each other's nearest, (m, 2) int64, clearest match first.

    A match is kept when its distance is below `ratio` times that to the second nearest, seen from
    either side; so equal descriptors within a picture match nothing, and match(b, a) is match(a, b)
    with its columns exchanged.
    """
    if not len(a) or not len(b):
        return np.zeros((0, 2), np.int64)
    far = _squared_distances(a.descriptors, b.descriptors)
    rows = np.arange(len(a))
    to = far.argmin(axis=1)
    nearest = far[rows, to]
    from_b = far.min(axis=0)
    far[rows, to] = np.inf
    second = far.min(axis=1)
    far[rows, to] = nearest  # as before: the columns are looked at next
    share = ratio * ratio
    kept = np.flatnonzero(_clear(nearest, second, share) & (nearest == from_b[to]))
    # Two rows at the same distance from one column: neither is its only nearest.
    kept = kept[np.bincount(to[kept], minlength=len(b))[to[kept]] == 1]
    columns = to[kept]
    far[kept, columns] = np.inf
    second_b = far.min(axis=0)[columns]
    clear = _clear(nearest[kept], second_b, share)
    kept, columns, second_b = kept[clear], columns[clear], second_b[clear]
    runner_up = np.minimum(second[kept], second_b).astype(np.float64)
    order = np.argsort(nearest[kept] / runner_up, kind="stable")
    return np.stack([kept[order], columns[order]], axis=1)


def _squared_distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
    """(n, m). Exact for descriptors of 8 bits: all sums are whole numbers that float32 holds."""
    wide_a, wide_b = a.astype(np.float32), b.astype(np.float32)
    far: NDArray[np.float32] = wide_a @ wide_b.T
    far *= -2
    far += np.einsum("nd,nd->n", wide_a, wide_a)[:, None]
    far += np.einsum("nd,nd->n", wide_b, wide_b)[None, :]
    return far


def _clear(near: NDArray[Any], second: NDArray[Any], share: float) -> NDArray[np.bool_]:
    """Lowe's test on squared distances; float64, so that both directions round alike."""
    return np.asarray(near < share * second.astype(np.float64))


def homography(
    a: LocalFeatures, b: LocalFeatures, options: SpatialOptions
) -> tuple[Floats | None, Pairs, NDArray[np.bool_]]:
    """The homography from `a` to `b` (3, 3) or None, the matches (m, 2), which agree (m,) bool.

    A match agrees when it is within `options.tolerance` px in both pictures. None, and none agree,
    when there are fewer than four matches or the homography found is no view of a plane: mirrored,
    enlarging or stretching beyond reason, through the horizon, or held by points on one line.
    The same for the same features: OpenCV's sampling has a seed of its own.
    """
    pairs = match(a, b, options.ratio)
    none = np.zeros(len(pairs), bool)
    if len(pairs) < 4:
        return None, pairs, none
    from_a = a.points[pairs[:, 0]].astype(np.float64)
    to_b = b.points[pairs[:, 1]].astype(np.float64)
    try:
        found, _ = cv2.findHomography(from_a, to_b, _sampling(options))
    except cv2.error:  # OpenCV's word for points that fix no homography at all
        found = None
    if found is None or found.shape != (3, 3) or not _usable(found):
        return None, pairs, none
    agree = _agreeing(found, from_a, to_b, options.tolerance)
    if not _plausible(found, from_a[agree], to_b[agree], options.tolerance):
        return None, pairs, none
    return found / found[2, 2], pairs, agree


def count_inliers(a: LocalFeatures, b: LocalFeatures, options: SpatialOptions) -> int:
    """How many places of the two pictures agree on one homography; 0 where `homography` has none.

    Places, not matches: SIFT gives a place with two main directions two keypoints.
    """
    _, pairs, agree = homography(a, b, options)
    places = [_places(a.points[pairs[agree, 0]]), _places(b.points[pairs[agree, 1]])]
    return min(places)


def _places(points: NDArray[np.float32]) -> int:
    return len(np.unique(np.rint(points), axis=0))


def _sampling(options: SpatialOptions) -> Any:
    """OpenCV's own settings of USAC_MAGSAC, with a fixed seed and with the best matches first."""
    settings = cv2.UsacParams()
    settings.threshold = options.tolerance
    settings.confidence = 0.999
    settings.maxIterations = options.iterations
    settings.sampler = cv2.SAMPLING_PROSAC
    settings.score = cv2.SCORE_METHOD_MAGSAC
    settings.loMethod = cv2.LOCAL_OPTIM_SIGMA
    settings.loIterations, settings.loSampleSize = 10, 50
    settings.final_polisher, settings.final_polisher_iterations = cv2.MAGSAC, 3
    settings.randomGeneratorState = 0
    settings.isParallel = False
    return settings


def _usable(found: Floats) -> bool:
    """Whether it can be inverted and scaled to 1 in its last place."""
    return bool(np.isfinite(found).all() and abs(found[2, 2]) > 1e-9 and np.linalg.det(found) != 0)


def _agreeing(found: Floats, from_a: Floats, to_b: Floats, tolerance: float) -> NDArray[np.bool_]:
    """(m,) whether a match is within `tolerance` px there and back."""
    there = np.linalg.norm(transfer(found, from_a) - to_b, axis=1)
    back = np.linalg.norm(transfer(np.linalg.inv(found), to_b) - from_a, axis=1)
    return np.asarray((there <= tolerance) & (back <= tolerance))


def transfer(found: NDArray[Any], points: NDArray[Any]) -> Floats:
    """Points (n, 2) under a homography (3, 3), float64; those of the horizon are far away."""
    lifted = points @ found[:, :2].T + found[:, 2]
    depth = lifted[:, 2:]
    moved: Floats = lifted[:, :2] / np.where(np.abs(depth) < 1e-12, 1e-12, depth)
    return moved


def _plausible(found: Floats, from_a: Floats, to_b: Floats, tolerance: float) -> bool:
    """Whether it can be a plane seen twice, judged where its inliers (k, 2) are."""
    if len(from_a) < 4:
        return False
    scaled = found / found[2, 2]
    depth = from_a @ scaled[2, :2] + 1
    # One side of the horizon; and det(H) / depth^3 is the area's change, negative in a mirror.
    if depth.min() <= 0 < depth.max() or np.linalg.det(scaled) * depth[0] <= 0:
        return False
    for points in (from_a, to_b):
        spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if spread[1] / np.sqrt(len(points)) < tolerance / 2:
            return False  # on one line: whatever lies beside it is not fixed
    centre = from_a.mean(axis=0)
    at = transfer(scaled, centre[None])[0]
    slope = (scaled[:2, :2] - np.outer(at, scaled[2, :2])) / (scaled[2, :2] @ centre + 1)
    long, short = np.linalg.svd(slope, compute_uv=False)
    scale = np.sqrt(long * short)
    return bool(1 / _MOST_SCALE < scale < _MOST_SCALE and long < _MOST_STRETCH * short)
