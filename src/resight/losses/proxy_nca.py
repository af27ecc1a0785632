"""ProxyNCA: each class has a learned proxy."""

from __future__ import annotations

import torch
from torch import nn

from resight.losses.distance import lifted, zero
from resight.losses.pairs import cosines, no_references


class ProxyNCALoss(nn.Module):
    """−log( exp(−a·d(x, p_y)) / Σ_{z ≠ y} exp(−a·d(x, p_z)) ), mean over images.

    d is the squared Euclidean distance at unit length, a the `scale`. The loss may be negative.
    Source: Movshovitz-Attias et al., "No Fuss Distance Metric Learning using Proxies", ICCV 2017.
    With `include_positive` the own proxy is in the denominator too: Teh, DeVries, Taylor,
    "ProxyNCA++", ECCV 2020, where scale is 1 / temperature, 9 in its experiments.
    """

    def __init__(
        self, classes: int, features: int, scale: float = 1.0, include_positive: bool = False
    ):
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(classes, features) / features**0.5)
        self.scale, self.include_positive = scale, include_positive

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float, labels (B,) int in 0..classes-1 -> scalar.

        References raise ValueError: the proxies are the references.
        """
        no_references("ProxyNCALoss", ref_embeddings, ref_labels)
        if len(labels) == 0 or len(self.proxies) < 2:  # with one class there is no other proxy
            return zero(embeddings, self.proxies)
        embeddings = lifted(embeddings)
        # −a·d = 2a·s − 2a at unit length, and what is constant cancels.
        logits = 2 * self.scale * cosines(embeddings, self.proxies.to(embeddings.dtype))
        own = logits.gather(1, labels.long()[:, None])
        if not self.include_positive:
            logits = logits.scatter(1, labels.long()[:, None], -torch.inf)
        return (logits.logsumexp(1) - own.squeeze(1)).mean()
