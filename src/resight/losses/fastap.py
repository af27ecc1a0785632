"""FastAP: average precision from soft histograms of distances."""

from __future__ import annotations

import torch
from torch import nn

from resight.losses.distance import zero
from resight.losses.pairs import compared, cosines


class FastAPLoss(nn.Module):
    """1 − FastAP, mean over the queries that have a positive.

    FastAP = 1/N⁺ Σ_j h⁺_j H⁺_j / H_j: h⁺ is the histogram of the squared distances (at unit
    length, so in [0, 4]) to the positives, H⁺ and H are the cumulative histograms of positives and
    of all. A distance is shared linearly between the two nearest of the `bins` + 1 centres, which
    stand 4 / bins apart from 0 to 4.
    Source: Cakir et al., "Deep Metric Learning to Rank", CVPR 2019; 10 bins as in its released
    code.
    """

    def __init__(self, bins: int = 10):
        super().__init__()
        if bins < 1:
            raise ValueError(f"bins {bins}: at least 1 is needed")
        self.bins = bins

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float, labels (B,) int, references likewise (R, D), (R,) -> scalar."""
        embeddings, ref, positive, negative = compared(
            embeddings, labels, ref_embeddings, ref_labels
        )
        rows = positive.any(1).nonzero().squeeze(1)
        if len(rows) == 0:
            return zero(embeddings, ref)
        positive, negative = positive[rows], negative[rows]
        # In widths of a bin: the centres are 0, 1, ..., bins.
        distances = (2 - 2 * cosines(embeddings.index_select(0, rows), ref)) * (self.bins / 4)
        own = self._histogram(distances, positive)
        own_so_far = own.cumsum(1)
        all_so_far = own_so_far + self._histogram(distances, negative).cumsum(1)
        # Where nothing is yet, the numerator is 0 too.
        precision = own_so_far / all_so_far.clamp(min=1e-12)
        ap = (own * precision).sum(1) / positive.sum(1)
        return 1 - ap.mean()

    def _histogram(self, distances: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Of the references in the mask: (Q, R) and (Q, R) -> (Q, bins + 1)."""
        below = distances.detach().floor().nan_to_num(0).clamp(0, self.bins - 1)
        upper = distances - below
        place = below.long()
        empty = distances.new_zeros(len(distances), self.bins + 1)
        return empty.scatter_add(1, place, (1 - upper) * mask).scatter_add(
            1, place + 1, upper * mask
        )
