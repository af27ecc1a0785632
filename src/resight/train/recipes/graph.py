"""Targets from the neighbour graph: train on a folder of photos, without labels.

    graph     who is among whose nearest, both ways, by the model as it stands
    targets   what diffusion on it brings from each image to others: soft, and beyond one step
    batch     anchors, seen twice, and images drawn from their targets
    loss      cross-entropy from the targets to the softmax of similarities, over a memory of all
              images and the batch

In stages; the graph is made anew before each, and believed for more neighbours each time. After
Iscen et al. ("Mining on Manifolds", CVPR 2018), who draw pairs from such a graph, and with the
memory of Wu et al. ("Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
CVPR 2018); soft targets over the whole memory, and how many neighbours to believe, are our own.
This module is the settings; the steps are in `train/unlabelled/graph`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from resight.train.recipes.settings import Count, Rate
from resight.train.recipes.unlabelled import PoolSettings, UnlabelledSettings

# Pairs that are wrong in the first stage are believed for good: it takes the surest.
_STAGES: tuple[dict[str, Any], ...] = (
    {},
    {"times": 2.0},
    {"times": 4.0},
    {"times": 4.0, "lr_factor": 0.3},
)


class GraphSettings(UnlabelledSettings):
    """All settings of the recipe, of which those in `stages` differ from stage to stage.

    `pool.neighbours`: k of the mutual nearest. `alpha`: how far diffusion reaches. `count`: the
    neighbours of an image that are believed, on average, times `times`; "auto" is where two halves
    of the features agree most (`graph.targets`). `neighbours`: images drawn from an anchor's
    targets. `sources`: a column (camera, artist, session) whose values each make images alike:
    their means are taken off, and the graph joins images across them, and within one only where
    it sees things often. `end`: the projection that is fitted to what was trained, on all photos.
    `oracle`: targets by the labels.
    """

    recipe: Literal["graph"] = "graph"
    start: Literal["weights", "closed-form"] = "closed-form"
    epochs: Count = 2

    pool: PoolSettings = PoolSettings(neighbours=10)
    sources: str | None = None
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.9
    count: Rate | Literal["auto"] = "auto"
    times: Rate = 1.0
    temperature: Rate = 0.1
    end: Literal["whitening", "neighbours", "joined", "raw"] = "joined"

    stages: tuple[dict[str, Any], ...] = _STAGES
