"""One step towards the targets: the softmax over all images and the batch, and what it should be.

    L_i = − Σ_j p_ij log softmax_j(s_ij / τ),   p_ij = w_ij / Σ_j w_ij

j runs over every slot of the memory and over the other images of the batch; w is the targets'
weight, 1 for the image itself. Slots start from the stage's features and are overwritten by each
step's embeddings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resight.graph.graph import Graph
from resight.losses.pairs import unit
from resight.losses.slots import log_sum_exp
from resight.train.recipes.settings import Objective

Rows = NDArray[np.int64]


class GraphObjective(Objective):
    """The loss of a batch; the memory is part of its state, so that a resumed run has it.

    targets: a graph over all images; rows (n,) rising: those that are trained on, a slot each;
    vectors (n, D) their features.
    """

    memory: torch.Tensor

    def __init__(
        self, targets: Graph, rows: Rows, vectors: NDArray[np.float32], temperature: float
    ) -> None:
        super().__init__()
        self.targets, self.rows, self.temperature = targets, rows, temperature
        self.register_buffer("memory", unit(torch.from_numpy(vectors).float()))

    def forward(
        self,
        f: torch.Tensor,
        e: torch.Tensor,
        targets: torch.Tensor,
        plain: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """e (B, D); targets (B, 2): row and tuple. Gives "loss", and "targets" an image."""
        rows = targets[:, 0].cpu().numpy()
        embedded = unit(e.float())
        image, slot, weight = self._listed(rows)
        between = torch.from_numpy(self._between(rows)).to(e.device)
        others = embedded @ embedded.T / self.temperature
        own = torch.eye(len(rows), dtype=torch.bool, device=e.device)
        whole = torch.logaddexp(
            log_sum_exp(embedded, self.memory, self.temperature),
            others.masked_fill(own, -torch.inf).logsumexp(1),
        )
        # What the listed slots pull to, summed up: they may be overwritten before backward.
        sums = torch.zeros_like(embedded, requires_grad=False)
        sums.index_add_(0, image, weight[:, None] * self.memory[slot])
        pulled = (embedded * sums).sum(1) / self.temperature + (between * others).sum(1)
        total = between.sum(1).index_add(0, image, weight)
        loss = (whole - pulled / total).mean()
        if self.training:
            self._remember(rows, embedded.detach())
        count = loss.new_tensor(len(image) / len(rows) - 1)
        return {"loss": loss, "targets": count.detach()}

    def _listed(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The pairs with slots that have weight: image of the batch, slot, weight; itself first."""
        own = self.targets.take(rows)
        images = np.r_[np.arange(len(rows)), own.rows()]
        slots = np.searchsorted(self.rows, np.r_[rows, own.indices])
        weights = np.r_[np.ones(len(rows), np.float32), own.values]
        device = self.memory.device
        parts = (torch.from_numpy(part).to(device) for part in (images, slots, weights))
        image, slot, weight = parts
        return image, slot, weight

    def _between(self, rows: Rows) -> NDArray[np.float32]:
        """(B, B): the weights between images of the batch, 1 between views of one, 0 to itself."""
        found = (rows[:, None] == rows).astype(np.float32)
        for b, row in enumerate(rows.tolist()):
            others, weights = self.targets.row(row)
            place = np.searchsorted(others, rows)
            place[place == len(others)] = 0
            if len(others):
                there = np.asarray(others)[place] == rows
                found[b, there] = np.asarray(weights)[place[there]]
        np.fill_diagonal(found, 0)
        return np.asarray(found)

    def _remember(self, rows: Rows, embedded: torch.Tensor) -> None:
        """Slots of what was seen: of several views the last."""
        _, first = np.unique(rows[::-1], return_index=True)
        last = len(rows) - 1 - first
        slots = np.searchsorted(self.rows, rows[last])
        self.memory[torch.from_numpy(slots)] = embedded[torch.from_numpy(last)]

    def optimizers(self, groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
        """Adam over the embedder."""
        return [torch.optim.Adam(groups)]
