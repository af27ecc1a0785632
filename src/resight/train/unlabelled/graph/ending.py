"""The embedder of a run on the graph: what was trained, with a projection fitted to it again.

Training pulls sources apart or together in a few directions; a closed form on all photos gives
most of that back (docs/unlabelled.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from resight.features.compute import EmbedOptions
from resight.models.embedder import Embedder
from resight.train.fitting.candidates import Wish
from resight.train.fitting.fit import fit
from resight.train.fitting.plan import plan_rows
from resight.train.rundir import Run
from resight.train.unlabelled.beginning import START, last_embedder, with_sources
from resight.train.unlabelled.graph.learning import GraphStage

LAST = "last"  # in the run: features of what was trained, while the end is made


def end(run: Run, stages: Sequence[GraphStage]) -> Embedder:
    """What was trained, fitted again on all photos; the start where nothing was."""
    place = last_embedder(run.folder, [stage.folder for stage in stages])
    embedder = Embedder.load(place)
    if place == run.folder / START or stages[-1].settings.end == "raw":
        return embedder
    stage = stages[-1]
    images = with_sources(stage.images, stage.settings)
    found = fit(
        embedder,
        plan_rows(embedder, images, unlabelled=True),
        wish=Wish(method=stage.settings.end),
        out=run.folder / LAST,
        options=EmbedOptions(workers=stage.options.workers, strict=stage.options.strict),
        progress=stage.bar("embedding"),
    )
    stage.tell(f"fitted again, {found.chosen.words()}")
    shutil.rmtree(run.folder / LAST, ignore_errors=True)
    return found.embedder
