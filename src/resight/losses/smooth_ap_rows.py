"""The element-wise part of Smooth-AP in plain torch, in pieces that a CPU's cache holds.

resight.losses.smooth_ap has the formulas and the names.
"""

from __future__ import annotations

import torch


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

    start, positives, itself (t,) int64: first column of a query's class, its positives, and the
    column of its class that it is not compared with (s is overwritten there). runs: the same
    positives as [(queries in turn, positives of each)].
    """
    if itself is not None:
        itself = itself[:, None]
        s.scatter_(1, itself, -torch.inf)  # σ and its slope are 0 there
    work = s.new_empty(max(_work(s), s.shape[1]))
    low = 0
    for times, count in runs:
        high = low + times
        # As many queries at a time as the work space holds; of a large class, some positives.
        step = max(len(work) // (count * s.shape[1]), 1)
        part = min(len(work) // s.shape[1], count)
        counter = torch.arange(count, device=s.device)
        for row in range(low, high, step):
            at = slice(row, min(row + step, high))
            columns = start[at, None] + counter
            if itself is not None:
                columns += columns >= itself[at]
            _piece(s[at], None if h is None else h[at], columns, part, work, ap[at])
        low = high


def _piece(
    s: torch.Tensor,
    h: torch.Tensor | None,
    columns: torch.Tensor,
    part: int,
    work: torch.Tensor,
    ap: torch.Tensor,
) -> None:
    """The same for n queries whose positives are columns (n, p), `part` positives at a time."""
    own = s.gather(1, columns)
    n, p = columns.shape
    correction = torch.zeros_like(own)
    ap.zero_()
    for low in range(0, p, part):
        at = slice(low, min(low + part, p))
        here = own[:, at, None]
        k = here.shape[1]
        g = work[: n * k * s.shape[1]].view(n, k, s.shape[1])
        torch.sub(s[:, None], here, out=g).sigmoid_()
        near = torch.sigmoid(own[:, None] - here)  # (n, k, p)
        # The 1 of both sums, less σ(0) of the positive with itself.
        r, t = near.sum(2).add_(0.5), g.sum(2).add_(0.5)
        ratio = r / t
        ap += ratio.sum(1) / p
        if h is None:
            continue
        b = -1 / (t * p)
        a = -ratio * b
        g.addcmul_(g, g, value=-1)  # σ' = σ − σ²
        near = near.addcmul_(near, near, value=-1).mul_(b[..., None])
        torch.baddbmm(h[:, None], a[:, None], g, beta=float(low > 0), out=h[:, None])
        correction += near.sum(1)
        correction[:, at] -= near.sum(2).addcmul_(a, g.sum(2))
    if h is not None:
        h.scatter_add_(1, columns, correction)


def _work(x: torch.Tensor) -> int:
    """Sigmoids at a time: on a CPU what its cache holds."""
    return 1 << (26 if x.is_cuda else 18)
