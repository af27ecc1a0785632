"""Centroid triplet loss (Wieczorek, Rychalska, Dąbrowski, ICONIP 2021), in three variants.

They are three different losses; numbers under one say nothing of another.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from resight.losses.distance import lifted, squared_distances, zero

Variant = Literal["official", "paper", "all"]
CELLS = 1 << 22  # of rounds side by side, pairs of ids at a time


class CentroidTripletLoss(nn.Module):
    """Triplets whose positive and negative are centroids of classes.

    - "official" (the released code): M rounds, M the largest number of images an id has. In
      round i the queries are image i of every id that has one, and each of those ids has as
      centroid the mean of its other images. Batch-hard triplet over all queries and centroids
      together, with plain distances. Mean over rounds; ids of one image and rounds of fewer than
      two ids are skipped. Images of an id are counted in batch order.
    - "paper" (eq. 2): [ ||f(A) − c_P||² − min_N ||f(A) − c_N||² + α ]_+, c_P without the anchor,
      the nearest centroid of another id as negative; mean over anchors.
    - "all": as "paper", but every pair of an anchor and another id, mean over pairs.

    Gradients flow through the centroids. Ids may have any number of images, in any order; an id
    with one image is a negative only ("paper", "all").

    With references the batch's images are the queries and every id's centroid is the mean of all
    its reference images, nothing left out. "official": the queries whose id is among the
    references, in rounds as above, each against the other queries of its round and the centroids
    of the round's ids. "paper", "all": the anchors whose id is among the references, if any other
    id is too, against the centroids of all ids of the references.

    margin: 0.5 unless given, 0.05 for "all".
    """

    def __init__(self, variant: Variant = "official", margin: float | None = None):
        super().__init__()
        if variant not in ("official", "paper", "all"):
            raise ValueError(f"variant {variant!r} is none of official, paper, all")
        self.variant = variant
        self.margin = margin if margin is not None else (0.05 if variant == "all" else 0.5)

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_embeddings: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """embeddings (B, D) float, not normalised; labels (B,) int; ref_* (R, D) and (R,).

        -> scalar, float32 (float64 for float64), 0 where no anchor has a positive and a negative.
        ValueError: only one of ref_embeddings and ref_labels.
        """
        if (ref_embeddings is None) != (ref_labels is None):
            raise ValueError("give both ref_embeddings and ref_labels, or neither")
        f = refs = lifted(embeddings)
        owners = labels
        if ref_embeddings is not None and ref_labels is not None:
            refs, owners = lifted(ref_embeddings), ref_labels
            wider = torch.promote_types(f.dtype, refs.dtype)
            f, refs = f.to(wider), refs.to(wider)
        # The few integers that say who meets whom are worked out on the CPU.
        y, ids = labels.cpu(), _Ids.of(owners.cpu())
        own, known = ids.find(y)
        left_out = ref_embeddings is None  # a query is left out of its own id's centroid
        usable = known & (ids.counts[own] > 1) if left_out else known
        if len(ids.names) < 2 or not bool(usable.any()):
            return zero(f) if left_out else zero(f, refs)
        with torch.autocast(f.device.type, enabled=False):
            if self.variant == "official":
                return _official(f, refs, ids, own, usable, left_out, self.margin)
            anchors = usable.nonzero().squeeze(1)
            return self._paper(f, refs, ids, own[anchors], anchors, left_out)

    def _paper(
        self,
        f: torch.Tensor,
        refs: torch.Tensor,
        ids: _Ids,
        own: torch.Tensor,
        anchors: torch.Tensor,
        left_out: bool,
    ) -> torch.Tensor:
        own, anchors = own.to(f.device), anchors.to(f.device)
        counts = ids.counts.to(f.device, f.dtype)[:, None]
        sums = _sums(refs, ids.member.to(f.device), len(counts))
        f, centroids = f.index_select(0, anchors), sums / counts
        if left_out:
            mine = (sums.index_select(0, own) - f) / (counts[own] - 1)
        else:
            mine = centroids.index_select(0, own)
        positive = (f - mine).square().sum(1)
        other = torch.arange(len(counts), device=f.device)[None, :] != own[:, None]
        if self.variant == "all":
            loss = positive[:, None] - squared_distances(f, centroids) + self.margin
            return loss.clamp(min=0)[other].mean()
        with torch.no_grad():
            nearest = squared_distances(f, centroids).masked_fill_(~other, torch.inf).argmin(1)
        negative = (f - centroids.index_select(0, nearest)).square().sum(1)
        return (positive - negative + self.margin).clamp(min=0).mean()


class _Ids(NamedTuple):
    """The ids that have a centroid, ascending."""

    names: torch.Tensor  # (C,)
    member: torch.Tensor  # (R,) which of them each image has
    counts: torch.Tensor  # (C,) images each has

    @classmethod
    def of(cls, labels: torch.Tensor) -> _Ids:
        return cls(*torch.unique(labels, return_inverse=True, return_counts=True))

    def find(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For every label (B,), which id it is (any where it is none), and whether it is one."""
        if len(self.names) == 0:
            return torch.zeros_like(labels), torch.zeros_like(labels, dtype=torch.bool)
        place = torch.searchsorted(self.names, labels).clamp_(max=len(self.names) - 1)
        return place, self.names[place] == labels


def _sums(rows: torch.Tensor, owner: torch.Tensor, owners: int) -> torch.Tensor:
    return rows.new_zeros(owners, rows.shape[1]).index_add(0, owner, rows)


def _official(
    f: torch.Tensor,
    refs: torch.Tensor,
    ids: _Ids,
    own: torch.Tensor,
    usable: torch.Tensor,
    left_out: bool,
    margin: float,
) -> torch.Tensor:
    """All rounds at once.

    Queries are put in the order of their rounds and, within a round, of how many images their id
    has, so that round i's ids are the first C_i of all and every round is a block.
    """
    rows = usable.nonzero().squeeze(1)
    names, inverse, counts = torch.unique(own[rows], return_inverse=True, return_counts=True)
    by_size = counts.argsort(descending=True, stable=True)
    rank = by_size.argsort()[inverse]
    counts = counts[by_size]
    grouped = rank.argsort(stable=True)  # by id, in batch order
    slot = torch.empty_like(rank)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    slot[grouped] = torch.arange(len(rank)) - first
    sizes = slot.bincount()
    sizes = sizes[sizes > 1]  # the first of all: they can only fall
    if len(sizes) == 0:
        return zero(f) if left_out else zero(f, refs)
    order = (slot * len(names) + rank).argsort()
    rank = rank[order]
    x = f.index_select(0, rows[order].to(f.device))
    owner = rank.to(f.device)
    if left_out:
        sums, images = _sums(x, owner, len(names)), counts
    else:
        wanted = names[by_size]
        place = torch.full((len(ids.names),), len(wanted))
        place[wanted] = torch.arange(len(wanted))
        sums = _sums(refs, place[ids.member].to(f.device), len(wanted) + 1)[:-1]
        images = ids.counts[wanted]
    asked = int(sizes.sum())
    if asked < len(x):  # rounds of one id: its images are part of its centroid only
        x, owner = x[:asked], owner[:asked]
    loss: torch.Tensor = _Rounds.apply(
        x, sums, owner, images.to(f.device, f.dtype), sizes.tolist(), left_out, margin
    )
    return loss


class _Rounds(torch.autograd.Function):
    """x (N, D), round after round, sums (C, D) of the ids' images -> mean over rounds, scalar.

    Products choose each point's nearest point of another id; distances and gradients then come
    from the differences of those vectors. The gradient is made with the loss, from what it needs
    anyhow: a few passes over (N, D), whatever the number of rounds.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        sums: torch.Tensor,
        owner: torch.Tensor,
        images: torch.Tensor,
        sizes: list[int],
        left_out: bool,
        margin: float,
    ) -> torch.Tensor:
        n, dim = x.shape
        middle = x.mean(0)  # products of centred points keep more digits
        centred = torch.addcmul(sums, images[:, None], middle, value=-1)
        share = 1 / (images - 1 if left_out else images)
        points = x.new_empty(2 * n, dim)  # queries, then their ids' centroids
        queries, centroids = points[:n], points[n:]
        torch.sub(x, middle, out=queries)
        torch.index_select(centred, 0, owner, out=centroids)
        if left_out:
            centroids.sub_(queries)
        own_share = share[owner][:, None]
        centroids.mul_(own_share)

        near = _nearest(queries, centred, share, sizes, left_out)
        away = points.index_select(0, near).sub_(points)
        apart = queries - centroids
        positive = torch.linalg.vector_norm(apart, dim=1)
        negative = torch.linalg.vector_norm(away, dim=1)
        hinge = (positive.repeat(2) - negative).add_(margin).clamp_(min=0)
        weights = torch.tensor([1 / (2 * size * len(sizes)) for size in sizes], dtype=x.dtype)
        weight = weights.repeat_interleave(torch.tensor(sizes)).to(x.device).repeat(2)
        loss: torch.Tensor = hinge.dot(weight)
        if not (ctx.needs_input_grad[0] or ctx.needs_input_grad[1]):
            return loss

        weight.mul_(hinge != 0)  # not finite: stays so
        # The slope of a distance of 0 is taken as 0.
        pull = (weight[:n] + weight[n:]).div_(positive).masked_fill_(positive == 0, 0)
        push = weight.div_(negative).masked_fill_(negative == 0, 0)
        apart.mul_(pull[:, None])
        away.mul_(push[:, None])
        slope = away.clone().index_add_(0, near, away, alpha=-1)
        to_x, to_centroid = slope[:n].add_(apart), slope[n:].sub_(apart).mul_(own_share)
        to_sums = torch.zeros_like(sums).index_add_(0, owner, to_centroid)
        if left_out:
            to_x.sub_(to_centroid)
        ctx.save_for_backward(to_x, to_sums)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        to_x, to_sums = ctx.saved_tensors
        return (to_x * slope, to_sums * slope, None, None, None, None, None)


def _nearest(
    queries: torch.Tensor,
    sums: torch.Tensor,
    share: torch.Tensor,
    sizes: list[int],
    left_out: bool,
) -> torch.Tensor:
    """For each query, then each centroid, its nearest point of another id in its round.

    queries (N, D), sums (C, D), share (C,) -> (2N,) int64 among queries and centroids in a row.
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
    return torch.cat(found, 1).flatten()
