"""Centroid triplet loss (Wieczorek, Rychalska, Dąbrowski, ICONIP 2021), in three variants.

They are three different losses; numbers under one say nothing of another.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from resight.losses.distance import batch_hard, distances, squared_distances

Variant = Literal["official", "paper", "all"]


class CentroidTripletLoss(nn.Module):
    """Triplets whose positive and negative are centroids of classes.

    - "official" (the released code): M rounds, M the largest number of images an id has. In
      round i the queries are image i of every id that has one, and each of those ids has as
      centroid the mean of its other images. Batch-hard triplet over all queries and centroids
      together, with plain distances. Mean over rounds; ids of one image and rounds of fewer than
      two ids are skipped. Images of an id are counted in batch order.
    - "paper" (eq. 2): [ ||f(A) − c_P||² − min_N ||f(A) − c_N||² + α ]_+, c_P without the anchor,
      the nearest centroid of another id as negative; mean over anchors.
    - "all": as "paper", but every pair of an anchor and another id, mean over pairs.

    Gradients flow through the centroids. Ids may have any number of images, in any order; an id
    with one image is a negative only ("paper", "all").
    """

    def __init__(self, variant: Variant = "official", margin: float | None = None):
        super().__init__()
        if variant not in ("official", "paper", "all"):
            raise ValueError(f"variant {variant!r} is none of official, paper, all")
        self.variant = variant
        self.margin = margin if margin is not None else (0.05 if variant == "all" else 0.5)

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """features (N, D) float, not normalised; labels (N,) int -> scalar."""
        ids, member, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        if len(ids) < 2:
            return features.sum() * 0
        sums = features.new_zeros(len(ids), features.shape[1]).index_add(0, member, features)
        if self.variant == "official":
            return self._official(features, member, counts, sums)
        return self._paper(features, member, counts, sums)

    def _official(
        self, features: torch.Tensor, member: torch.Tensor, counts: torch.Tensor, sums: torch.Tensor
    ) -> torch.Tensor:
        slot = _slots(member)
        rounds = []
        for i in range(int(counts.max())):
            queries = ((slot == i) & (counts[member] > 1)).nonzero().squeeze(1)
            if len(queries) < 2:
                continue
            f, ids = features[queries], member[queries]
            centroids = (sums[ids] - f) / (counts[ids] - 1)[:, None]
            points, owners = torch.cat([f, centroids]), torch.cat([ids, ids])
            same = owners[:, None] == owners[None, :]
            itself = torch.eye(len(points), dtype=torch.bool, device=points.device)
            matrix = distances(points, points)
            rounds.append(batch_hard(matrix, same & ~itself, ~same, self.margin))
        return torch.stack(rounds).mean() if rounds else features.sum() * 0

    def _paper(
        self, features: torch.Tensor, member: torch.Tensor, counts: torch.Tensor, sums: torch.Tensor
    ) -> torch.Tensor:
        anchors = (counts[member] > 1).nonzero().squeeze(1)
        if len(anchors) == 0:
            return features.sum() * 0
        f, ids = features[anchors], member[anchors]
        own = (sums[ids] - f) / (counts[ids] - 1)[:, None]
        positive = (f - own).square().sum(1)
        negative = squared_distances(f, sums / counts[:, None])
        other = torch.arange(len(counts), device=ids.device)[None, :] != ids[:, None]
        if self.variant == "all":
            return (positive[:, None] - negative + self.margin).clamp(min=0)[other].mean()
        nearest = negative.masked_fill(~other, torch.inf).amin(1)
        return (positive - nearest + self.margin).clamp(min=0).mean()


def _slots(member: torch.Tensor) -> torch.Tensor:
    """For every image, how many of the same id stand before it in the batch: (N,) int64."""
    same = member[:, None] == member[None, :]
    return same.tril(-1).sum(1)
