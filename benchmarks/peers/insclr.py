"""InsCLR's step: a memory and a pool of that size without images, and the bare work of a step.

The images stand in objects of `EACH`. An image's vector is r · its object's centre + noise, r from
.3 (few neighbours) to .98: two images of one object have a cosine of r · r', two others about 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resight.graph.pool import Pool
from resight.losses.pairs import unit
from resight.mining.look import Look
from resight.mining.memory import Kind, MemoryBank
from resight.mining.relations import relate
from resight.train.catalogue import read_recipe
from resight.train.recipes import settings_of
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.unlabelled.insclr.objective import InsCLRObjective

EACH, NOISES, BLOCK = 1_000, 20_000, 8_192
KINDS: tuple[Kind, ...] = ("augmented", "plain")
INNER = 0.55  # of an anchor's r: most keep a neighbour, as in a stage that is under way


@dataclass(frozen=True)
class World:
    """Images without pictures: of each its object, its r, its noise."""

    centres: torch.Tensor  # (objects, D)
    noises: torch.Tensor  # (NOISES, D)
    r: torch.Tensor  # (N,)

    @staticmethod
    def make(images: int, dims: int) -> World:
        generator = torch.Generator().manual_seed(0)

        def units(count: int) -> torch.Tensor:
            return unit(torch.randn(count, dims, generator=generator))

        r = 0.3 + 0.68 * torch.rand(images, generator=generator) ** 2
        return World(units(-(-images // EACH)), units(min(NOISES, images)), r)

    def vectors(self, rows: torch.Tensor, kind: int) -> torch.Tensor:
        """(n, D) float32 of unit length; of the two kinds the noise differs."""
        r = self.r[rows, None]
        noise = self.noises[(rows * 7 + 1 + kind) % len(self.noises)]
        return unit(r * self.centres[rows // EACH] + (1 - r * r).sqrt() * noise)


def make_bank(world: World, folder: Path) -> MemoryBank:
    """The memory, filled; its files are written and lie in the page cache."""
    bank = MemoryBank.create(folder, len(world.r), world.noises.shape[1], seed=0)
    for number, kind in enumerate(KINDS):
        with open(folder / f"{kind}.npy", "r+b") as file:
            file.seek(-2 * len(bank) * bank.dim, 2)
            for start in range(0, len(bank), BLOCK):
                rows = torch.from_numpy(bank.rows[start : start + BLOCK].astype(np.int64))
                file.write(world.vectors(rows, number).half().numpy().data)
    filled = np.load(folder / "filled.npy", mmap_mode="r+")
    filled[:] = 3
    return MemoryBank.open(folder)


def make_pool(world: World, folder: Path, k: int) -> Pool:
    """A pool in files with holes: rows are filled in when a tuple wants them."""
    shape = (len(world.r), k)
    save = np.lib.format.open_memmap
    return Pool(
        save(folder / "neighbours.npy", "w+", np.int32, shape),
        save(folder / "similarities.npy", "w+", np.float16, shape),
    )


def fill(pool: Pool, world: World, row: int, random: np.random.Generator) -> None:
    """A row's neighbours: a random half of its object, the most similar first."""
    first = row // EACH * EACH
    others = np.arange(first, min(first + EACH, len(pool)))
    others = random.choice(others[others != row], min(pool.k, len(others) - 1), replace=False)
    cosines = (world.r[row] * world.r[others]).numpy()
    order = np.argsort(-cosines, kind="stable")
    pool.neighbours[row], pool.similarities[row] = -1, -2
    pool.neighbours[row, : len(order)] = others[order]
    pool.similarities[row, : len(order)] = cosines[order]


@dataclass(frozen=True)
class Batch:
    """What a step gets, and what it needs to read and to multiply at least."""

    embeddings: torch.Tensor  # (B, D) of the augmented images, the network's last
    plain: torch.Tensor  # (B, D) of the un-augmented ones
    targets: torch.Tensor  # (B, 2) row and tuple
    queries: list[np.ndarray]  # of each tuple: rows whose similarities count in the rounds
    open: list[np.ndarray]  # of each tuple: candidates that may join
    listed: list[tuple[np.ndarray, np.ndarray]]  # of each tuple: kept images, mined rows


def make_objective(
    loss: dict[str, Any], negatives: int, bank: MemoryBank, pool: Pool
) -> InsCLRObjective:
    """That of the last stage of insclr_gldv2, with another loss and number of negatives."""
    settings = settings_of(read_recipe("insclr_gldv2")[0], "insclr_gldv2")
    assert isinstance(settings, InsCLRSettings) and settings.memory is not None
    stage = settings.stage(len(settings.stages) - 1).model_dump()
    stage |= {"loss": loss, "memory": stage["memory"] | {"negatives": negatives}}
    settings = InsCLRSettings.model_validate(stage)
    look = Look(pool, lambda rows: bank.read(rows, "plain"), settings.select, settings.mining)
    return InsCLRObjective(settings, look, bank, np.arange(len(bank)))


def make_batch(
    world: World,
    pool: Pool,
    objective: InsCLRObjective,
    tuples: int,
    random: np.random.Generator,
) -> Batch:
    """A batch of tuples of anchors and their nearest neighbours."""
    look, size = objective.look, objective.settings.neighbours + 1
    anchors = random.permutation(np.flatnonzero(world.r.numpy() > INNER))[:tuples]
    members = []
    for anchor in anchors:
        fill(pool, world, anchor, random)
        members.append(np.r_[anchor, pool.neighbours[anchor, : size - 1]].astype(np.int64))
        for row in members[-1][1:]:
            fill(pool, world, row, random)
    rows = np.concatenate(members)

    def now(kind: int) -> torch.Tensor:
        vectors = world.vectors(torch.from_numpy(rows), kind)
        return unit(vectors + 0.1 * unit(torch.randn(vectors.shape)))

    e, plain = now(0), now(1)
    parts = np.split(np.arange(len(rows)), len(members))
    groups = [look(rows[part], plain[part].numpy()) for part in parts]
    found = relate(groups, (plain @ plain.T).numpy(), 0.6)
    queries, open_, listed = [], [], []
    for group, part in zip(groups, parts, strict=True):
        mined, mining = group.mined, look.mining
        assert mined is not None and mining is not None
        inner = mined.offline >= np.float32(mining.initial_at)
        waiting = (mined.offline >= np.float32(mining.candidate_at)) & ~inner
        queries.append(np.r_[group.members[group.kept], mined.rows[mined.joined >= 0]])
        open_.append(mined.rows[waiting])
        who = part[group.kept]
        listed.append((who, np.r_[found.positives.of(who[0]), found.negatives.of(who[0])]))
    targets = torch.from_numpy(np.stack([rows, np.repeat(range(len(members)), size)], 1))
    return Batch(e, plain, targets, queries, open_, listed)


def sizes(batches: list[Batch]) -> dict[str, float]:
    """Means of what the tuples ask for."""
    pairs = [
        len(q) * len(c) for batch in batches for q, c in zip(batch.queries, batch.open, strict=True)
    ]
    listed = [len(rows) for batch in batches for _, rows in batch.listed]
    return {"query pairs": float(np.mean(pairs)), "listed": float(np.mean(listed))}


def touch(bank: MemoryBank) -> None:
    """Look at each page of the files once."""
    for kind in KINDS:
        bank.vectors(kind).view(np.uint8).reshape(-1)[::4096].max()


def mapped() -> float:
    """Bytes of files that this process has in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith("RssFile")).split()[1])


@torch.no_grad()
def floor(batch: Batch, bank: MemoryBank, views: list[Any], block: int, twice: bool) -> None:
    """Read what the step needs, as float32, each vector once for a tuple; and multiply.

    64 × D × the random negatives, block by block; the query set × the candidates of each tuple;
    its kept images × its mined rows. `twice`: the gradient needs all random negatives again.
    """
    e = batch.embeddings
    buffer, slope = torch.empty(block, bank.dim), torch.zeros_like(e)
    for view in views:
        for at in range(0, len(view), block):
            piece = view[at : at + block]
            s = buffer[: len(piece)].copy_(piece) @ e.T
            if twice:
                slope.addmm_(s.T, buffer[: len(piece)])
    augmented, plain = (torch.from_numpy(bank.vectors(kind)) for kind in KINDS)

    def read(vectors: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        return vectors[torch.from_numpy(bank.slots[rows].astype(np.int64))].float()

    for queries, open_ in zip(batch.queries, batch.open, strict=True):
        if len(open_):
            _ = read(plain, queries) @ read(plain, open_).T
    for images, rows in batch.listed:
        _ = e[torch.from_numpy(images)] @ read(augmented, rows).T
