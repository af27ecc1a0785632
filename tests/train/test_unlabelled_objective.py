"""The loss of one batch, by loops over its pairs: what is near, what is far, what doesn't count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from unlabelled_sets import settings

from oracles import mining as slow
from resight.graph.pool import build_pool
from resight.mining.look import Look
from resight.mining.memory import MemoryBank
from resight.train.unlabelled.insclr.objective import InsCLRObjective

N, DIM, STEP = 60, 6, 3
RULES: dict[str, Any] = {
    "calibrate": None,
    "select": {"score": "max", "choose": "threshold", "threshold": 0.6, "rounds": 1},
    "mining": {"initial_at": 0.9, "candidate_at": 0.6},
}


class Case:
    """A batch of tuples among 60 images in 12 heaps; a memory of which a part may be empty."""

    def __init__(self, tmp: Path, seed: int, empty: float = 0.0, **changes: Any):
        rng = np.random.default_rng(seed)
        heaps = rng.normal(size=(12, DIM))
        self.now = heaps[np.arange(N) % 12] + 0.45 * rng.normal(size=(N, DIM))
        self.settings = settings(**RULES | changes)
        pool = build_pool(self.now.astype(np.float32), k=9)
        self.bank = MemoryBank.create(tmp / "memory", N, DIM, seed)
        full = np.flatnonzero(rng.random(N) >= empty)
        self.bank.write(full, augmented=self.now[full] + 0.2 * rng.normal(size=(len(full), DIM)))
        self.bank.write(np.arange(N), plain=self.now)
        look = Look(
            pool,
            lambda rows: self.bank.read(rows, "plain"),
            self.settings.select,
            self.settings.mining,
        )
        self.objective = InsCLRObjective(self.settings, look, self.bank, np.arange(N)).eval()
        self.objective.step += STEP
        # Four tuples of different images; the anchor twice.
        self.rows, self.number, taken = [], [], set()
        for anchor in rng.permutation(N).tolist():
            near = [int(row) for row in pool.neighbours[anchor] if int(row) not in taken][:3]
            if anchor not in taken and len(set(self.number)) < 4:
                self.number += [anchor] * (2 + len(near))
                self.rows += [anchor, anchor, *near]
                taken |= {anchor, *near}
        self.e = torch.from_numpy(
            self.now[self.rows] + 0.3 * rng.normal(size=(len(self.rows), DIM))
        )
        self.plain = torch.from_numpy(self.now[self.rows]).float()
        self.look = look

    def fast(self) -> tuple[float, torch.Tensor]:
        """The loss, and its gradient by e."""
        e = self.e.clone().requires_grad_()
        targets = torch.tensor([self.rows, self.number]).T
        plain = self.plain if self.settings.similarity == "plain" else None
        loss = self.objective(e, e, targets, plain)["loss"]
        loss.backward()
        return float(loss.detach()), e.grad

    def slow(self) -> tuple[float, torch.Tensor]:
        """The same, pair by pair."""
        e = self.e.clone().requires_grad_()
        unit = e / e.norm(dim=1, keepdim=True)
        compared = {
            "plain": self.plain,
            "augmented": self.e.float(),
            "pool": torch.from_numpy(self.bank.read(np.array(self.rows), "plain")),
        }[self.settings.similarity]
        vectors = torch.nn.functional.normalize(compared, dim=1).numpy()
        groups, at = [], 0
        while at < len(self.rows):
            size = self.number.count(self.number[at])
            members = np.array(self.rows[at : at + size])
            groups.append(self.look(members, vectors[at : at + size]))
            at += size
        relation, lists = slow.relate(groups, vectors @ vectors.T, 0.6)
        memory = self.settings.memory
        total, images = torch.zeros((), dtype=torch.float64), 0
        for i in range(len(self.rows)):
            batch = [(unit[i] @ unit[j], relation[i][j]) for j in range(len(self.rows))]
            kept: list[Any] = []
            drawn: list[Any] = []
            if memory is not None:
                positives, negatives, ignored = lists[i]
                kept = [(self.to(unit[i], row), 1) for row in positives if self.full(row)]
                kept += [(self.to(unit[i], row), -1) for row in negatives if self.full(row)]
                if memory.own and self.full(self.rows[i]):
                    kept.append((self.to(unit[i], self.rows[i]), 1))
                out = positives | negatives | ignored
                drawn = [self.to(unit[i], row) for row in self.drawn() if row not in out]
            if self.settings.loss.name == "contrastive":
                images += 1
                margin = self.settings.loss.margin
                for s, sign in batch + kept + [(s, -1) for s in drawn]:
                    total = total + (
                        (1 - s) if sign == 1 else s if sign == -1 and s > margin else 0
                    )
                continue
            far = [s for s, sign in batch + kept if sign == -1] + drawn
            near = [s for s, sign in batch + kept if sign == 1]
            if near:
                images += 1
                scaled = [torch.exp(s / self.settings.loss.temperature) for s in far]
                below = sum(scaled, torch.zeros((), dtype=torch.float64))
                for s in near:
                    top = torch.exp(s / self.settings.loss.temperature)
                    total = total - torch.log(top / (top + below)) / len(near)
        loss = total / max(images, 1)
        loss.backward()
        return float(loss.detach()), e.grad

    def full(self, row: int) -> bool:
        return bool(self.bank.filled(np.array([row]), "augmented")[0])

    def to(self, unit: torch.Tensor, row: int) -> torch.Tensor:
        return unit @ torch.from_numpy(self.bank.read(np.array([row]), "augmented")[0]).double()

    def drawn(self) -> list[int]:
        """The rows of the random negatives of this step that have a vector."""
        assert self.settings.memory is not None
        count = min(self.settings.memory.negatives, N)
        slots = [(STEP * count + k) % N for k in range(count)]
        return [int(row) for row in self.bank.rows[slots] if self.full(int(row))]


MEMORIES: dict[str, Any] = {
    "none": None,
    "all": {"negatives": 1000},
    "a window": {"negatives": 25},
    "no random ones": {"negatives": 0},
    "own slots left out": {"negatives": 25, "own": False},
}
LOSSES: dict[str, Any] = {
    "infonce": {"name": "infonce", "temperature": 0.2},
    "contrastive": {"name": "contrastive", "margin": 0.3},
}


@pytest.mark.parametrize("similarity", ["plain", "pool", "augmented"])
@pytest.mark.parametrize("empty", [0.0, 0.4])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_that_of_its_pairs(
    tmp_path: Path, loss: str, memory: str, empty: float, similarity: str
) -> None:
    seed = [*MEMORIES].index(memory) + 10 * int(10 * empty)
    case = Case(
        tmp_path, seed, empty, loss=LOSSES[loss], memory=MEMORIES[memory], similarity=similarity
    )
    (value, gradient), (expected, wanted) = case.fast(), case.slow()
    assert value == pytest.approx(expected, rel=1e-6) and expected > 0
    assert torch.allclose(gradient, wanted, rtol=1e-5, atol=1e-7)


def test_selection_and_mining_can_be_left_out(tmp_path: Path) -> None:
    case = Case(tmp_path, 1, select=None, mining=None, loss=LOSSES["infonce"])
    (value, gradient), (expected, wanted) = case.fast(), case.slow()
    assert value == pytest.approx(expected, rel=1e-6) and torch.allclose(
        gradient, wanted, rtol=1e-5
    )


def test_a_step_writes_the_memory_after_the_loss(tmp_path: Path) -> None:
    """The slots then hold what the model saw, and the next step draws the next negatives."""
    case = Case(tmp_path, 2)
    before, _ = case.fast()
    case.objective.train()
    again, _ = case.fast()
    assert again == before and int(case.objective.step) == STEP + 1
    units = torch.nn.functional.normalize(case.e, dim=1).numpy()
    last = {row: place for place, row in enumerate(case.rows)}
    for row, place in last.items():
        held = case.bank.read(np.array([row]), "augmented")[0]
        assert np.allclose(held, units[place], atol=1e-3)
