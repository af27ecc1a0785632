"""The rounds of the official centroid triplet loss, all at once, with their gradient.

A centroid is never kept: it is c = share · (sum − query), sum that of its id's images, or
share · sum with references. So the products of queries with each other and with the sums of ids
give every distance of every round. They only choose each point's nearest point of another id;
distances and gradients then come from the differences of those vectors, exact to rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

COMPILED = 256  # ids of a round, at most: of more, the products take most of the time
CELLS = 1 << 22  # pairs of ids at a time, of rounds side by side
BLOCK = 1 << 17  # numbers at a time, of differences: they stay in the processor's cache


class Plan(NamedTuple):
    """Who asks in which round of "official".

    rows, owner: the queries, round after round, and the ids (0..C-1) of each. Ids are numbered by
    how many queries they have, most first: the ids of a round are always the first ones.
    sizes: queries, and so ids, of each round; never rising, at least 2.
    extra, extra_owner: the other images that belong to centroids, rows of the references if there
    are any, else of the batch.
    images: of each id's centroid; of the batch itself, the query is one of them, and left out.
    """

    rows: list[int]
    owner: list[int]
    sizes: list[int]
    extra: list[int]
    extra_owner: list[int]
    images: list[int]


def plan_rounds(labels: list[int], ref_labels: list[int] | None) -> Plan:
    """Put the queries into rounds; ids without two images, or without a reference, take no part."""
    asking, known = _rows_of(labels), _rows_of(ref_labels or [])
    least = 2 if ref_labels is None else 1
    names = [k for k in asking if len(asking[k]) >= least and (ref_labels is None or k in known)]
    names.sort(key=lambda k: -len(asking[k]))
    plan = Plan([], [], [], [], [], [])
    rounds = len(asking[names[1]]) if len(names) > 1 else 0
    for i in range(rounds):
        rows = [asking[k][i] for k in names if len(asking[k]) > i]
        plan.rows.extend(rows)
        plan.owner.extend(range(len(rows)))
        plan.sizes.append(len(rows))
    for number, k in enumerate(names):
        extra = asking[k][rounds:] if ref_labels is None else known[k]
        plan.extra.extend(extra)
        plan.extra_owner.extend([number] * len(extra))
        plan.images.append(len(asking[k] if ref_labels is None else known[k]))
    return plan


def _rows_of(labels: list[int]) -> dict[int, list[int]]:
    """Each id's images, in batch order."""
    found: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        found.setdefault(label, []).append(row)
    return found


def rounds(f: torch.Tensor, refs: torch.Tensor | None, plan: Plan, margin: float) -> torch.Tensor:
    """`Rounds`, compiled where that is faster."""
    small = plan.sizes[0] <= COMPILED
    way = CompiledRounds if f.device.type == "cpu" and small else Rounds
    loss: torch.Tensor = way.apply(f, refs, plan, margin)
    return loss


class CompiledRounds(torch.autograd.Function):
    """As `Rounds`, on a processor: one compiled call in place of sixty of torch."""

    @staticmethod
    def forward(
        ctx: Any, f: torch.Tensor, refs: torch.Tensor | None, plan: Plan, margin: float
    ) -> torch.Tensor:
        from resight.losses.ctl_compiled import rounds as compiled

        want = any(ctx.needs_input_grad)
        points = f.detach().contiguous().numpy()
        others = points if refs is None else refs.detach().contiguous().numpy()
        to_f = torch.zeros_like(f, memory_format=torch.contiguous_format)
        to_refs = (
            None if refs is None else torch.zeros_like(refs, memory_format=torch.contiguous_format)
        )
        lists = tuple(np.array(values, dtype=np.int64) for values in plan)
        slopes = to_f.numpy(), (to_f if to_refs is None else to_refs).numpy()
        loss = compiled(points, others, lists, refs is None, float(margin), want, *slopes)
        ctx.save_for_backward(to_f, to_refs)
        return torch.tensor(loss, dtype=f.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return Rounds.backward(ctx, slope)


class Rounds(torch.autograd.Function):
    """f (B, D), refs (R, D) or None -> mean over rounds of batch-hard triplets, scalar.

    The gradient is made with the loss, from what the loss needs anyhow. Memory: a copy of the
    queries, the gradient, and a few blocks.
    """

    @staticmethod
    def forward(
        ctx: Any, f: torch.Tensor, refs: torch.Tensor | None, plan: Plan, margin: float
    ) -> torch.Tensor:
        queries, sums, owner, rows = _gather(f, refs, plan)
        share = _tensor([1 / (n - 1 if refs is None else n) for n in plan.images], f)
        near = _nearest(queries, sums, share, plan.sizes, refs is None)
        to_f = torch.zeros_like(f) if any(ctx.needs_input_grad) else None
        to_sums = torch.zeros_like(sums)
        points = _Points(queries, sums, owner, share, refs is None)
        weight = [1 / (2 * size * len(plan.sizes)) for size in plan.sizes for _ in range(size)]
        loss = _triplets(points, near, _tensor(weight, f), margin, rows, to_f, to_sums)
        if to_f is None:
            return loss
        to_refs = None if refs is None else torch.zeros_like(refs)
        if refs is None:
            to_f.index_add_(0, rows, to_sums.index_select(0, owner))
        if plan.extra:
            to_extra = to_f if to_refs is None else to_refs
            extra, its = _rows(plan.extra, f), _rows(plan.extra_owner, f)
            to_extra.index_add_(0, extra, to_sums.index_select(0, its))
        ctx.save_for_backward(to_f, to_refs)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        to_f, to_refs = ctx.saved_tensors
        return to_f * slope, None if to_refs is None else to_refs * slope, None, None


class _Points(NamedTuple):
    """N queries, then the N centroids of their ids."""

    queries: torch.Tensor  # (N, D)
    sums: torch.Tensor  # (C, D)
    owner: torch.Tensor  # (N,) int64
    share: torch.Tensor  # (C,)
    left_out: bool

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """How much of its query and how much of its id's sum makes a point: (2N,) each."""
        share = self.share[self.owner]
        none, one = torch.zeros_like(share), torch.ones_like(share)
        return torch.cat([one, -share if self.left_out else none]), torch.cat([none, share])


def _rows(values: list[int], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=like.device)


def _tensor(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def _gather(f: torch.Tensor, refs: torch.Tensor | None, plan: Plan) -> tuple[torch.Tensor, ...]:
    """Queries (N, D) and sums (C, D) about the queries' mean; owner and row of the queries (N,)."""
    rows, owner = _rows(plan.rows, f), _rows(plan.owner, f)
    queries = f.index_select(0, rows)
    middle = queries.mean(0)  # products of centred points keep more digits
    queries.sub_(middle)
    sums = f.new_zeros(len(plan.images), f.shape[1])
    if refs is None:
        sums.index_add_(0, owner, queries)
    if plan.extra:
        others = (f if refs is None else refs).index_select(0, _rows(plan.extra, f)).sub_(middle)
        sums.index_add_(0, _rows(plan.extra_owner, f), others)
    return queries, sums, owner, rows


def _triplets(
    points: _Points,
    near: torch.Tensor,
    weight: torch.Tensor,
    margin: float,
    rows: torch.Tensor,
    to_f: torch.Tensor | None,
    to_sums: torch.Tensor,
) -> torch.Tensor:
    """Weighted sum of [ d(x, c) − d(p, nearest) + margin ]_+ over p = x, c of every query x.

    near (2, N) int64 in 0..2N-1, weight (N,). The gradient by the queries is added to rows (N,)
    of to_f (B, D), if given, that by the sums to to_sums. The slope of a distance of 0 is 0.
    """
    queries, sums, owner, _, _ = points
    n, dim = queries.shape
    a, b = (values[:, None] for values in points.weights())
    loss = weight.new_zeros(())
    step = n if queries.is_cuda else min(n, max(1, BLOCK // dim))
    memory = queries.new_empty(5 * step * dim)
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        x, mine, of_x, of_sum = queries[part], owner[part], a[n:][part], b[n:][part]
        other = near[:, part].flatten()
        other_a, other_b = a[other], b[other]
        other = other.remainder_(n)
        other_owner = owner[other]

        buffer = memory[: 5 * len(x) * dim].view(5, len(x), dim)
        apart, away, spare = buffer[0], buffer[1:3], buffer[3:].flatten(0, 1)
        flat = away.view(-1, dim)  # from p to its nearest, of the queries, then of the centroids
        torch.index_select(sums, 0, mine, out=spare[: len(x)])
        torch.mul(x, 1 - of_x, out=apart).addcmul_(spare[: len(x)], of_sum, value=-1)  # x − c
        torch.index_select(queries, 0, other, out=flat)
        torch.index_select(sums, 0, other_owner, out=spare)
        flat.mul_(other_a).addcmul_(spare, other_b)
        away.sub_(x)
        away[1].add_(apart)
        distance = torch.linalg.vector_norm(buffer[:3], dim=2)
        far, close = distance[0], distance[1:]
        hinge = (far - close).add_(margin).clamp_(min=0)
        loss += hinge.sum(0).dot(weight[part])
        if to_f is None:
            continue
        active = weight[part] * (hinge != 0)
        pull = active.sum(0).div_(far).masked_fill_(far == 0, 0)
        push = active.div_(close).masked_fill_(close == 0, 0)
        away.mul_(push[:, :, None])
        to_f.index_add_(0, rows[other], torch.mul(flat, other_a, out=spare), alpha=-1)
        to_sums.index_add_(0, other_owner, torch.mul(flat, other_b, out=spare), alpha=-1)
        apart.mul_(pull[:, None])
        to_c = away[1].sub_(apart)
        to_f.index_add_(0, rows[part], away[0].add_(apart).addcmul_(to_c, of_x))
        to_sums.index_add_(0, mine, to_c.mul_(of_sum))
    return loss


def _nearest(
    queries: torch.Tensor,
    sums: torch.Tensor,
    share: torch.Tensor,
    sizes: list[int],
    left_out: bool,
) -> torch.Tensor:
    """For each query, then each centroid, its nearest point of another id in its round.

    queries (N, D), sums (C, D), share (C,) -> (2, N) int64, queries 0..N-1, centroids N..2N-1.
    A centroid is (sum − query) · share, or sum · share; so products of queries with each other
    and with the sums give those of the centroids too.
    """
    n, dim = queries.shape
    found, begin, start = [], 0, 0
    while begin < len(sizes):
        # Rounds side by side: of sizes not too different, and not too many.
        width = sizes[begin]
        most = max(1, CELLS // (width * width))
        end = begin + 1
        while end < len(sizes) and end - begin < most and 2 * sizes[end] > width:
            end += 1
        mine = torch.tensor(sizes[begin:end], device=queries.device)[:, None]
        rounds, stop = end - begin, start + sum(sizes[begin:end])
        even = sizes[end - 1] == width
        places = torch.arange(width, device=queries.device)
        starts = mine.cumsum(0) - mine + start
        block = queries[start:stop] if even else queries[(starts + places).clamp_(max=n - 1)]
        block = block.view(rounds, width, dim)

        total = sums[:width]
        qq = torch.bmm(block, block.mT)
        qs = (block.flatten(0, 1) @ total.T).view(rounds, width, width)
        ss = (total @ total.T).expand(rounds, width, width)
        if left_out:
            ss = ss - qs - qs.mT + qq
            qs = qs - qq
        by = share[:width]
        qc, cc = qs * by, ss * (by[:, None] * by)
        products = torch.cat([torch.cat([qq, qc], 2), torch.cat([qc.mT, cc], 2)], 1)
        squares = products.diagonal(dim1=1, dim2=2)
        if not even:
            squares = squares.masked_fill((places >= mine).repeat(1, 2), torch.inf)
        score = torch.add(squares[:, None, :], products, alpha=-2)
        itself = score.view(rounds, 2, width, 2, width).diagonal(dim1=2, dim2=4)
        itself.fill_(torch.inf)
        best = score.argmin(2)
        centroid = best >= width
        best = (best + starts).add_(centroid, alpha=n - width).view(rounds, 2, width)
        best = best.transpose(0, 1)
        found.append(best.reshape(2, -1) if even else best[:, places < mine])
        begin, start = end, stop
    return torch.cat(found, 1)
