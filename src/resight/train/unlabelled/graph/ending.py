"""The embedder of a run on the graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from resight.features.compute import EmbedOptions
from resight.features.write import embed_images
from resight.models.closed_form import whitening
from resight.models.embedder import Embedder
from resight.models.fitted import unwhitened, whitened
from resight.models.moments import moments
from resight.train.rundir import Run
from resight.train.unlabelled.beginning import START, last_embedder
from resight.train.unlabelled.graph.learning import GraphStage

LAST = "last"  # features of what was trained, while the end is made


def end(run: Run, stages: Sequence[GraphStage]) -> Embedder:
    """What was trained, whitened again on all photos; the start where nothing was."""
    place = last_embedder(run.folder, [stage.folder for stage in stages])
    embedder = Embedder.load(place)
    if place == run.folder / START:
        return embedder
    stage = stages[-1]
    bare = unwhitened(embedder)
    found = embed_images(
        bare,
        stage.images,
        run.folder / LAST,
        options=EmbedOptions(workers=stage.options.workers, strict=stage.options.strict),
        progress=stage.bar("embedding"),
    )
    valid = np.array(found.valid, bool)
    pair = whitening(moments(found, valid), bare.dim)
    return whitened(bare, pair)
