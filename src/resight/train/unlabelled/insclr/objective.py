"""One step of InsCLR: look at the tuples of a batch, relate its images, take the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resight.losses.mined import batch_contrastive, listed_contrastive, memory_contrastive
from resight.losses.mined_infonce import mined_infonce
from resight.losses.pairs import unit
from resight.mining.calibrate import bank_levels
from resight.mining.look import Look
from resight.mining.memory import MemoryBank, Window
from resight.mining.relations import AnchorTuple, Relations, as_labels, relate
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.recipes.losses import CTL, Contrastive, InfoNCE, SmoothAP
from resight.train.recipes.settings import Objective

Rows = NDArray[np.int64]
MOST_REFERENCES = 8192  # of random ones, for a loss that compares all with all


class InsCLRObjective(Objective):
    """The loss of a batch of tuples, and of what is mined for it.

    `look` is how tuples are looked at, `bank` the memory of all images' embeddings (it is read
    and written at each step), `rows` the images that are trained on. `step` counts the steps: it
    says which random negatives are next; `levels` are the thresholds of the epoch.
    """

    step: torch.Tensor
    levels: torch.Tensor

    def __init__(self, settings: InsCLRSettings, look: Look, bank: MemoryBank, rows: Rows):
        super().__init__()
        self.settings, self.look, self.bank, self.rows = settings, look, bank, rows
        self.other: nn.Module | None = None
        if isinstance(settings.loss, SmoothAP | CTL):
            self.other = settings.loss.build(0, 0)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("levels", torch.zeros(2, dtype=torch.float64))

    def forward(
        self,
        f: torch.Tensor,
        e: torch.Tensor,
        targets: torch.Tensor,
        plain: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """e (B, D); targets (B, 2): row and tuple; plain (B, D): e of the un-augmented pictures.

        Gives "loss", and of what it is made: shares and counts a tuple.
        """
        rows, number = targets.cpu().numpy().T
        vectors = self._vectors(rows, e.detach(), plain)
        _, first = np.unique(number, return_index=True)
        parts = np.split(np.arange(len(rows)), np.sort(first)[1:])
        look = self._calibrated()
        groups = [look(rows[part], vectors[part]) for part in parts]
        threshold = look.select.threshold if look.select else 0.6
        relations = relate(groups, vectors @ vectors.T, threshold)
        loss = (self._paired if self.other is None else self._labelled)(e, rows, relations)
        if self.training:
            self.bank.write(rows, augmented=unit(e.detach().float()).cpu().numpy())
            self.step += 1
        return {"loss": loss} | self._counts(groups, loss)

    def _calibrated(self) -> Look:
        """How tuples are looked at: at levels taken anew from the memory with each epoch."""
        s = self.settings
        if s.calibrate is None or s.similarity == "pool":
            return self.look
        if int(self.step) % (s.steps or 1) == 0 and self.training:
            found = bank_levels(self.bank, self.rows, (s.calibrate, 2 * s.calibrate))
            self.levels.copy_(torch.tensor(found))
        return self.look.at(*self.levels.tolist())

    def _vectors(
        self, rows: Rows, e: torch.Tensor, plain: torch.Tensor | None
    ) -> NDArray[np.float32]:
        """What the images of the batch are compared by, (B, D) unit length."""
        if self.settings.similarity == "pool":
            return self.bank.read(rows, "plain")
        now = e if self.settings.similarity == "augmented" else plain
        assert now is not None
        vectors: NDArray[np.float32] = unit(now.float()).cpu().numpy()
        if self.training:
            self.bank.write(rows, plain=vectors)
        return vectors

    def _paired(self, e: torch.Tensor, rows: Rows, relations: Relations) -> torch.Tensor:
        """A loss on pairs: of the batch, of mined lists with the memory, of random negatives."""
        chosen, memory = self.settings.loss, self.settings.memory
        relation = torch.from_numpy(relations.batch).to(e.device)
        if memory is None:
            if isinstance(chosen, InfoNCE):
                return mined_infonce(e, relation, chosen.temperature)
            assert isinstance(chosen, Contrastive)
            return batch_contrastive(e, relation, chosen.margin)
        near = (relations.positives.images(), relations.positives.rows)
        if memory.own:
            near = (np.r_[near[0], np.arange(len(rows))], np.r_[near[1], rows])
        far = (relations.negatives.images(), relations.negatives.rows)
        views, excluded = self._negatives(relations)
        image, listed = np.r_[near[0], far[0]], np.r_[near[1], far[1]]
        held = self.bank.filled(listed, "augmented")  # without a vector there is no pair
        split = int(held[: len(near[0])].sum())
        image, listed = torch.from_numpy(image[held]), listed[held]
        if isinstance(chosen, InfoNCE):
            # Copied: backward reads them again, when the memory has been written to.
            wanted, index = np.unique(listed, return_inverse=True)
            column = torch.from_numpy(index)
            return mined_infonce(
                e,
                relation,
                chosen.temperature,
                views=views,
                excluded=excluded,
                vectors=torch.from_numpy(self.bank.halves(wanted, "augmented")),
                positives=(image[:split], column[:split]),
                negatives=(image[split:], column[split:]),
            )
        assert isinstance(chosen, Contrastive)
        sign = torch.ones(len(image), dtype=torch.int8)
        sign[split:] = -1
        every = torch.from_numpy(self.bank.vectors("augmented"))
        slots = torch.from_numpy(self.bank.slots[listed])
        mined = listed_contrastive(e, image, every, slots, sign, chosen.margin)
        random = memory_contrastive(e, views, excluded, chosen.margin)
        return batch_contrastive(e, relation, chosen.margin) + memory.weight * (mined + random)

    def _negatives(
        self, relations: Relations
    ) -> tuple[list[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """The random negatives of this step, and which pairs (image, column) are none."""
        window = self._window()
        lists = (relations.positives, relations.negatives, relations.ignored)
        image, column = self.bank.excluded(window, lists)
        filled = np.concatenate([piece.filled for piece in window] or [np.zeros(0, bool)])
        if filled.all():
            return [torch.from_numpy(piece.vectors) for piece in window], (image, column)
        # Copies of other images, and what was never drawn: without a vector, so no negatives.
        place, there = torch.from_numpy(np.cumsum(filled) - 1), torch.from_numpy(filled)[column]
        views = [torch.from_numpy(piece.vectors[piece.filled]) for piece in window]
        return views, (image[there], place[column[there]])

    def _labelled(self, e: torch.Tensor, rows: Rows, relations: Relations) -> torch.Tensor:
        """A loss that wants labels: tuples are classes, and what is in doubt is left out."""
        assert self.other is not None
        labels, ref_rows, ref_labels = as_labels(relations, rows, whose="kept")
        own = torch.from_numpy(labels).to(e.device)
        loss: torch.Tensor = self.other(e, own)
        memory = self.settings.memory
        if memory is None:
            return loss
        lists = (relations.positives, relations.negatives, relations.ignored)
        known = np.unique(np.concatenate([rows, *(found.rows for found in lists)]))
        random = np.concatenate([piece.rows[piece.filled] for piece in self._window()])
        random = random[~np.isin(random, known)][:MOST_REFERENCES]
        others = ref_labels.min(initial=0) - 1 - np.arange(len(random))
        vectors = self.bank.read(np.concatenate([ref_rows, random]), "augmented")
        refs = torch.from_numpy(np.concatenate([ref_labels, others])).to(e.device)
        against: torch.Tensor = self.other(e, own, torch.from_numpy(vectors).to(e.device), refs)
        return loss + memory.weight * against

    def _window(self) -> list[Window]:
        """The random negatives of this step: the next run of slots, which stand in random order."""
        memory = self.settings.memory
        assert memory is not None
        count = min(memory.negatives, len(self.bank))
        return self.bank.window(int(self.step) * count, count)

    def _counts(self, groups: list[AnchorTuple], like: torch.Tensor) -> dict[str, torch.Tensor]:
        """Means over the tuples: neighbours kept, and candidates that became what."""
        asked = sum(len(group.members) - 1 for group in groups)
        found = {"kept": sum(int(group.kept.sum()) - 1 for group in groups) / max(1, asked)}
        mined = [group.mined for group in groups if group.mined is not None]
        if mined:
            for name, state in (("mined", 1), ("undecided", 0), ("hard", -1)):
                found[name] = sum(int((one.state == state).sum()) for one in mined) / len(mined)
        return {name: like.new_tensor(value).detach() for name, value in found.items()}

    def keep(self) -> Any:
        return self.bank.checkpoint()

    def kept(self, value: Any) -> None:
        self.bank.kept(value)

    def restore(self, value: Any) -> None:
        self.bank.restore(value)

    def optimizers(self, groups: list[dict[str, Any]]) -> list[torch.optim.Optimizer]:
        """Adam over the embedder."""
        return [torch.optim.Adam(groups)]
