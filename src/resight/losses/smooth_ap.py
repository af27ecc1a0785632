"""Smooth-AP (Brown, Xie, Kalogeiton, Zisserman, ECCV 2020): average precision made smooth.

    AP_q ≈ 1/|P| Σ_{i∈P} R_i / T_i,
    R_i = 1 + Σ_{j∈P, j≠i} σ((s_j − s_i)/τ),   T_i = R_i + Σ_{j∈N} σ((s_j − s_i)/τ),

s the cosine similarities to query q, P its positives, N its negatives; the loss is the mean of
1 − AP_q. R_i is a smooth rank among the positives, T_i among everything.

The gradient is written out by hand and is ready when the value is: with a_i = R_i/T_i² and
b_i = −1/T_i (the factor 1/|P| left out) the slope of 1 − AP_q is, for σ' at (s_j − s_i)/τ,

    d/ds_j gets a_i σ' from every i, and b_i σ' more from i if j is a positive; d/ds_i the opposite.

So queries are walked in tiles of rows: memory is the embeddings, their gradient and one tile.
Negatives are never told apart: one sweep takes every column, the few positive ones are set right
afterwards. Rows are sorted by class, so that positives lie side by side. smooth_ap_rows and
smooth_ap_triton do the element-wise part, the one in plain torch, the other on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from resight.losses import smooth_ap_rows

SHORTEST = 1e-12  # a shorter embedding has no direction: it counts as zero and gets no gradient


class SmoothAPLoss(nn.Module):
    """Mean over queries of 1 − smooth average precision.

    temperature: τ; the smaller, the closer to the true AP and the fewer pairs give a gradient.
    include_query: False as the paper defines it: a query is compared with all others. True as in
    the released code: the query stands in its own positives too, at the top, which makes the loss
    smaller and moves every other positive down one rank.

    Classes may have any size and stand in any order; a query without a positive does not count.
    """

    def __init__(self, temperature: float = 0.01, include_query: bool = False):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature {temperature} is not above 0")
        self.temperature = temperature
        self.include_query = include_query

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float of any length, labels (B,) int -> scalar.

        With ref_embeddings (R, D) and ref_labels (R,) each embedding is a query among the
        references, every pair counts, and gradients flow to both; ValueError with include_query.
        Output float32, float64 for float64. Half precision is lifted to float32: rounding a
        similarity to half precision would be an error of the order of τ.
        """
        if (ref_embeddings is None) != (ref_labels is None):
            raise ValueError("ref_embeddings and ref_labels go together: one of them is missing")
        plan = _plan(labels, ref_labels, self.include_query)
        if len(plan.queries) == 0:  # a sum over no rows: 0 whatever the embeddings hold
            nothing = _lift(embeddings[:0]).sum()
            return nothing if ref_embeddings is None else nothing + _lift(ref_embeddings[:0]).sum()
        inputs = (embeddings,) if ref_embeddings is None else (embeddings, ref_embeddings)
        grads = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        found: torch.Tensor = _SmoothAP.apply(
            embeddings, ref_embeddings, plan, self.temperature, grads
        )
        return found


def smooth_ap(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    ref_embeddings: torch.Tensor | None = None,
    ref_labels: torch.Tensor | None = None,
    *,
    temperature: float = 0.01,
    include_query: bool = False,
) -> torch.Tensor:
    """Smooth average precision of each query, (B,), NaN where it has no positive; no gradient.

    Arguments as for SmoothAPLoss, which is 1 minus the mean of these.
    """
    with torch.no_grad():
        plan = _plan(labels, ref_labels, include_query)
        found = _lift(embeddings).new_full((len(embeddings),), torch.nan)
        if len(plan.queries):
            found[plan.queries] = _sweep(embeddings, ref_embeddings, plan, temperature, False)[0]
    return found


class _SmoothAP(torch.autograd.Function):
    """The loss, its gradient computed on the way and scaled in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: torch.Tensor,
        references: torch.Tensor | None,
        plan: _Plan,
        temperature: float,
        grads: bool,
    ) -> torch.Tensor:
        ap, *slopes = _sweep(embeddings, references, plan, temperature, grads)
        ctx.save_for_backward(*slopes)
        ctx.dtypes = [x.dtype for x in (embeddings, references) if x is not None]
        return 1 - ap.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # Only the product goes back to half precision: a loss scale is in it by then.
        found = [
            (saved * slope).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return found[0], found[1] if len(found) > 1 else None, None, None, None


@dataclass(frozen=True)
class _Plan:
    """Who is compared with whom, in sorted order.

    queries (Q,): rows of the embeddings, by number of positives and then by class.
    columns (R,): rows of what they are compared with, so that a class stands side by side.
    start (Q,), size (Q,): the columns of a query's class are start .. start + size - 1.
    itself (Q,): the column that a query is not compared with, itself; None: with all of them.
    positives (Q,): how many positives a query has, rising.
    runs: how many queries in turn have how many positives, [(queries, positives)].
    """

    queries: torch.Tensor
    columns: torch.Tensor
    start: torch.Tensor
    itself: torch.Tensor | None
    positives: torch.Tensor
    runs: list[tuple[int, int]]


def _plan(labels: torch.Tensor, ref_labels: torch.Tensor | None, include_query: bool) -> _Plan:
    """Sort rows so that equal numbers of positives, and in them equal classes, are neighbours."""
    if ref_labels is not None and include_query:
        raise ValueError("include_query has no meaning with references: they don't hold the query")
    known = labels if ref_labels is None else torch.cat([labels, ref_labels])
    classes, member = torch.unique(known, return_inverse=True)
    member, others = member[: len(labels)], member[len(labels) :]
    if ref_labels is None:
        others = member
    counts = torch.bincount(others, minlength=len(classes))
    # Classes by size: rank[c] is the place of class c, first[c] its first column.
    by_size = torch.argsort(counts, stable=True)
    rank = torch.empty_like(by_size)
    rank[by_size] = torch.arange(len(classes), device=rank.device)
    first = torch.empty_like(counts)
    first[by_size] = counts[by_size].cumsum(0) - counts[by_size]
    columns = torch.argsort(rank[others], stable=True)
    queries = columns if ref_labels is None else torch.argsort(rank[member], stable=True)
    # A query that is its own and only positive has nothing to be ranked.
    lone = 1 if ref_labels is None else 0
    skipped = int((counts[member] <= lone).sum())
    queries = queries[skipped:]
    itself = None
    if ref_labels is None and not include_query:
        itself = torch.arange(skipped, len(labels), device=labels.device)
    positives = counts[member[queries]] - int(itself is not None)
    sizes, times = torch.unique_consecutive(positives, return_counts=True)
    runs = list(zip(times.tolist(), sizes.tolist(), strict=True))
    return _Plan(queries, columns, first[member[queries]], itself, positives, runs)


def _sweep(
    embeddings: torch.Tensor,
    references: torch.Tensor | None,
    plan: _Plan,
    temperature: float,
    grads: bool,
) -> tuple[torch.Tensor, ...]:
    """AP (Q,) in the plan's order; with grads also d(1 − mean AP) by embeddings and references."""
    with torch.autocast(embeddings.device.type, enabled=False):
        y, y_length = _unit(embeddings if references is None else references, plan.columns)
        if references is None:  # the queries are the last columns
            skipped = len(y) - len(plan.queries)
            x, x_length = y[skipped:], y_length[skipped:]
        else:
            x, x_length = _unit(embeddings, plan.queries)
        ap = x.new_empty(len(x))
        dy = torch.zeros_like(y) if grads else None
        dx = None
        if dy is not None:
            dx = dy[len(y) - len(x) :] if references is None else torch.zeros_like(x)
        fill = _filler(x.device)
        rows = min(len(x), _tile_rows(x, len(y)))
        block, slope = x.new_empty(rows, len(y)), x.new_empty(rows if grads else 0, len(y))
        for begin in range(0, len(x), rows):
            part = slice(begin, min(begin + rows, len(x)))
            query = x[part] / temperature
            s = torch.mm(query, y.T, out=block[: len(query)])
            h = slope[: len(query)] if grads else None
            itself = None if plan.itself is None else plan.itself[part]
            runs = _within(plan.runs, part.start, part.stop)
            fill(s, h, plan.start[part], plan.positives[part], itself, runs, ap[part])
            if h is not None and dx is not None and dy is not None:
                h /= len(x)
                if references is None and len(query) == len(y):  # one tile: one product for both
                    torch.mm(h + h.T, query, out=dy)
                    continue
                dx[part].addmm_(h, y, alpha=1 / temperature)
                dy.addmm_(h.T, query)
        if dx is None or dy is None:
            return (ap,)
        if references is None:
            return ap, _through_unit(dy, y, y_length, plan.columns, len(embeddings))
        return (
            ap,
            _through_unit(dx, x, x_length, plan.queries, len(embeddings)),
            _through_unit(dy, y, y_length, plan.columns, len(references)),
        )


def _within(runs: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """The runs of the queries start .. stop - 1 alone."""
    found, place = [], 0
    for times, positives in runs:
        inside = min(place + times, stop) - max(place, start)
        if inside > 0:
            found.append((inside, positives))
        place += times
    return found


def _tile_rows(x: torch.Tensor, columns: int) -> int:
    """Rows of a tile of similarities: large enough for the products to run at full speed."""
    return max((1 << (26 if x.is_cuda else 22)) // columns, 16)


@lru_cache
def _filler(device: torch.device) -> Callable[..., None]:
    """What fills a tile: the fused kernel where it runs, else plain torch."""
    if device.type == "cuda":
        try:
            from resight.losses import smooth_ap_triton
        except ImportError:
            return smooth_ap_rows.rows
        if smooth_ap_triton.works(device):
            return smooth_ap_triton.rows
    return smooth_ap_rows.rows


def _lift(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _unit(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Those rows at unit length (N, D), and their lengths (N, 1)."""
    x = _lift(x[rows])
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    length = length.masked_fill(length <= SHORTEST, torch.inf)
    return x / length, length


def _through_unit(
    slope: torch.Tensor, x: torch.Tensor, length: torch.Tensor, rows: torch.Tensor, total: int
) -> torch.Tensor:
    """Gradient by the embeddings (total, D), in their own order, from that by unit rows x."""
    along = (slope * x).sum(1, keepdim=True)
    found = slope.new_zeros(total, slope.shape[1])
    return found.index_copy_(0, rows, torch.addcmul(slope, along, x, value=-1).div_(length))
