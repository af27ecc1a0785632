"""Embedders with a projection fitted in closed form."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from resight.models.closed_form import Pair
from resight.models.embedder import Embedder, EmbedderConfig
from resight.models.heads import Whitening
from resight.settings import build


def is_bare(embedder: Embedder) -> bool:
    """Whether it is a backbone with joined depths and nothing after them: as fits begin."""
    config = embedder.config
    plain = config.projection is None and config.whiten is None and not config.bn_neck
    return bool(config.depths) and plain


def projected(embedder: Embedder, pair: Pair) -> Embedder:
    """A copy of a bare embedder with its projection set: weight (E, D), bias (E,).

    Raises ValueError when it is not bare, or the shapes don't fit.
    """
    if not is_bare(embedder):
        raise ValueError("projection: this embedder has one, or no depths; use `whitened`")
    new = _copied(embedder, pair)
    new.projection = _linear(pair).to(embedder.device).train(embedder.training)
    new.features_dim = new.dim = len(pair[0])
    new.config = embedder.config.model_copy(update={"projection": new.dim})
    return new


def whitened(embedder: Embedder, pair: Pair) -> Embedder:
    """A copy that ends in this projection of its unit rows: weight (E, D), bias (E,), E <= D.

    Of an embedder that ends in one already, `unwhitened` must be called first.

    Raises ValueError when the shapes don't fit.
    """
    if embedder.config.whiten is not None:
        raise ValueError("this embedder ends in a projection already")
    new = _copied(embedder, pair)
    last = Whitening(embedder.features_dim, len(pair[0]))
    last.linear = _linear(pair)
    new.whitening = last.to(embedder.device).train(embedder.training)
    new.dim = len(pair[0])
    new.config = embedder.config.model_copy(update={"whiten": new.dim})
    return new


def unwhitened(embedder: Embedder) -> Embedder:
    """A copy without the projection at its end; a plain copy where there is none."""
    new = copy.deepcopy(embedder)
    new.whitening, new.dim = nn.Identity(), new.features_dim
    new.config = embedder.config.model_copy(update={"whiten": None})
    new.info.pop("fit", None)
    return new


def _copied(embedder: Embedder, pair: Pair) -> Embedder:
    weight, bias = pair
    if weight.shape[1] != embedder.dim or bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {weight.shape}, bias {bias.shape} for {embedder.dim} dimensions")
    return copy.deepcopy(embedder)


def _linear(pair: Pair) -> nn.Linear:
    weight, bias = (torch.from_numpy(np.ascontiguousarray(part)) for part in pair)
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def with_parts(embedder: Embedder, parts: Sequence[tuple[int, int]]) -> Embedder:
    """The same backbone with the maps of these (depth, grid) joined, and nothing after them.

    The backbone is shared with `embedder`, not copied. Raises UserError: no such depths, or one of
    them twice.
    """
    grids = tuple(grid for _, grid in parts)
    changed = {
        "depths": tuple(depth for depth, _ in parts),
        "grids": grids if set(grids) != {1} else (),
        "pooling": "gem" if embedder.config.pooling == "gem" else "average",
        "projection": None,
        "bn_neck": False,
        "whiten": None,
    }
    new = Embedder(build(EmbedderConfig, embedder.config.model_dump() | changed, "maps to join"))
    new.backbone = embedder.backbone
    if isinstance(embedder.pool, type(new.pool)):
        new.pool = embedder.pool
    new.info = {k: v for k, v in embedder.info.items() if k != "fit"}
    return new.to(embedder.device).train(embedder.training)
