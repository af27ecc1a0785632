"""What a recipe without labels does in the stages of its run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from resight.data.imageset import ImageSet
from resight.models.embedder import Embedder
from resight.train.loop import Position
from resight.train.rundir import Run
from resight.train.unlabelled.stage import Ground, Kind, Stage


@dataclass(frozen=True)
class Method(Generic[Kind]):
    """Functions of one stage, and of the whole run.

    settle(stage, ground)                       its settings, with what the pool says
    words(ground)                               one line: what it is about to do
    nothing(stage, ground)                      why nothing can be learned, or None
    train(stage, embedder, ground, run, resume) the steps, where they ended
    evidence(stage, ground, nothing)            writes the stage's page
    index(run folder, stage folders, images)    writes the page over all stages so far
    end(run, stages)                            the embedder of the run
    files                                       patterns of what only the training needs
    """

    settle: Callable[[Stage[Kind], Ground[Kind]], Kind]
    words: Callable[[Ground[Kind]], str]
    nothing: Callable[[Stage[Kind], Ground[Kind]], str | None]
    train: Callable[[Stage[Kind], Embedder, Ground[Kind], Run, bool], Position]
    evidence: Callable[[Stage[Kind], Ground[Kind], str | None], None]
    index: Callable[[Path, Sequence[Path], ImageSet], None]
    end: Callable[[Run, Sequence[Stage[Kind]]], Embedder]
    files: tuple[str, ...]
