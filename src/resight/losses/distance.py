"""Distances that every pairwise loss here shares.

A matrix of distances comes from one product, which loses digits where two points are near each
other. So the product only says which pair is hardest; its distance, and with it the gradient, is
taken from the two vectors themselves. Backward then touches those pairs alone.
"""

from __future__ import annotations

import torch


def lifted(values: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, anything else as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def zero(*tensors: torch.Tensor) -> torch.Tensor:
    """A scalar 0 that gives the tensors (n, D) a gradient of zeros, whatever they hold."""
    return torch.stack([lifted(tensor[:0]).sum() for tensor in tensors]).sum()


def squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances, (N, D) and (M, D) -> (N, M), never negative."""
    if len(b):  # the nearer to the origin, the more digits remain
        middle = b.detach().mean(0)
        a, b = a - middle, b - middle
    squares = a.square().sum(1)[:, None] + b.square().sum(1)[None, :]
    return (squares - 2 * a @ b.T).clamp(min=0)


def pair_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Euclidean distance row by row, (N, D) twice -> (N,); the gradient at 0 is 0."""
    result: torch.Tensor = torch.linalg.vector_norm(a - b, dim=1)
    return result


@torch.no_grad()
def hardest_pairs(
    anchors: torch.Tensor, others: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For every anchor its farthest positive and its nearest negative, by Euclidean distance.

    anchors (N, D) and others (M, D) float32 or float64, positive and negative (N, M) bool ->
    the K anchors that have both, their farthest positives and their nearest negatives, (K,) int64
    each. Of others at the same distance, to rounding, any.
    """
    usable = (positive.any(1) & negative.any(1)).nonzero().squeeze(1)
    if len(usable) == 0:
        return usable, usable, usable
    if len(usable) < len(anchors):
        anchors, positive, negative = anchors[usable], positive[usable], negative[usable]
    middle = others.mean(0)
    others = others - middle
    # Squared distance without the anchor's own part, which is the same along a row.
    with torch.autocast(anchors.device.type, enabled=False):
        score = torch.addmm(others.square().sum(1), anchors - middle, others.T, alpha=-2)
    far = score.masked_fill(~positive, -torch.inf).argmax(1)
    near = score.masked_fill_(~negative, torch.inf).argmin(1)
    return usable, far, near


def hardest_triplets(
    anchors: torch.Tensor,
    others: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
    margin: float,
) -> torch.Tensor:
    """Batch-hard triplet loss of points: (N, D) and (M, D) float, with masks (N, M) -> scalar.

    mean_i [ max over positives of d_i − min over negatives of d_i + margin ]_+ over the anchors
    that have both, d plain Euclidean distance; 0 (with a gradient of 0) when none has.
    Source: Hermans, Beyer, Leibe, "In Defense of the Triplet Loss", 2017, eq. 5.
    """
    anchors, others = lifted(anchors), lifted(others)
    rows, far, near = hardest_pairs(anchors, others, positive, negative)
    if len(rows) == 0:
        return zero(anchors, others)
    asking = anchors.index_select(0, rows)
    farthest = pair_distances(asking, others.index_select(0, far))
    nearest = pair_distances(asking, others.index_select(0, near))
    return (farthest - nearest + margin).clamp(min=0).mean()
