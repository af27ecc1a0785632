"""The loss towards the targets, pair by pair; and the batches that it is given."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as choose
from hypothesis import strategies as st
from tests.graph.test_graph import joined

from resight.graph.diffusion import diffuse
from resight.graph.graph import Graph
from resight.graph.targets import strongest
from resight.sampling.tuples import drawn_batches
from resight.train.unlabelled.graph.objective import GraphObjective

TAU = 0.2


def slow(weights: np.ndarray, rows: list[int], e: np.ndarray, memory: np.ndarray) -> float:
    """- sum p log softmax over the slots and the other images of the batch, one at a time."""
    losses = []
    for i, row in enumerate(rows):
        scores = [float(e[i] @ slot) / TAU for slot in memory]
        pulls = [float(weights[row, j]) if j != row else 1.0 for j in range(len(memory))]
        for k, other in enumerate(rows):
            if k != i:
                scores.append(float(e[i] @ e[k]) / TAU)
                pulls.append(1.0 if other == row else float(weights[row, other]))
        whole = math.log(sum(math.exp(s) for s in scores))
        total = sum(pulls)
        losses.append(-sum(p / total * (s - whole) for p, s in zip(pulls, scores, strict=True)))
    return float(np.mean(losses))


def case(n: int, seed: int) -> tuple[Graph, np.ndarray, np.ndarray, list[int]]:
    """Targets, the rows that are trained on, their vectors, a batch with views of one image."""
    random = np.random.default_rng(seed)
    targets = strongest(diffuse(joined(n, 4, seed)[0], top=8), 3.0)
    rows = np.arange(n)
    vectors = random.standard_normal((n, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    batch = random.integers(0, n, 6).tolist()
    return targets, rows, vectors, [*batch, batch[0], batch[0]]


@choose(max_examples=20, deadline=None)
@given(st.integers(3, 30), st.integers(0, 2**16))
def test_the_loss_pair_by_pair(n, seed):
    targets, rows, vectors, batch = case(n, seed)
    e = np.random.default_rng(seed + 1).standard_normal((len(batch), 5)).astype(np.float32)
    objective = GraphObjective(targets, rows, vectors, TAU).eval()
    before = objective.memory.clone()
    told = torch.tensor([[row, 0] for row in batch])
    found = objective(None, torch.from_numpy(e), told)["loss"]
    unit = e / np.linalg.norm(e, axis=1, keepdims=True)
    assert found.item() == pytest.approx(slow(targets.dense(), batch, unit, vectors), abs=1e-4)
    assert torch.equal(objective.memory, before)  # evaluation writes nothing


def test_gradient_in_float64(monkeypatch):
    targets, rows, vectors, batch = case(12, 3)
    objective = GraphObjective(targets, rows, vectors, TAU).eval().double()
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)
    between = objective._between
    monkeypatch.setattr(objective, "_between", lambda rows: between(rows).astype(np.float64))
    listed = objective._listed
    monkeypatch.setattr(
        objective, "_listed", lambda rows: (*listed(rows)[:2], listed(rows)[2].to(torch.float64))
    )
    e = torch.randn(len(batch), 5, dtype=torch.float64, requires_grad=True)
    told = torch.tensor([[row, 0] for row in batch])
    assert torch.autograd.gradcheck(lambda x: objective(None, x, told)["loss"], (e,))


def test_rows_that_are_left_out_have_no_slot():
    targets, _, vectors, _ = case(20, 5)
    own = np.flatnonzero(np.diff(targets.indptr) > 0)
    batch = own[:4].tolist()
    whole = GraphObjective(targets, np.arange(20), vectors, TAU).eval()
    part = GraphObjective(targets, own, vectors[own], TAU).eval()
    e, told = torch.randn(4, 5), torch.tensor([[row, 0] for row in batch])
    assert part.memory.shape == (len(own), 5)
    assert part(None, e, told)["loss"] < whole(None, e, told)["loss"] or len(own) == 20


def test_memory_holds_the_last_view():
    targets, rows, vectors, _ = case(10, 7)
    objective = GraphObjective(targets, rows, vectors, TAU).train()
    e = torch.randn(3, 5)
    objective(None, e, torch.tensor([[4, 0], [2, 0], [4, 0]]))
    wanted = vectors.copy()
    wanted[[2, 4]] = torch.nn.functional.normalize(e[[1, 2]], dim=1).numpy()
    np.testing.assert_allclose(objective.memory.numpy(), wanted, atol=1e-6)
    assert "memory" in objective.state_dict()  # so that a resumed run has it


@choose(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 3), st.integers(0, 2**10))
def test_batches_are_drawn_from_targets(n, tuples, drawn, seed):
    targets = strongest(diffuse(joined(n, 4, seed)[0], top=8), 2.0)

    def made(epoch):
        return drawn_batches(
            targets.indptr, targets.indices, rows=np.arange(n), tuples=tuples, drawn=drawn,
            views=2, steps=5, seed=seed, epoch=epoch,
        )  # fmt: skip

    batches = made(0)
    assert len(batches) == 5 and batches == made(0)
    anchors = []
    for batch in batches:
        rows = [row for row, _ in batch.draws]
        assert len(rows) == min(tuples, n) * (2 + drawn) and set(rows) <= set(batch.tuple_of)
        for at in range(0, len(rows), 2 + drawn):
            anchor, *others = rows[at], *rows[at + 2 : at + 2 + drawn]
            assert rows[at + 1] == anchor
            anchors.append(anchor)
            own = set(targets.row(anchor)[0].tolist())
            assert set(others) <= (own or {anchor})
            if len(own) >= drawn:
                assert len(set(others)) == drawn
    if n % tuples == 0:  # each comes once before any comes again
        assert len(set(anchors[:n])) == min(n, len(anchors))
