"""What losses on pairs of embeddings share: unit length, which pairs count, cosine similarity."""

from __future__ import annotations

import torch

from resight.losses.distance import lifted


def unit(embeddings: torch.Tensor) -> torch.Tensor:
    """Rows at unit length, (N, D) float32 or float64.

    A row below 1e-12 in every place has no direction: it becomes zero, with a gradient of zero.
    """
    if embeddings.shape[1] == 0:
        return embeddings
    # The length does not depend on the scale, so the largest value is a constant to the gradient;
    # with it no square leaves the range of the type.
    largest = embeddings.detach().abs().amax(1, keepdim=True)
    scaled = (embeddings / largest.clamp(min=1e-12)).masked_fill(largest < 1e-12, 0)
    length: torch.Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / length.clamp(min=0.5)  # of a row that isn't zero it is at least 1


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine similarities, (N, D) and (M, D) float32 or float64 -> (N, M).

    In full precision under autocast too: near 1 half precision has 3 digits left.
    """
    with torch.autocast(a.device.type, enabled=False):
        return unit(a) @ unit(b).T


def compared(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    ref_embeddings: torch.Tensor | None,
    ref_labels: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch, what it is compared with, and the pairs that are positive, and negative.

    -> embeddings (B, D) and references (R, D), half precision lifted to float32; masks (B, R) bool.
    Without references they are the batch itself (R = B), each image's pair with itself in neither
    mask; with references every pair is in one of them: positive, of the same label, or negative.
    Raises ValueError when embeddings, labels and references don't fit one another.
    """
    if (ref_embeddings is None) != (ref_labels is None):
        raise ValueError("ref_embeddings and ref_labels come together, or neither")
    if len(embeddings) != len(labels):
        raise ValueError(f"{len(embeddings)} embeddings, but {len(labels)} labels")
    if ref_embeddings is None or ref_labels is None:
        embeddings = lifted(embeddings)
        positive = labels[:, None] == labels[None, :]
        negative = ~positive
        return embeddings, embeddings, positive.fill_diagonal_(False), negative
    if len(ref_embeddings) != len(ref_labels):
        raise ValueError(f"{len(ref_embeddings)} ref_embeddings, but {len(ref_labels)} ref_labels")
    positive = labels[:, None] == ref_labels[None, :]
    return lifted(embeddings), lifted(ref_embeddings), positive, ~positive


def no_references(
    name: str, ref_embeddings: torch.Tensor | None, ref_labels: torch.Tensor | None
) -> None:
    """For a loss with a reference of its own for each class: others raise ValueError."""
    if ref_embeddings is not None or ref_labels is not None:
        raise ValueError(f"{name} compares with its own vectors of the classes: no ref_embeddings")
