"""The contenders of benchmarks/losses.py: one step (forward and backward) of a loss, and its floor.

Each function takes embeddings (B, D) and labels (B,), in the order of classes of equal size, and
returns the step: embeddings that need a gradient -> the loss, with the gradient made. The floors
return None: they are work, not a loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Step = Callable[[torch.Tensor], Any]
Prepare = Callable[[torch.Tensor, torch.Tensor], Step]


def loss(make: Callable[[], Any], labels: torch.Tensor) -> Step:
    """The step of a loss called with embeddings and labels."""
    criterion = make()

    def step(embeddings: torch.Tensor) -> torch.Tensor:
        value = criterion(embeddings, labels)
        value.backward()
        return value

    return step


def smooth_ap(include_query: bool) -> Prepare:
    """resight's Smooth-AP."""

    def prepare(embeddings: torch.Tensor, labels: torch.Tensor) -> Step:
        from resight.losses.smooth_ap import SmoothAPLoss

        return loss(lambda: SmoothAPLoss(include_query=include_query), labels)

    return prepare


def ctl(embeddings: torch.Tensor, labels: torch.Tensor) -> Step:
    """resight's official centroid triplet loss."""
    from resight.losses.ctl import CentroidTripletLoss

    return loss(CentroidTripletLoss, labels)


def pml_smooth_ap(embeddings: torch.Tensor, labels: torch.Tensor) -> Step:
    """pytorch-metric-learning's Smooth-AP: the query among its own positives, one size of class."""
    from pytorch_metric_learning.losses import SmoothAPLoss

    return loss(SmoothAPLoss, labels)


def floor_smooth_ap(each: int, cells: int) -> Prepare:
    """Three B × B × D products in tiles, and for every pair a sigmoid for each other positive.

    each: images a class; cells: size of a tile.
    """

    def prepare(embeddings: torch.Tensor, labels: torch.Tensor) -> Step:
        size = len(embeddings)
        rows = min(size, max(16, cells // size))

        def step(embeddings: torch.Tensor) -> None:
            x = embeddings.detach()
            slope = torch.zeros_like(x)
            product, sigmoid = x.new_empty(rows, size), x.new_empty(rows, size)
            for start in range(0, size, rows):
                part = x[start : start + rows]
                s, h = product[: len(part)], sigmoid[: len(part)]
                torch.mm(part, x.T, out=s)
                for _ in range(each - 1):
                    torch.sigmoid(s, out=h)
                slope[start : start + rows].addmm_(h, x)
                slope.addmm_(h.T, part)

        return step

    return prepare


def floor_ctl(embeddings: torch.Tensor, labels: torch.Tensor) -> Step:
    """One B × B × D product, and one more for the gradient."""

    def step(embeddings: torch.Tensor) -> None:
        x = embeddings.detach()
        (x @ x.T) @ x

    return step


def loop_ctl(embeddings: torch.Tensor, labels: torch.Tensor) -> Step:
    """The official centroid triplet loss as it is described: a loop over rounds, and over ids."""
    return loss(lambda: _loop, labels)


def _loop(f: torch.Tensor, labels: torch.Tensor, margin: float = 0.5) -> torch.Tensor:
    ids = labels.unique().tolist()
    rows_of = {name: (labels == name).nonzero().squeeze(1) for name in ids}
    losses = []
    for i in range(max(len(rows) for rows in rows_of.values())):
        queries, centroids, owners = [], [], []
        for name, rows in rows_of.items():
            if i >= len(rows) or len(rows) < 2:
                continue
            mask = labels == name
            mask[rows[i]] = False
            queries.append(f[rows[i]])
            centroids.append(f[mask].mean(0))
            owners.append(name)
        if len(owners) < 2:
            continue
        points = torch.stack(queries + centroids)
        owner = torch.tensor(owners + owners)
        squares = points.square().sum(1)
        squared = squares[:, None] + squares[None, :] - 2 * points @ points.T
        matrix = squared.clamp(min=1e-12).sqrt()
        same = owner[:, None] == owner[None, :]
        itself = torch.eye(len(owner), dtype=torch.bool)
        far = matrix.masked_fill(~(same & ~itself), -torch.inf).amax(1)
        near = matrix.masked_fill(same, torch.inf).amin(1)
        losses.append((far - near + margin).clamp(min=0).mean())
    return torch.stack(losses).mean()
