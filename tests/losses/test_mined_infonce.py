"""InfoNCE over batch, lists and memory, against the formula written out pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.losses.mined_infonce import mined_infonce

Part = dict[str, object]


def problem(
    seed: int, images: int, dim: int, columns: int, listed: int
) -> tuple[torch.Tensor, Part]:
    """A random batch, relation, memory in two views, exclusions and lists."""
    rng = np.random.default_rng(seed)
    e = torch.from_numpy(rng.normal(size=(images, dim)))
    relation = np.triu(rng.integers(-1, 2, (images, images)), 1)
    memory = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(columns, dim))), dim=1)
    vectors = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(listed, dim))), dim=1)
    sign = rng.integers(-1, 2, (images, listed))
    cut = columns // 3
    excluded = np.nonzero(rng.random((images, columns)) < 0.2)
    return e, {
        "relation": torch.from_numpy((relation + relation.T).astype(np.int8)),
        "views": [memory[:cut], memory[cut:]],
        "excluded": tuple(torch.from_numpy(part) for part in excluded),
        "vectors": vectors,
        "positives": tuple(torch.from_numpy(part) for part in np.nonzero(sign > 0)),
        "negatives": tuple(torch.from_numpy(part) for part in np.nonzero(sign < 0)),
    }


def slow(e: torch.Tensor, part: Part, temperature: float) -> float:
    """Word for word, in plain Python."""
    unit = torch.nn.functional.normalize(e, dim=1)
    relation, memory = part["relation"], torch.cat(part["views"])  # type: ignore[arg-type]
    excluded = set(zip(*(p.tolist() for p in part["excluded"]), strict=True))  # type: ignore[attr-defined]
    vectors = part["vectors"]
    pos = set(zip(*(p.tolist() for p in part["positives"]), strict=True))  # type: ignore[attr-defined]
    neg = set(zip(*(p.tolist() for p in part["negatives"]), strict=True))  # type: ignore[attr-defined]
    losses = []
    for i in range(len(e)):
        near, far = [], []
        for j in range(len(e)):
            value = int(relation[i, j])  # type: ignore[index]
            if value:
                (near if value > 0 else far).append(float(unit[i] @ unit[j]))
        for j in range(len(vectors)):  # type: ignore[arg-type]
            if (i, j) in pos or (i, j) in neg:
                (near if (i, j) in pos else far).append(float(unit[i] @ vectors[j]))  # type: ignore[index]
        far += [float(unit[i] @ memory[j]) for j in range(len(memory)) if (i, j) not in excluded]
        if not near:
            continue
        mass = sum(math.exp(s / temperature) for s in far)
        terms = [
            -math.log(math.exp(s / temperature) / (math.exp(s / temperature) + mass)) for s in near
        ]
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    images=st.integers(1, 7),
    columns=st.integers(0, 20),
    listed=st.integers(0, 6),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
    block=st.integers(1, 9),
)
def test_value_is_the_formula_for_any_block(
    seed: int, images: int, columns: int, listed: int, temperature: float, block: int
) -> None:
    e, part = problem(seed, images, 5, columns, listed)
    found = mined_infonce(e, temperature=temperature, block=block, **part)  # type: ignore[arg-type]
    assert float(found) == pytest.approx(slow(e, part, temperature), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_autograds(seed: int) -> None:
    e, part = problem(seed, 5, 4, 11, 3)
    e.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: mined_infonce(x, temperature=0.2, block=4, **part),  # type: ignore[arg-type]
        (e,),
    )


def test_memory_in_half_precision_and_cold_temperatures_stay_finite() -> None:
    e, part = problem(1, 6, 8, 40, 4)
    part["views"] = [view.half() for view in part["views"]]  # type: ignore[attr-defined]
    half = e.half().requires_grad_()
    loss = mined_infonce(half, temperature=0.001, **part)  # type: ignore[arg-type]
    loss.backward()
    assert bool(torch.isfinite(loss)) and half.grad is not None
    assert bool(torch.isfinite(half.grad).all())


def test_without_a_positive_or_a_negative() -> None:
    e = torch.randn(3, 4, requires_grad=True)
    alone = mined_infonce(e, torch.zeros(3, 3, dtype=torch.int8))
    alone.backward()
    assert float(alone.detach()) == 0 and e.grad is not None and not bool(e.grad.any())
    only = mined_infonce(e, torch.ones(3, 3, dtype=torch.int8).fill_diagonal_(0))
    assert float(only.detach()) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="relation"):
        mined_infonce(e, torch.zeros(2, 2))
