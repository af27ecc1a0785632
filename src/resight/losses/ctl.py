"""Centroid triplet loss (Wieczorek, Rychalska, Dąbrowski, ICONIP 2021), in three variants.

They are three different losses; numbers under one say nothing of another.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from resight.losses.ctl_rounds import plan_rounds, rounds
from resight.losses.distance import lifted, squared_distances, zero

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

    With references the batch's images are the queries and every id's centroid is the mean of all
    its reference images, nothing left out. "official": the queries whose id is among the
    references, in rounds as above, each against the other queries of its round and the centroids
    of the round's ids. "paper", "all": the anchors whose id is among the references, if any other
    id is too, against the centroids of all ids of the references.

    margin: 0.5 unless given, 0.05 for "all".
    """

    def __init__(self, variant: Variant = "official", margin: float | None = None):
        super().__init__()
        if variant not in ("official", "paper", "all"):
            raise ValueError(f"variant {variant!r} is none of official, paper, all")
        self.variant = variant
        self.margin = margin if margin is not None else (0.05 if variant == "all" else 0.5)

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float, not normalised; labels (B,) int; ref_* (R, D) and (R,).

        -> scalar, float32 (float64 for float64), 0 where no anchor has a positive and a negative.
        ValueError: only one of ref_embeddings and ref_labels.
        """
        if (ref_embeddings is None) != (ref_labels is None):
            raise ValueError("give both ref_embeddings and ref_labels, or neither")
        f, refs = lifted(embeddings), None
        if ref_embeddings is not None:
            refs = lifted(ref_embeddings)
            wider = torch.promote_types(f.dtype, refs.dtype)
            f, refs = f.to(wider), refs.to(wider)
        with torch.autocast(f.device.type, enabled=False):
            if self.variant == "official":
                names = None if ref_labels is None else ref_labels.tolist()
                plan = plan_rounds(labels.tolist(), names)
                if not plan.sizes:
                    return zero(f) if refs is None else zero(f, refs)
                return rounds(f, refs, plan, self.margin)
            return self._paper(f, labels, refs, ref_labels)

    def _paper(
        self,
        f: torch.Tensor,
        labels: torch.Tensor,
        refs: torch.Tensor | None,
        ref_labels: torch.Tensor | None,
    ) -> torch.Tensor:
        images = f if refs is None else refs
        names, member, number = torch.unique(
            labels if ref_labels is None else ref_labels, return_inverse=True, return_counts=True
        )
        if len(names) < 2:
            return zero(f) if refs is None else zero(f, refs)
        own = torch.searchsorted(names, labels).clamp_(max=len(names) - 1)
        usable = number[own] > 1 if refs is None else names[own] == labels
        anchors = usable.nonzero().squeeze(1)
        if len(anchors) == 0:
            return zero(f) if refs is None else zero(f, refs)
        f, own = f.index_select(0, anchors), own[anchors]
        counts = number.to(f.dtype)[:, None]
        sums = f.new_zeros(len(names), f.shape[1]).index_add(0, member, images)
        centroids = sums / counts
        if refs is None:
            mine = (sums.index_select(0, own) - f) / (counts[own] - 1)
        else:
            mine = centroids.index_select(0, own)
        positive = (f - mine).square().sum(1)
        other = torch.arange(len(names), device=f.device)[None, :] != own[:, None]
        if self.variant == "all":
            loss = positive[:, None] - squared_distances(f, centroids) + self.margin
            over: torch.Tensor = loss.clamp(min=0)[other].mean()
            return over
        with torch.no_grad():
            nearest = squared_distances(f, centroids).masked_fill_(~other, torch.inf).argmin(1)
        negative = (f - centroids.index_select(0, nearest)).square().sum(1)
        result: torch.Tensor = (positive - negative + self.margin).clamp(min=0).mean()
        return result
