"""Vectors on a plane, like ones near each other: what a map of a gallery is drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
NEIGHBOURS = 45  # of each vector that t-SNE is told
_PERPLEXITY, _FEWEST = 15.0, 30
TSNE, PCA = "t-SNE", "PCA"


def have_tsne() -> bool:
    """Whether openTSNE is installed (the extra "map")."""
    from importlib.util import find_spec

    return find_spec("openTSNE") is not None


def on_plane(
    rows: NDArray[np.float32],
    neighbours: NDArray[np.int64],
    similarities: NDArray[np.float32],
    start: Plane | None = None,
    threads: int = 1,
) -> tuple[Plane, str]:
    """Positions (N, 2) within [-1, 1] of unit vectors (N, D), and how they were made.

    t-SNE (van der Maaten and Hinton, 2008) by openTSNE, over the neighbours (N, k) given with
    their similarities, from the first two principal components; those alone where openTSNE is
    not installed, or for few vectors. `start` (N, 2): where a layout was before, NaN for new
    ones, which begin among their neighbours; so a map that grows stays the map one knows.
    """
    if len(rows) < 3:
        return _within(np.arange(2 * len(rows), dtype=float).reshape(-1, 2)), PCA
    flat = _principal(rows)
    if len(rows) < _FEWEST or not have_tsne():
        return _within(flat), PCA
    begun = flat if start is None else _filled(start, neighbours, flat)
    return _within(_tsne(begun, neighbours, similarities, threads)), TSNE


def _tsne(
    begun: NDArray[np.float64],
    neighbours: NDArray[np.int64],
    similarities: NDArray[np.float32],
    threads: int,
) -> NDArray[np.float64]:
    from openTSNE import TSNE as Fit
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.initialization import rescale
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    apart = np.sqrt(np.maximum(2 - 2 * similarities.astype(np.float64), 0))
    known = PrecomputedNeighbors(neighbours.astype(np.int64), apart)
    perplexity = min(_PERPLEXITY, neighbours.shape[1] / 3)
    near = PerplexityBasedNN(knn_index=known, perplexity=perplexity, n_jobs=threads)
    fitted: Any = Fit(n_jobs=threads, random_state=0).fit(
        affinities=near, initialization=rescale(begun)
    )
    return np.asarray(fitted, np.float64)


def _principal(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The first two principal components (N, 2), signs fixed by their heaviest dimension."""
    middle = rows.mean(axis=0, dtype=np.float64)
    spread = np.zeros((rows.shape[1], rows.shape[1]))
    for first in range(0, len(rows), 8192):
        part = rows[first : first + 8192] - middle
        spread += part.T @ part
    _, axes = np.linalg.eigh(spread)
    axes = axes[:, :-3:-1]
    if axes.shape[1] < 2:
        axes = np.concatenate([axes, np.zeros_like(axes)], axis=1)
    heavy = axes[np.abs(axes).argmax(axis=0), np.arange(2)]
    axes = axes * np.where(heavy < 0, -1.0, 1.0)
    return np.concatenate(
        [(rows[at : at + 8192] - middle) @ axes for at in range(0, len(rows), 8192)]
    )


def _filled(
    start: Plane, neighbours: NDArray[np.int64], flat: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`start`, with new ones at the mean of their known neighbours; `flat` where few are known."""
    known = np.asarray(np.isfinite(start).all(axis=1))
    if known.mean() < 0.5:
        return flat
    begun = start.astype(np.float64)
    for at in np.flatnonzero(~known):
        near = neighbours[at][known[neighbours[at]]]
        begun[at] = start[near].mean(axis=0) if len(near) else 0.0
    return begun


def _within(flat: NDArray[np.float64]) -> Plane:
    """Moved and scaled into [-1, 1], its shape kept."""
    if not len(flat):
        return np.zeros((0, 2), np.float32)
    low, high = flat.min(axis=0), flat.max(axis=0)
    half = max(float((high - low).max()) / 2, 1e-12)
    within: Plane = ((flat - (low + high) / 2) / half).astype(np.float32)
    return within
