"""Evidence of a stage on the graph: to whom images are pulled, and what the graph brought in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.evaluate.ranking.units import unit_rows
from resight.evaluate.report.render import write_page
from resight.evaluate.report.thumbnails import LoadThumbnail, data_uri, open_thumbnails
from resight.files import read_json, write_json
from resight.graph.graph import Graph
from resight.train.unlabelled import quality
from resight.train.unlabelled.graph.learning import TARGETS, GraphGround, GraphStage
from resight.train.unlabelled.shown import over_stages, percent
from resight.train.unlabelled.stage import EVIDENCE

RECORD = "evidence.json"
_SAMPLES, _SHOWN = 8, 12  # anchors of a stage, images beside each
_SIDE = 72  # pixels of a thumbnail
_SEED = 5
_BLOCK = 65_536  # pairs looked up at once


@dataclass(frozen=True)
class Pulled:
    """An image that an anchor is pulled to: its row, the weight, their cosine, and whether it is
    among the anchor's nearest by cosine (else the graph brought it)."""

    row: int
    weight: float
    similarity: float
    near: bool


@dataclass(frozen=True)
class Sample:
    """An anchor, whom it is pulled to most, and how many there are in all."""

    anchor: int
    count: int
    others: list[Pulled]


@dataclass(frozen=True)
class Evidence:
    """What a stage learned from. Shares from 0 to 1, None where nothing can be said.

    `count`: neighbours believed an image, on average; `level`: the weight from which they are;
    `alone`: images that are pulled to none; `beyond`: pairs that are not among each other's
    nearest by cosine; `mutual`: see `quality`. With labels: `right`, pairs of one object, and
    `reached`, of an object's pairs those that are there.
    """

    stage: int
    images: int
    count: float | None
    pairs: int = 0
    level: float | None = None
    alone: float | None = None
    beyond: float | None = None
    mutual: float | None = None
    right: float | None = None
    reached: float | None = None
    nothing: str | None = None
    samples: list[Sample] = field(default_factory=list)


def gather(stage: GraphStage, ground: GraphGround, nothing: str | None) -> Evidence:
    """What the stage's targets are."""
    settings, rows = ground.settings, ground.rows
    count = None if settings.count == "auto" else settings.count * settings.times
    targets = Graph.load(stage.folder / TARGETS)
    a, b = targets.rows(), np.asarray(targets.indices, np.int64)
    near = np.asarray(ground.pool.neighbours)
    among = np.zeros(len(a), bool)
    for start in range(0, len(a), _BLOCK):
        part = slice(start, start + _BLOCK)
        among[part] = (near[a[part]] == b[part, None]).any(axis=1)
    labels = quality.codes(stage.images.table["object"])
    known = (labels[a] >= 0) & (labels[b] >= 0)
    sizes = np.bincount(labels[rows][labels[rows] >= 0])
    right = (labels[a] == labels[b])[known]
    there = int((sizes * (sizes - 1)).sum()) if len(sizes) else 0
    usable = np.zeros(len(stage.images), bool)
    usable[rows] = True
    top, _ = quality.first_neighbours(near, rows, usable, 10)
    found = Evidence(
        stage=stage.number,
        images=len(rows),
        count=count,
        pairs=targets.edges,
        level=float(np.min(targets.values)) if targets.edges else None,
        alone=float((np.diff(targets.indptr)[rows] == 0).mean()),
        beyond=float(1 - among.mean()) if len(among) else None,
        mutual=quality.mutual(top, rows, len(stage.images)),
        right=float(right.mean()) if len(right) and there else None,
        reached=float(right.sum() / there) if there else None,
        nothing=nothing,
        samples=[] if nothing else _samples(ground, targets),
    )
    for line in _sentences(found):
        stage.tell(line)
    return found


def write(stage: GraphStage, ground: GraphGround, nothing: str | None) -> None:
    """Write the stage's evidence.json."""
    write_json(stage.folder / RECORD, asdict(gather(stage, ground, nothing)))


def load(folder: Path) -> Evidence:
    """Read a stage's evidence. Raises UserError when it is absent or damaged."""
    try:
        return TypeAdapter(Evidence).validate_python(read_json(folder / RECORD, "a stage"))
    except ValidationError:
        raise UserError(f"{folder / RECORD}: damaged") from None


def write_index(
    run: Path,
    stages: Sequence[Path],
    images: ImageSet,
    *,
    load_thumbnail: LoadThumbnail | None = None,
) -> None:
    """Write RUN/evidence.html, all stages so far in one file with everything inside."""
    found = [load(stage) for stage in stages]
    open_ = load_thumbnail or open_thumbnails(images)
    shown = {s.anchor for one in found for s in one.samples}
    shown |= {other.row for one in found for s in one.samples for other in s.others}
    paths, objects = images.table["path"], images.table["object"]
    labelled = any(one.right is not None for one in found)
    write_page(
        run / EVIDENCE,
        "graph.html.j2",
        package=__package__,
        title="What was learned from, stage by stage",
        source=images.source,
        found=found,
        table=_table(found),
        plot=Markup(_plot(found)),
        thumbnails={row: data_uri(open_(row), _SIDE) for row in sorted(shown)},
        paths=paths,
        objects=objects if labelled else [None] * len(paths),
        labelled=labelled,
    )


def _samples(ground: GraphGround, targets: Graph) -> list[Sample]:
    """Anchors of which the graph brought in most, and random ones, half and half."""
    rows = ground.rows
    random = np.random.default_rng(_SEED)
    some = np.sort(random.choice(rows, min(2000, len(rows)), replace=False))
    seen = [_sample(ground, targets, int(row)) for row in some if np.diff(targets.indptr)[row]]
    order = sorted(seen, key=lambda s: (-sum(not o.near for o in s.others), s.anchor))
    chosen = order[: _SAMPLES // 2]
    rest = [s for s in seen if s not in chosen]
    picks = random.permutation(len(rest))[: _SAMPLES - len(chosen)]
    return chosen + [rest[k] for k in sorted(picks.tolist())]


def _sample(ground: GraphGround, targets: Graph, anchor: int) -> Sample:
    others, weights = targets.row(anchor)
    order = np.lexsort((others, -weights))[:_SHOWN]
    chosen: NDArray[np.int64] = np.asarray(others)[order].astype(np.int64)
    places = np.r_[anchor, chosen]
    inverse = np.argsort(np.argsort(places, kind="stable"), kind="stable")
    vectors = unit_rows(np.asarray(ground.features[np.sort(places)], np.float32))[inverse]
    near = set(np.asarray(ground.pool.neighbours[anchor]).tolist())
    return Sample(
        anchor,
        len(others),
        [
            Pulled(int(row), float(weight), float(cosine), int(row) in near)
            for row, weight, cosine in zip(
                chosen, np.asarray(weights)[order], vectors[1:] @ vectors[0], strict=True
            )
        ],
    )


def _sentences(one: Evidence) -> list[str]:
    lines = [
        f"targets: {one.pairs:,} pairs, {percent(one.beyond)} of them brought by the graph; "
        f"{percent(one.alone)} of the images have none"
    ]
    if one.right is not None:
        lines.append(
            f"checked against the labels: {percent(one.right)} of the pairs are right, "
            f"{percent(one.reached)} of an object's are there"
        )
    return lines


def _table(found: Sequence[Evidence]) -> list[tuple[str, list[str]]]:
    def of(values: Sequence[float | None]) -> list[str]:
        return [percent(value) for value in values]

    rows = [
        ("neighbours believed", ["–" if e.count is None else f"{e.count:.3g}" for e in found]),
        ("pairs", [f"{e.pairs:,}" for e in found]),
        ("from the weight", ["–" if e.level is None else f"{e.level:.2f}" for e in found]),
        ("brought by the graph, not near by cosine", of([e.beyond for e in found])),
        ("images without any", of([e.alone for e in found])),
        ("mutual neighbours, of 10", of([e.mutual for e in found])),
        ("pairs right", of([e.right for e in found])),
        ("of an object's pairs there", of([e.reached for e in found])),
    ]
    return [(name, cells) for name, cells in rows if set(cells) != {"–"}]


def _plot(found: Sequence[Evidence]) -> str:
    lines: dict[str, list[float | None]] = {
        "pairs right": [one.right for one in found],
        "of an object's pairs there": [one.reached for one in found],
        "brought by the graph": [one.beyond for one in found],
        "mutual neighbours": [one.mutual for one in found],
    }
    return over_stages([one.stage for one in found], lines)
