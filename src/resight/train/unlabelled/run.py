"""A whole run without labels: a start, stages one after the other, an embedder at the end.

RUN/start/      the embedder before the first stage: the given weights, whitened or fitted
RUN/stage-1/    a run of its own, with the pool and the page of what was learned from
RUN/spatial/    local features, where verification is on
RUN/embedder/   what the stages came to
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from resight.data.imageset import ImageSet
from resight.models.embedder import CONFIG, Embedder
from resight.train.loop import LoopOptions, Position, Watcher
from resight.train.recipes.graph import GraphSettings
from resight.train.recipes.unlabelled import UnlabelledSettings
from resight.train.rundir import RECORD, Run
from resight.train.unlabelled import stage as steps
from resight.train.unlabelled.beginning import EMBEDDER, START, begin
from resight.train.unlabelled.graph.method import GRAPH
from resight.train.unlabelled.insclr.method import INSCLR
from resight.train.unlabelled.method import Method
from resight.train.unlabelled.stage import Stage
from resight.train.unlabelled.together import main, wait_for


def carry_out(
    run: Run, settings: UnlabelledSettings, images: ImageSet, options: LoopOptions, watcher: Watcher
) -> Position:
    """All stages that are not done yet; the position where the last one ended.

    Raises UserError when nothing can be learned, with what is kept.
    """
    begin(run, settings, images, options, watcher)
    method: Method[Any] = GRAPH if isinstance(settings, GraphSettings) else INSCLR
    total = Position()
    stages: list[Stage[Any]] = []
    for k in range(len(settings.stages)):
        stages.append(
            Stage(k + 1, run.folder / f"stage-{k + 1}", settings.stage(k), images, options, watcher)
        )
        before = run.folder / (f"stage-{k}/{EMBEDDER}" if k else START)
        position, nothing = _stage(method, stages[-1], before, len(settings.stages))
        if main():
            method.index(run.folder, [stage.folder for stage in stages], images)
        total = replace(
            position,
            seconds=total.seconds + position.seconds,
            skipped=sorted({*total.skipped, *position.skipped}),
        )
        if nothing is not None:
            watcher.tell(nothing)
            break
    if main() and not (run.folder / EMBEDDER / CONFIG).is_file():
        _end(method, run, stages)
    return total


def _stage(
    method: Method[Any], stage: Stage[Any], before: Path, total: int
) -> tuple[Position, str | None]:
    """One stage, or what is left of it; nothing but reading when it is done."""
    if main() and not (stage.folder / RECORD).is_file():
        shutil.rmtree(stage.folder, ignore_errors=True)  # of a process killed before it was one
        Run.create(stage.folder, stage.settings, stage.images)
    wait_for(stage.folder / RECORD)
    run = Run.open(stage.folder)
    if run.record["finished"]:
        return _finished(method, stage, run)
    stage.tell(f"stage {stage.number} of {total}")
    embedder = steps.at_size(Embedder.load(before), stage.settings.size)
    ground = steps.prepare(stage, embedder, method.settle)
    stage.tell(method.words(ground))
    position = Position()
    # Later stages stand on what the first has learned.
    reason = method.nothing(stage, ground) if stage.number == 1 else None
    if reason is None:
        resume = (stage.folder / "checkpoints" / "last.pt").is_file()
        position = method.train(stage, embedder, ground, run, resume)
    if main():
        bad = [entry["path"] for entry in ground.features.info.get("skipped", [])]
        position = replace(position, skipped=sorted({*position.skipped, *bad}))
        method.evidence(stage, ground, reason)
        run.finish(position=vars(position), nothing=reason)
    while not run.record["finished"]:  # by the main process
        time.sleep(0.2)
    return _finished(method, stage, run)


def _finished(method: Method[Any], stage: Stage[Any], run: Run) -> tuple[Position, str | None]:
    """What a stage that is done has left; what only its training needed goes."""
    if main():
        _clean(method, stage)
    return Position(**run.record["position"]), run.record.get("nothing")


def _clean(method: Method[Any], stage: Stage[Any]) -> None:
    for pattern in method.files:
        for path in stage.folder.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _end(method: Method[Any], run: Run, stages: list[Stage[Any]]) -> None:
    method.end(run, stages).save(run.folder / EMBEDDER)
