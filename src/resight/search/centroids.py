"""Centroids of objects, from sums and counts per (object, camera).

With the sum and the number of an object's images per camera, its centroid is a division, and
"without camera c" or "without this image" a subtraction (CTL, ICONIP 2021; papers.md A):

    centroid of p                      sum_p / n_p
    without the images of camera c     (sum_p - sum_pc) / (n_p - n_pc)
    without the image x                (sum_p - x) / (n_p - 1)

Features go in un-normalised, as the network gives them; centroids come out L2-normalised, so
the division by n drops out. Objects and cameras are integer codes from 0; -1 is an unknown camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.features.rows import Rows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
# Rows added up at once. Fixed, so that a sum doesn't depend on the memory at hand.
_BLOCK = 2048


@dataclass(frozen=True)
class CentroidSums:
    """Sums and counts of P objects, in total and per camera.

    `sums` (P, D) float64 and `counts` (P,): over all images of an object. `camera_sums` (C, D)
    and `camera_counts` (C,): over the images of one (object, camera), for the C pairs that occur;
    `camera_keys` (C,) rising says which: object * n_cameras + camera. Images of an unknown camera
    are in the totals only.
    """

    sums: Floats
    counts: Ints
    camera_sums: Floats
    camera_counts: Ints
    camera_keys: Ints
    n_cameras: int

    @staticmethod
    def of(
        features: Rows, objects: Ints, cameras: Ints | None = None, n_objects: int | None = None
    ) -> CentroidSums:
        """Add up features (N, D) by object (N,) and camera (N,).

        `cameras=None` keeps totals only. Raises ValueError when the lengths differ.
        """
        if len(features) != len(objects) or (cameras is not None and len(cameras) != len(objects)):
            raise ValueError("features, objects and cameras must have the same length")
        n_objects = int(objects.max(initial=-1)) + 1 if n_objects is None else n_objects
        if cameras is None:
            cameras = np.full(len(objects), -1, dtype=np.int64)
        n_cameras = int(cameras.max(initial=-1)) + 1
        keys = np.where(cameras >= 0, objects * n_cameras + cameras, -1)
        kinds, group = np.unique(keys, return_inverse=True)
        known = kinds >= 0
        if known.any():
            per_camera, camera_counts = _add_up(features, group, len(kinds))
            # The totals are the sums of the cameras, and of the images of no camera.
            loose = np.flatnonzero(cameras < 0)
            totals = np.zeros((n_objects, per_camera.shape[1]))
            counts = np.bincount(objects, minlength=n_objects)
            _reduce(per_camera[known], kinds[known] // n_cameras, totals)
            for start in range(0, len(loose), _BLOCK):
                rows = loose[start : start + _BLOCK]
                span = np.asarray(features[int(rows[0]) : int(rows[-1]) + 1])
                _reduce(span[rows - rows[0]], objects[rows], totals)
            return CentroidSums(
                totals, counts, per_camera[known], camera_counts[known], kinds[known], n_cameras
            )
        totals, counts = _add_up(features, objects, n_objects)
        none = np.zeros(0, dtype=np.int64)
        return CentroidSums(totals, counts, totals[:0], none, none, 0)

    def centroids(self) -> Floats:
        """The centroid of every object, (P, D) float64, L2-normalised; zero where none is."""
        return l2_normalise(self.sums)

    def without_camera(self, objects: Ints, cameras: Ints) -> tuple[Floats, Ints]:
        """Sum and count of each object's images that a camera did not take.

        objects, cameras: (K,) codes; camera -1 leaves nothing out. Returns sums (K, D) float64,
        not normalised (so that an image can be taken off as well), and counts (K,).
        """
        sums, counts = self.sums[objects], self.counts[objects]
        wanted = objects * self.n_cameras + cameras
        place = np.searchsorted(self.camera_keys, wanted)
        inside = (cameras >= 0) & (cameras < self.n_cameras) & (place < len(self.camera_keys))
        found = np.flatnonzero(inside)
        found = found[self.camera_keys[place[found]] == wanted[found]]
        sums[found] -= self.camera_sums[place[found]]
        counts[found] -= self.camera_counts[place[found]]
        sums[counts == 0] = 0  # exactly, whatever the roundings left
        return sums, counts

    def without_image(self, objects: Ints, images: NDArray[Any]) -> tuple[Floats, Ints]:
        """Sum and count of each object's images without one of its own, images (K, D)."""
        sums, counts = self.sums[objects] - images, self.counts[objects] - 1
        sums[counts == 0] = 0
        return sums, counts


def joined(vectors: NDArray[np.float32], counts: Sequence[int]) -> NDArray[np.float32]:
    """One query a thing: the centroid of its photos' vectors (N, D); rows in the order of `counts`,
    how many photos each thing has. One photo each: as they are."""
    if all(count == 1 for count in counts):
        return vectors
    things = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return CentroidSums.of(vectors, things).centroids().astype(np.float32)


def l2_normalise(rows: NDArray[Any]) -> Floats:
    """Rows (N, D) scaled to length 1, as float64; a zero row stays zero."""
    wide = np.asarray(rows, dtype=np.float64)
    norms = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    scaled: Floats = wide / np.where(norms > 0, norms, 1)[:, None]
    return scaled


def _add_up(features: Rows, group: Ints, n_groups: int) -> tuple[Floats, Ints]:
    """Sums (n_groups, D) float64 and counts (n_groups,) of the rows of each group."""
    sums = np.zeros((n_groups, features.shape[1]))
    for start in range(0, len(group), _BLOCK):
        block = np.asarray(features[start : start + _BLOCK])
        _reduce(block, group[start : start + _BLOCK], sums)
    return sums, np.bincount(group, minlength=n_groups)


def _reduce(rows: NDArray[Any], group: Ints, into: Floats) -> None:
    """Add rows (n, D) to `into` by group: sorted first, so that each group is one run."""
    if not len(rows):
        return
    order = np.argsort(group, kind="stable")
    kinds, starts = np.unique(group[order], return_index=True)
    wide = rows[order].astype(np.float64)
    into[kinds] += np.add.reduceat(wide, starts, axis=0)
