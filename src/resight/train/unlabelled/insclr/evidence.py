"""Evidence of unlabelled training: what a stage learned from, for a person to judge."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from resight.errors import UserError
from resight.evaluate.ranking.units import unit_rows
from resight.graph.pool import Pool
from resight.mining.look import Look
from resight.mining.memory import MemoryBank
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.unlabelled import quality
from resight.train.unlabelled.insclr.learning import MEMORY, look
from resight.train.unlabelled.insclr.pages import write_index, write_stage
from resight.train.unlabelled.insclr.record import Evidence, Similarities
from resight.train.unlabelled.insclr.seen import Seen, checked, choose, means
from resight.train.unlabelled.insclr.words import sentences, thresholds, warnings
from resight.train.unlabelled.quality import Rows
from resight.train.unlabelled.stage import Ground, Stage

__all__ = ["Evidence", "gather", "write_index", "write_stage"]

ANCHORS, TOP = 500, 10
PAIRS, POSITIVES = 10_000, 100  # similarities counted: of random pairs, of an anchor's positives
_SEED = 5
Vectors = Callable[[Rows], NDArray[np.float32]]


def gather(
    stage: Stage[InsCLRSettings], ground: Ground[InsCLRSettings], nothing: str | None
) -> Evidence:
    """Look at up to 500 random anchors as training did, and tell what is found.

    Each anchor with its nearest neighbours is a tuple; vectors are those of the stage's memory as
    training left it, or of the pool where nothing was trained. `nothing`: why nothing was.
    """
    started = time.monotonic()
    count, pool, rows = len(stage.images), ground.pool, ground.rows
    usable, valid = np.zeros(count, bool), np.asarray(ground.features.valid, bool)
    usable[rows] = True
    rng = np.random.default_rng(_SEED)
    anchors = np.sort(rng.choice(rows, min(ANCHORS, len(rows)), replace=False))
    looking, vectors, by = _sight(stage, ground)
    near, _ = quality.first_neighbours(pool.neighbours, anchors, usable, ground.settings.neighbours)
    seen = [
        _see(looking, vectors, np.concatenate([[anchor], of[of >= 0]]))
        for anchor, of in zip(anchors, near, strict=True)
    ]
    top, columns = quality.first_neighbours(pool.neighbours, rows, usable, TOP)
    labels = quality.codes(stage.images.table["object"])
    paths = stage.images.table["path"]
    similarities = _similarities(ground, seen, columns)
    copies = int(valid.sum()) - len(rows)
    mean = means(seen)
    hubs = [(paths[row], times) for row, times in quality.hubs(top, count)]
    warned = warnings(ground.settings, int(valid.sum()), copies, mean, similarities, hubs)
    evidence = Evidence(
        stage=stage.number,
        images=count,
        rows=len(rows),
        unusable=int((~valid).sum()),
        copies=copies,
        anchors=len(anchors),
        by=by,
        pool={"k": int(pool.neighbours.shape[1]), "method": ground.settings.pool.method}
        | {"recall": pool.info.get("recall")},
        means=mean,
        mutual=quality.mutual(top, rows, count),
        as_before=_as_before(stage, rows, usable, top),
        similarities=similarities,
        checked=checked(seen, labels, valid, rows, top),
        thresholds=thresholds(ground.settings, looking),
        warnings=[] if nothing else warned,
        nothing=nothing,
        samples=[seen[k].sample() for k in choose(seen, labels)],
        seconds=time.monotonic() - started,
    )
    for line in sentences(evidence)[1:]:
        stage.tell(line.removesuffix("."))
    for line in evidence.warnings:
        stage.tell(f"warning: {line}")
    return evidence


def _sight(
    stage: Stage[InsCLRSettings], ground: Ground[InsCLRSettings]
) -> tuple[Look, Vectors, str]:
    """How tuples are looked at, the vectors of members, and whether of memory or pool."""

    def of_pool(rows: Rows) -> NDArray[np.float32]:
        return unit_rows(np.asarray(ground.features[rows], np.float32))

    folder = stage.folder / MEMORY
    if not folder.exists():  # nothing was trained
        own, spatial = ground.settings, ground.settings.spatial
        weight, cap = (spatial.weight, spatial.cap) if spatial else (0.0, 1)
        looking = Look(ground.pool, of_pool, own.select, own.mining, weight=weight, cap=cap)
        return looking, of_pool, "pool"
    bank = MemoryBank.open(folder)
    kind = "pool" if ground.settings.similarity == "pool" else "memory"

    def of_members(rows: Rows) -> NDArray[np.float32]:
        vectors = bank.read(rows, "plain")
        missing = ~bank.filled(rows, "plain")  # never drawn: training would have embedded it now
        vectors[missing] = of_pool(rows[missing])
        return vectors

    return look(ground, bank), of_members, kind


def _see(looking: Look, vectors: Vectors, members: Rows) -> Seen:
    own = vectors(members)
    group = looking(members, own)
    return Seen(members, group.kept, own @ own[0], group.mined)


def _similarities(ground: Ground[InsCLRSettings], seen: list[Seen], columns: Rows) -> Similarities:
    """Of random pairs, nearest neighbours and anchors with their mined positives."""
    rows, rng = ground.rows, np.random.default_rng(_SEED)
    few = np.sort(rng.choice(rows, min(2000, len(rows)), replace=False))
    vectors = unit_rows(np.asarray(ground.features[few], np.float32))
    a, b = quality.random_pairs(len(few), PAIRS, _SEED)
    random = np.einsum("ij,ij->i", vectors[a], vectors[b])
    has = columns[:, 0] >= 0
    nearest = np.asarray(ground.pool.similarities[rows[has], columns[has, 0]], np.float32)
    mined = [np.zeros(0, np.float32)]
    for one in seen:
        found = np.concatenate([one.group("initial"), one.group("joined")])
        if len(found) > POSITIVES:
            found = rng.choice(found, POSITIVES, replace=False)
        if len(found):
            both = np.asarray(ground.features[np.append(found, one.anchor)], np.float32)
            units = unit_rows(both)
            mined.append(units[:-1] @ units[-1])
    return Similarities(
        random=quality.histogram(random),
        nearest=quality.histogram(nearest),
        mined=quality.histogram(np.concatenate(mined)),
        random_mean=float(random.mean()) if len(random) else None,
        nearest_median=float(np.median(nearest)) if len(nearest) else None,
        random_above_nearest=quality.above(random, nearest),
    )


def _as_before(
    stage: Stage[InsCLRSettings], rows: Rows, usable: quality.Bools, top: Rows
) -> float | None:
    """Share of the first neighbours that were so in the stage before; None where unknown."""
    folder = stage.folder.parent / f"stage-{stage.number - 1}" / "pool"
    try:
        before = Pool.load(folder).neighbours
    except UserError:  # the first stage, or a pool that was deleted
        return None
    if len(before) != len(usable):
        return None
    return quality.agreement(top, quality.first_neighbours(before, rows, usable, TOP)[0])
