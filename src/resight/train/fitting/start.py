"""The closed form as the start of a training: its embedder, and settings that say what it is."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resight.features.compute import EmbedOptions
from resight.models.embedder import Embedder, pick_device
from resight.models.open import bare_config
from resight.train.fitting.candidates import Method, Wish
from resight.train.fitting.fit import Fitted, fit
from resight.train.fitting.plan import Plan
from resight.train.loop import LoopOptions, Watcher
from resight.train.prepare import initial_weights, seed_everything
from resight.train.recipes.settings import CommonSettings

Kind = TypeVar("Kind", bound=CommonSettings)
WORK = "fitting"  # in the run: features of all candidates, until the start is there
SHOWN = 3  # candidates that are told of


@dataclass(frozen=True)
class Start:
    """Settings with what was chosen, the embedder that they describe, and how it was found.

    `whole`: the same embedder fitted to the objects held out as well.
    """

    settings: CommonSettings
    embedder: Embedder
    whole: Embedder
    fitted: Fitted


def closed_form_start(
    settings: CommonSettings,
    plan: Plan,
    run: Path,
    options: LoopOptions,
    watcher: Watcher,
    method: Method | None = None,
) -> Start:
    """Fit to the training rows; the rows held out choose, and are not fitted to.

    `method`: the projection's kind, where it is not to be chosen.
    `settings.size` must be known. Features lie in the run meanwhile: an interrupted start goes on.
    Raises UserError when nothing can be fitted.
    """
    assert settings.size is not None
    seed_everything(settings.seed, settings.deterministic)
    base = Embedder(bare_config(settings.backbone, settings.size, settings.pooling))
    config = base.config.model_copy(update={"preprocess": settings.embedder().preprocess})
    base.config = config
    initial_weights(base, settings.weights, settings.partial_weights, watcher.tell)
    found = fit(
        base.to(pick_device()),
        plan,
        wish=_wish(settings, method),
        again=False,
        out=run / WORK,
        options=EmbedOptions(workers=options.workers, strict=options.strict),
        progress=lambda done, total: watcher.step(done, total, "embedding"),
    )
    for one in found.table[:SHOWN]:
        watcher.tell(f"  validation mAP {100 * one.scores['mAP']:.1f}: {one.candidate.words()}")
    seconds = sum(found.seconds.values())
    watcher.tell(f"closed form: {found.chosen.words()}, after {seconds:.0f} s")
    settings = _described(settings, found.embedder)
    embedder = _with_neck(settings, found, found.embedder)
    whole = found.whole
    if whole is None or whole.dim != found.embedder.dim:  # in tiny sets more rows, more dimensions
        whole = found.embedder
    whole = _with_neck(settings, found, whole)
    shutil.rmtree(run / WORK, ignore_errors=True)
    return Start(settings, embedder, whole, found)


def _wish(settings: CommonSettings, method: Method | None) -> Wish:
    """What the settings hold fast."""
    grids = set(settings.grids)
    return Wish(
        method=method,
        depths=settings.depths or None,
        grid=grids.pop() if len(grids) == 1 else None,
        dims=settings.projection,
    )


def _described(settings: CommonSettings, embedder: Embedder) -> CommonSettings:
    config = embedder.config
    update = {
        "depths": config.depths,
        "grids": config.grids,
        "projection": config.projection,
        "last_stride": 2,
        "pooling": config.pooling,
    }
    return settings.model_copy(update=update)


def _with_neck(settings: CommonSettings, found: Fitted, fitted: Embedder) -> Embedder:
    """The embedder of the settings with what was fitted; a neck changes nothing at first.

    Its statistics and scales are those of the projected rows: step 1 would else undo the weight
    that the projection gives to each direction.
    """
    embedder = Embedder(settings.embedder())
    state = fitted.state_dict()
    if settings.bn_neck and found.variances is not None:
        state |= _neck(found.variances, embedder.neck)
    embedder.load_state_dict(state, strict=False)
    embedder.info = dict(fitted.info)
    return embedder


def _neck(variances: NDArray[np.float64], neck: nn.Module) -> dict[str, torch.Tensor]:
    assert isinstance(neck, nn.BatchNorm1d)
    spread = torch.from_numpy(variances)
    weight = (spread + neck.eps).sqrt()  # what the neck divides by: small variances are near eps
    return {"neck.running_var": spread.float(), "neck.weight": weight.float()}
