"""What a stage learns from: the graph, the diffusion on it, the targets; and the steps."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from resight.evaluate.ranking.units import unit_rows
from resight.files import read_json, write_json
from resight.graph.across import nearest_across
from resight.graph.diffusion import diffuse
from resight.graph.graph import RECORD as GRAPH_RECORD
from resight.graph.graph import Graph, mutual, of_pairs, pair_codes, with_pairs
from resight.graph.pool import Pool
from resight.graph.targets import agreement, believed, strongest
from resight.mining.calibrate import pool_levels
from resight.models.embedder import Embedder
from resight.sampling.tuples import TupleBatch, drawn_batches
from resight.train.loop import Position
from resight.train.prepare import seed_everything
from resight.train.recipes.graph import GraphSettings
from resight.train.rundir import Run
from resight.train.unlabelled.chance import by_chance
from resight.train.unlabelled.fit_to import source_column
from resight.train.unlabelled.graph.objective import GraphObjective
from resight.train.unlabelled.quality import codes
from resight.train.unlabelled.stage import GROUND, Ground, Stage, learn
from resight.train.unlabelled.together import wait_for

DIFFUSION, TARGETS, AGREEMENT = "diffusion", "targets", "agreement.json"
_TOLERANCE = 1e-3  # of the diffusion: below what tells targets apart
_LEAST = 1.1  # times what chance gives: nearest neighbours at least so similar
_AGREED = 0.3  # of the pairs, by two halves of the features: with less they are made up
GraphStage: TypeAlias = Stage[GraphSettings]
GraphGround: TypeAlias = Ground[GraphSettings]


def settle(stage: GraphStage, ground: GraphGround) -> GraphSettings:
    """The settings with the neighbours that are believed, and with the targets on the disk."""
    settings = ground.settings
    if settings.count == "auto":
        settings = settings.model_copy(update={"count": _count(stage, ground)})
    targets = _targets(stage, ground, settings)
    targets.save(stage.folder / TARGETS)
    return settings


def words(ground: GraphGround) -> str:
    """What the stage is about to do."""
    s = ground.settings
    assert s.count != "auto"
    return (
        f"graph: {len(ground.rows):,} images, {s.count * s.times:.3g} neighbours of each are "
        f"believed; each epoch: {s.steps:,} batches of {s.tuples} anchors x "
        f"{s.views + s.neighbours}"
    )


def nothing_to_learn(stage: GraphStage, ground: GraphGround) -> str | None:
    """One sentence when no two images are alike enough to be taken for one thing, else None.

    The nearest neighbours must be nearer than the nearest of unrelated images would be, and two
    halves of the features must agree on some.
    """
    if ground.settings.oracle:
        return None
    rows = ground.rows
    agreed = max(shares_in(stage.folder) or [1.0])
    if agreed < _AGREED:
        return (
            f"nothing to learn from: two halves of the features agree on {agreed:.0%} of the pairs "
            f"among {len(rows):,} images at best, so most are made up; the start is kept"
        )
    least = pool_levels(ground.pool, rows, (1.0,), 0.0, 1)[0]
    chance = by_chance(ground.features, rows, 1.0)
    if chance > 1 - 1e-6:
        return (
            f"nothing to learn from: all {len(rows):,} images look the same to this network; the "
            "start is kept"
        )
    if least >= _LEAST * chance:
        return None
    return (
        f"nothing to learn from: the nearest neighbours among {len(rows):,} images (similarity "
        f"{least:.2f}) are hardly nearer than unrelated images would be ({chance:.2f}), so there "
        "seem to be no two photos of one thing; the start is kept"
    )


def train(
    stage: GraphStage, embedder: Embedder, ground: GraphGround, run: Run, resume: bool
) -> Position:
    """Train the embedder towards the targets, from its start or from the last checkpoint."""
    settings, rows = ground.settings, ground.rows
    assert settings.tuples is not None and settings.steps is not None
    seed_everything(settings.seed + stage.number, settings.deterministic)
    wait_for(stage.folder / TARGETS / GRAPH_RECORD)
    targets = Graph.load(stage.folder / TARGETS)
    starts, others = np.asarray(targets.indptr), np.asarray(targets.indices)

    def objective() -> GraphObjective:
        vectors = np.asarray(ground.features[rows], np.float32)
        return GraphObjective(targets, rows, vectors, settings.temperature)

    def batches(epoch: int) -> list[TupleBatch]:
        return drawn_batches(
            starts,
            others,
            rows=rows,
            tuples=settings.tuples or 1,
            drawn=settings.neighbours,
            views=settings.views,
            steps=settings.steps or 1,
            seed=settings.seed + 1000 * stage.number,
            epoch=epoch,
        )

    return learn(stage, embedder, settings, run, resume, objective=objective, batches=batches)


def shares_in(folder: Path) -> list[float] | None:
    """What the halves agreed on, for each of `graph.targets.COUNTS`; None where not asked."""
    if not (folder / AGREEMENT).is_file():
        return None
    return [float(share) for share in read_json(folder / AGREEMENT, "a stage")]


def _count(stage: GraphStage, ground: GraphGround) -> float:
    """Where two halves of the features agree most: of the first stage, kept for all."""
    if stage.number > 1:
        first = stage.folder.parent / "stage-1" / GROUND
        found = GraphSettings.model_validate_json(first.read_text(encoding="utf-8"))
        assert found.count != "auto"
        return found.count
    k, method = ground.settings.pool.neighbours or 10, ground.settings.pool.method
    shares = agreement(ground.features, ground.rows, k=k, method=method)
    count = believed(shares)
    write_json(stage.folder / AGREEMENT, [round(float(share), 4) for share in shares])
    stage.tell(
        f"two halves of the features agree best on {count:g} neighbours an image "
        f"({shares.max():.0%} of the pairs)"
    )
    return count


def _targets(stage: GraphStage, ground: GraphGround, settings: GraphSettings) -> Graph:
    """The graph's strongest pairs, or with `oracle` the pairs of one object."""
    if settings.oracle:
        return _of_objects(codes(stage.images.table["object"]), ground.rows)
    assert settings.count != "auto"
    graph = _graph(stage, ground, settings)
    found = diffuse(
        graph,
        stage.folder / DIFFUSION,
        alpha=settings.alpha,
        tolerance=_TOLERANCE,
        key={"features": ground.features.info["key"], "edges": graph.edges},
        progress=stage.bar("diffusion"),
    )
    return strongest(found, settings.count * settings.times * len(ground.rows) / len(found))


def _graph(stage: GraphStage, ground: GraphGround, settings: GraphSettings) -> Graph:
    sources = sources_of(stage, settings)
    if sources is not None:
        rows = ground.rows
        unit = unit_rows(np.asarray(ground.features[rows], np.float32))
        k = max(1, (settings.pool.neighbours or 10) // 2)
        near, close = nearest_across(unit, sources[rows], k)
        ids = np.full((len(stage.images), near.shape[1]), -1, np.int32)
        similar = np.full(ids.shape, -2.0, np.float32)
        ids[rows] = np.where(near >= 0, rows[near], -1)
        similar[rows] = close
        return mutual(ids, similar)
    pool = ground.pool
    spatial = settings.spatial
    if spatial is None or pool.inliers is None:
        return mutual(np.asarray(pool.neighbours), np.asarray(pool.similarities))
    every = np.arange(len(pool))
    graph = mutual(np.asarray(pool.neighbours), pool.scores(every, spatial.weight, spatial.cap))
    return with_pairs(graph, *verified(pool))


def verified(pool: Pool) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """What geometry says of pairs (P,), (P,) of rows, and the weights of their edges (P,).

    Pairs whose points agree are joined as surely as copies, mutual or not. Pairs whose points do
    not are parted where it could be told: where both pictures agree with some other one. A picture
    that agrees with none may have too few points for it.
    """
    assert pool.inliers is not None
    inliers = np.asarray(pool.inliers)
    row, column = np.nonzero(inliers >= 0)
    other = np.asarray(pool.neighbours)[row, column].astype(np.int64)
    _, first = np.unique(pair_codes(row, other, len(pool)), return_index=True)
    row, other, agree = row[first], other[first], inliers[row, column][first] > 0
    tells = np.zeros(len(pool), bool)
    tells[row[agree]] = tells[other[agree]] = True
    said = agree | (tells[row] & tells[other])
    return row[said], other[said], agree[said].astype(np.float32)


def sources_of(stage: GraphStage, settings: GraphSettings) -> NDArray[np.int64] | None:
    """A number for each image's source, or None where none are to be minded."""
    if settings.sources is None:
        return None
    column = source_column(stage.images, settings.sources)
    return np.unique(column.to_numpy(), return_inverse=True)[1].astype(np.int64)


def _of_objects(objects: NDArray[np.int64], rows: NDArray[np.int64]) -> Graph:
    """All pairs of the same object, with weight 1."""
    known = rows[objects[rows] >= 0]
    members = [known[objects[known] == one] for one in np.unique(objects[known])]
    none = np.zeros((2, 0), np.int64)
    first, second = np.concatenate(
        [none, *(group[np.stack(np.triu_indices(len(group), 1))] for group in members)], axis=1
    )
    return of_pairs(len(objects), first, second, np.ones(len(first), np.float32))
