"""The softmax over a memory of all images: its logarithm of sums, in bounded room."""

from __future__ import annotations

from typing import Any

import torch

CHUNK = 65_536  # slots at once


class _LogSumExp(torch.autograd.Function):
    """The gradient is made with the value, so that slots may be overwritten before backward."""

    @staticmethod
    def forward(
        ctx: Any, e: torch.Tensor, slots: torch.Tensor, temperature: float, chunk: int
    ) -> torch.Tensor:
        top = e.new_full((len(e),), -torch.inf)
        total, gradient = e.new_zeros(len(e)), torch.zeros_like(e)
        for part in torch.split(slots, chunk):
            scores = (e @ part.T).div_(temperature)
            highest = torch.maximum(top, scores.amax(1))
            before = (top - highest).exp_()
            scores.sub_(highest[:, None]).exp_()
            total = total * before + scores.sum(1)
            gradient = gradient * before[:, None] + scores @ part
            top = highest
        ctx.save_for_backward(gradient / (temperature * total)[:, None])
        return top + total.log()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return grads[0][:, None] * gradient, None, None, None


def log_sum_exp(
    e: torch.Tensor, slots: torch.Tensor, temperature: float, chunk: int = CHUNK
) -> torch.Tensor:
    """log Σ_j exp(e_i · slots_j / temperature), (B,), for e (B, D) and slots (N, D), N >= 1.

    The gradient goes to `e` alone. Room for (B, chunk) beside e and slots; two products.
    """
    found: torch.Tensor = _LogSumExp.apply(e, slots, temperature, chunk)
    return found
