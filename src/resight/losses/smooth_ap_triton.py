"""The element-wise part of Smooth-AP as one Triton kernel, for NVIDIA and AMD GPUs.

A row of similarities is read twice and its slope is written once; no σ of a pair is ever stored.
resight.losses.smooth_ap says what is computed, and does the same in plain torch.
"""

# mypy: disable-error-code="import-untyped,import-not-found,no-untyped-def,untyped-decorator"

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl


@triton.jit
def _row(
    s_at,
    h_at,
    ap_at,
    own_at,
    start_at,
    positives_at,
    itself_at,
    columns,
    widest,
    GRADS: tl.constexpr,
    POSITIVES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One query: its AP; its slope, less what its positives get back (own_at)."""
    q = tl.program_id(0).to(tl.int64)
    start = tl.load(start_at + q)
    p = tl.load(positives_at + q)
    itself = tl.load(itself_at + q)  # -1: compared with every column
    end = start + p + (itself >= 0).to(tl.int64)
    row = s_at + q * columns
    kind = s_at.dtype.element_ty
    total = tl.zeros((1,), dtype=kind)
    for low in range(0, p, POSITIVES):
        i = low + tl.arange(0, POSITIVES)
        live = i < p
        place = start + i
        place += ((itself >= 0) & (place >= itself)).to(tl.int64)
        s_i = tl.load(row + place, mask=live, other=0.0)
        r = tl.full((POSITIVES,), 0.5, dtype=kind)  # 1 less σ(0) of i with itself
        t = tl.full((POSITIVES,), 0.5, dtype=kind)
        for first in range(0, columns, COLUMNS):
            j = first + tl.arange(0, COLUMNS)
            s_j = tl.load(row + j, mask=(j < columns) & (j != itself), other=float("-inf"))
            g = tl.sigmoid(s_j[None, :] - s_i[:, None])
            t += tl.sum(g, 1)
            r += tl.sum(tl.where((j >= start) & (j < end), g, 0.0), 1)
        total += tl.sum(tl.where(live, r / t, 0.0), 0)
        if GRADS:
            b = tl.where(live, -1.0 / (t * p), 0.0)
            a = -b * r / t
            own = tl.zeros((POSITIVES,), dtype=kind)
            for first in range(0, columns, COLUMNS):
                j = first + tl.arange(0, COLUMNS)
                inside = j < columns
                s_j = tl.load(row + j, mask=inside & (j != itself), other=float("-inf"))
                g = tl.sigmoid(s_j[None, :] - s_i[:, None])
                near = ((j >= start) & (j < end))[None, :]
                slope = (a[:, None] + tl.where(near, b[:, None], 0.0)) * (g - g * g)
                own += tl.sum(slope, 1)
                h_j = tl.sum(slope, 0)
                if low > 0:
                    h_j += tl.load(h_at + q * columns + j, mask=inside, other=0.0)
                tl.store(h_at + q * columns + j, h_j, mask=inside)
            tl.store(own_at + q * widest + i, own, mask=live)
    tl.store(ap_at + q + tl.arange(0, 1), total / p)


def rows(
    s: torch.Tensor,
    h: torch.Tensor | None,
    start: torch.Tensor,
    positives: torch.Tensor,
    itself: torch.Tensor | None,
    runs: list[tuple[int, int]],
    ap: torch.Tensor,
) -> None:
    """Fill ap (t,), and h (t, R) with d(1 − AP)/ds, from s (t, R), similarities over τ.

    Arguments as for smooth_ap_rows.rows; s is left as it is.
    """
    widest = max(count for _, count in runs)
    if itself is None:
        itself = torch.full_like(start, -1)
    own = s.new_zeros((len(s), widest) if h is not None else (1, 1))
    block = min(triton.next_power_of_2(widest), 16)
    _row[(len(s),)](
        s,
        s if h is None else h,
        ap,
        own,
        start,
        positives,
        itself,
        s.shape[1],
        widest,
        GRADS=h is not None,
        POSITIVES=block,
        COLUMNS=min(triton.next_power_of_2(s.shape[1]), 4096 // block, 1024),
    )
    if h is not None:
        # Each positive once; places past a query's last positive add 0 to the last column.
        place = start[:, None] + torch.arange(widest, device=s.device)
        place += (itself[:, None] >= 0) & (place >= itself[:, None])
        h.scatter_add_(1, place.clamp_(max=s.shape[1] - 1), own.neg_())


@lru_cache
def works(device: torch.device) -> bool:
    """Whether a kernel can be built and run there: Triton wants a C compiler when it runs."""
    one = torch.ones(1, dtype=torch.int64, device=device)
    try:
        rows(
            torch.ones(1, 2, device=device),
            None,
            0 * one,
            one,
            None,
            [(1, 1)],
            torch.ones(1, device=device),
        )
    except Exception:  # whatever the reason is, plain torch does the same
        return False
    return True
