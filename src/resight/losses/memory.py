"""Cross-batch memory: a loss that also sees the embeddings of earlier batches."""

from __future__ import annotations

import torch
from torch import nn

from resight.losses.distance import lifted


class CrossBatchMemory(nn.Module):
    """loss(batch) + weight · loss(batch, memory), the memory being the last `size` embeddings.

    Works around any loss that takes references. The memory holds earlier batches only and gets no
    gradient. After the loss, in training mode, the batch replaces the oldest entries. `start`
    calls in training mode go by before the memory counts; they fill it already.

    State: `embeddings` (size, features) float32 and `labels` (size,) int64 are a ring, of which
    the first `count` slots are in use; `pointer` is the slot that comes next, once the ring is
    full that of the oldest entry; `calls` counts calls in training mode. All are buffers, so
    state_dict() holds them. The loss sees the entries from the oldest to the newest.
    Source: Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020 (in whose
    released code the batch is in the memory already when the loss is taken).
    """

    embeddings: torch.Tensor
    labels: torch.Tensor
    pointer: torch.Tensor
    count: torch.Tensor
    calls: torch.Tensor

    def __init__(
        self, loss: nn.Module, size: int, features: int, weight: float = 1.0, start: int = 0
    ):
        super().__init__()
        if size < 1:
            raise ValueError(f"memory of {size} embeddings: at least 1 is needed")
        self.loss, self.size, self.weight, self.start = loss, size, weight, start
        self.register_buffer("embeddings", torch.zeros(size, features))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        for name in ("pointer", "count", "calls"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float, labels (B,) int -> scalar.

        References raise ValueError: the memory is the reference.
        """
        if ref_embeddings is not None or ref_labels is not None:
            raise ValueError("CrossBatchMemory has references of its own: no ref_embeddings")
        embeddings = lifted(embeddings)
        result: torch.Tensor = self.loss(embeddings, labels)
        if int(self.count) and int(self.calls) >= self.start:
            held, held_labels = self.entries()
            held = held.to(embeddings.dtype)
            result = result + self.weight * self.loss(embeddings, labels, held, held_labels)
        if self.training:
            self._enqueue(embeddings.detach(), labels)
        return result

    def entries(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy of what is held, from the oldest to the newest: (count, features), (count,)."""
        count = int(self.count)
        first = int(self.pointer) - count
        slots = torch.arange(first, first + count, device=self.labels.device) % self.size
        return self.embeddings[slots], self.labels[slots]

    @torch.no_grad()
    def _enqueue(self, embeddings: torch.Tensor, labels: torch.Tensor) -> None:
        embeddings, labels = embeddings[-self.size :], labels[-self.size :]
        new = torch.arange(len(labels), device=self.labels.device)
        slots = (self.pointer + new) % self.size
        self.embeddings[slots] = embeddings.to(self.embeddings)
        self.labels[slots] = labels.to(self.labels)
        self.pointer.copy_((self.pointer + len(labels)) % self.size)
        self.count.copy_((self.count + len(labels)).clamp(max=self.size))
        self.calls += 1
