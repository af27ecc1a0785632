"""Seeded synthetic features at the sizes of known benchmarks, written to disk and mapped.

An image is its object's centre plus noise. The noise's scale differs by image (log-normal, with a
few outliers three times as far out), so that most positives come first and some lie deep in the
list. Centres and noise live in 64 dimensions and are turned into D by one random matrix: real
features, too, have far fewer directions than numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LATENT, SPREAD, OUTLIERS, FAR = 64, 0.4, 0.03, 3.0
BLOCK = 4096
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """What is measured: `queries` images search the rest; 0: every image searches all others."""

    images: int
    dim: int
    objects: int
    most: tuple[int, int]  # images an object, at least and at most
    noise: float  # how far an image is from its object's centre, in the median
    queries: int = 0
    distractors: int = 0  # gallery images that are each alone
    cameras: int = 0

    @property
    def pairs(self) -> int:
        """Similarities to rank."""
        return (self.queries or self.images) * (self.images - self.queries)

    @property
    def text(self) -> str:
        """In words."""
        if self.queries:
            rule = ", cross-camera" if self.cameras else ""
            return f"{self.queries:,} queries × {self.images - self.queries:,} × {self.dim}{rule}"
        return f"{self.images:,} images, leave one out × {self.dim}"


SIZES = {
    "market": Size(19_281, 2048, 750, (4, 60), 0.8, 3_368, 2_798, 6),
    "sop": Size(60_502, 512, 11_316, (2, 12), 0.85),
    "vggface2": Size(169_000, 256, 500, (87, 843), 0.86),
    "small": Size(1_000, 64, 40, (4, 60), 0.85, 200, 150, 6),
    "small-loo": Size(1_000, 64, 190, (2, 12), 0.9),
}


@dataclass(frozen=True)
class Data:
    """Features (N, D) float32, not normalised, mapped; object (N,); camera (N,) or None."""

    folder: Path
    size: Size
    features: Floats
    object: Ints
    camera: Ints | None

    @staticmethod
    def load(name: str, folder: Path) -> Data:
        """Map what `write` wrote."""
        camera = folder / "camera.npy"
        return Data(
            folder,
            SIZES[name],
            np.load(folder / "features.npy", mmap_mode="r"),
            np.load(folder / "object.npy"),
            np.load(camera) if camera.exists() else None,
        )

    @property
    def queries(self) -> slice:
        """Rows that search."""
        return slice(0, self.size.queries or self.size.images)

    @property
    def gallery(self) -> slice:
        """Rows that are searched."""
        return slice(self.size.queries, self.size.images)

    def shuffled(self) -> Ints:
        """All queries in a fixed random order, for those that may have to stop early."""
        return np.random.default_rng(1).permutation(self.queries.stop)

    def unit(self) -> Floats:
        """A normalised copy of all features."""
        rows = np.array(self.features)
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            part /= np.linalg.norm(part, axis=1, keepdims=True)
        return rows

    def hidden(self, query: int) -> NDArray[np.bool_]:
        """The gallery images that this query doesn't see: itself, or by the camera rule."""
        gallery = np.arange(self.size.queries, self.size.images)
        hidden: NDArray[np.bool_] = gallery == query
        if self.camera is not None:
            same = self.object[self.gallery] == self.object[query]
            hidden |= same & (self.camera[self.gallery] == self.camera[query])
        return hidden

    def average_precision(self, query: int, order: NDArray[Any]) -> float:
        """AP of one query over the whole list; order: gallery places, best first."""
        relevant = (self.object[self.gallery] == self.object[query])[order]
        hits = np.flatnonzero(relevant[~self.hidden(query)[order]]) + 1
        return float(np.mean(np.arange(1, len(hits) + 1) / hits))


def write(name: str, folder: Path) -> None:
    """Make the features and labels of a size, block by block."""
    size, rng = SIZES[name], np.random.default_rng(0)
    counts = _counts(size, rng)
    objects, names = np.repeat(np.arange(size.objects), counts), np.arange(size.objects)
    if size.queries:
        # Each object has two gallery images by different cameras: each query has a match.
        rest = rng.permutation(np.repeat(names, counts - 2))
        alone = np.arange(size.objects, size.objects + size.distractors)
        objects = np.r_[rest[: size.queries], names, names, rest[size.queries :], alone]
        camera = rng.integers(0, size.cameras, len(objects))
        first = size.queries + names
        camera[first + size.objects] = (camera[first] + 1) % size.cameras
        np.save(folder / "camera.npy", camera)
    else:
        rng.shuffle(objects)
    np.save(folder / "object.npy", objects)

    centers = rng.standard_normal((size.objects + size.distractors, LATENT), np.float32)
    basis = rng.standard_normal((LATENT, size.dim), np.float32)
    scale = size.noise * rng.lognormal(0, SPREAD, len(objects))
    scale *= np.where(rng.random(len(objects)) < OUTLIERS, FAR, 1)
    out = np.lib.format.open_memmap(
        folder / "features.npy", "w+", np.float32, (len(objects), size.dim)
    )
    for start in range(0, len(out), BLOCK):
        rows = slice(start, start + BLOCK)
        noise = rng.standard_normal((len(objects[rows]), LATENT), np.float32)
        latent = centers[objects[rows]] + noise * scale[rows, None].astype(np.float32)
        out[rows] = latent @ basis + rng.standard_normal((len(latent), size.dim), np.float32)
    out.flush()


def _counts(size: Size, rng: np.random.Generator) -> Ints:
    """Images an object: within the bounds, with the right sum."""
    total, (least, most) = size.images - size.distractors, size.most
    share = (total / size.objects - least) / (most - least)
    spread = rng.beta(4 * share, 4 * (1 - share), size.objects)
    counts = least + np.rint(spread * (most - least)).astype(np.int64)
    while missing := total - int(counts.sum()):
        room = np.flatnonzero(counts < most if missing > 0 else counts > least)
        some = rng.choice(room, min(len(room), abs(missing)), replace=False)
        counts[some] += np.sign(missing)
    return counts
