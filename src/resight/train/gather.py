"""Batches that are spread over processes, put together for the loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def gathered(rows: torch.Tensor) -> torch.Tensor:
    """The rows (b, ...) of all processes, in the order of their ranks: (B, ...).

    Processes may hold different numbers of rows, none too. The gradient that comes back is that
    of each process's own rows times the number of processes: every process computes the whole
    loss, and DistributedDataParallel takes the mean of the gradients, so that together they are
    those of one process with the whole batch. With one process the rows are returned as they are.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    sizes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(sizes, len(rows))
    if rows.requires_grad:
        out: torch.Tensor = _Gather.apply(rows, sizes)
        return out
    return _all_gather(rows, sizes)


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Make the gradients of parameters that every process trains alike equal to the last bit."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def average_statistics(module: torch.nn.Module) -> None:
    """Give the running statistics of BatchNorm layers in training mode their mean over processes.

    Each process sees its own part of the batch; so all hold, and save, the same.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    kept = [
        buffer
        for norm in module.modules()
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm) and norm.training
        for buffer in (norm.running_mean, norm.running_var)
        if buffer is not None
    ]
    if not kept:
        return
    flat = torch.cat([buffer.flatten() for buffer in kept])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for buffer, mean in zip(kept, torch.split(flat, [b.numel() for b in kept]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def _all_gather(rows: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        start = sum(sizes[: dist.get_rank()])
        ctx.own = slice(start, start + len(rows))
        ctx.world = len(sizes)
        return _all_gather(rows, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient[ctx.own] * ctx.world, None
