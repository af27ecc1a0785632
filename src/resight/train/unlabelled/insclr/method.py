"""InsCLR as a method of stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resight.data.imageset import ImageSet
from resight.models.embedder import Embedder
from resight.train.recipes.insclr import InsCLRSettings
from resight.train.rundir import Run
from resight.train.unlabelled.beginning import last_embedder
from resight.train.unlabelled.insclr import learning
from resight.train.unlabelled.insclr.evidence import Evidence, gather, write_index, write_stage
from resight.train.unlabelled.method import Method
from resight.train.unlabelled.stage import EVIDENCE, Ground, Stage


def _evidence(
    stage: Stage[InsCLRSettings], ground: Ground[InsCLRSettings], nothing: str | None
) -> None:
    write_stage(stage.folder, gather(stage, ground, nothing), stage.images)


def _index(run: Path, stages: Sequence[Path], images: ImageSet) -> None:
    write_index(run / EVIDENCE, [Evidence.load(stage) for stage in stages], images)


def _end(run: Run, stages: Sequence[Stage[InsCLRSettings]]) -> Embedder:
    return Embedder.load(last_embedder(run.folder, [stage.folder for stage in stages]), "cpu")


INSCLR: Method[InsCLRSettings] = Method(
    settle=learning.settle,
    words=learning.words,
    nothing=learning.nothing_to_learn,
    train=learning.train,
    evidence=_evidence,
    index=_index,
    end=_end,
    files=("features", learning.MEMORY + "*"),
)
