"""The logarithm of sums over a memory, and that the memory may change before backward."""

from __future__ import annotations

import pytest
import torch

from resight.losses.slots import log_sum_exp


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_value_and_gradient(chunk):
    torch.manual_seed(0)
    e = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    slots = torch.randn(20, 6, dtype=torch.float64)
    found = log_sum_exp(e, slots, 0.1, chunk)
    torch.testing.assert_close(found, (e @ slots.T / 0.1).logsumexp(1))
    assert torch.autograd.gradcheck(lambda x: log_sum_exp(x, slots, 0.5, chunk), (e,))


def test_slots_may_be_overwritten():
    torch.manual_seed(1)
    e = torch.randn(3, 5, requires_grad=True)
    slots = torch.randn(9, 5)
    (wanted,) = torch.autograd.grad((e @ slots.T / 0.2).logsumexp(1).sum(), e)
    found = log_sum_exp(e, slots, 0.2).sum()
    slots.zero_()
    found.backward()
    torch.testing.assert_close(e.grad, wanted)


def test_similarities_far_from_zero():
    e, slots = torch.tensor([[1000.0], [-1000.0]]), torch.tensor([[1.0], [-1.0]])
    torch.testing.assert_close(log_sum_exp(e, slots, 0.01), torch.tensor([1e5, 1e5]))
