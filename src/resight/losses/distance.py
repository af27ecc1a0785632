"""Distances that every pairwise loss here shares."""

from __future__ import annotations

import torch


def squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances, (N, D) and (M, D) -> (N, M), never negative."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1)[None, :]
    return (squares - 2 * a @ b.T).clamp(min=0)


def distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distances, (N, D) and (M, D) -> (N, M).

    The root's slope is unbounded at 0; it is taken at 1e-12 there, so that gradients stay finite.
    """
    return squared_distances(a, b).clamp(min=1e-12).sqrt()


def batch_hard(
    matrix: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, margin: float
) -> torch.Tensor:
    """Batch-hard triplet loss on a matrix of distances (N, M), with boolean masks (N, M).

    mean_i [ max over positives of d_i − min over negatives of d_i + margin ]_+ over the anchors
    that have both; 0 (with a gradient of 0) when none has.
    Source: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss", 2017, eq. 5.
    """
    usable = positive.any(1) & negative.any(1)
    if not bool(usable.any()):
        return matrix.sum() * 0
    far = matrix.masked_fill(~positive, -torch.inf).amax(1)[usable]
    near = matrix.masked_fill(~negative, torch.inf).amin(1)[usable]
    return (far - near + margin).clamp(min=0).mean()
