"""A story on a tiny network, its batch, and the gradients of one step of it."""

from __future__ import annotations

import numpy as np
import torch

from command import TINY
from resight.models.embedder import Embedder
from resight.train.recipes import settings_of
from resight.train.step import Stepper, accelerator
from resight.train.story import Story, compose

LABELS = [0, 0, 1, 1, 1, 2, 3, 3, 4, 4]


def story(**values: object) -> Story:
    """Always the same initial weights."""
    torch.manual_seed(5)
    small = {"backbone": TINY, "size": (32, 32), "lr": 1e-3, "weights": "none"}
    settings = settings_of(small | values, "test")
    return compose(settings, Embedder(settings.embedder()), LABELS)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.normal(size=(len(LABELS), 3, 32, 32)).astype(np.float32))
    return images, torch.tensor(LABELS)


def gradients(
    made: Story, images: torch.Tensor, labels: torch.Tensor
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Those of one step that is not taken, by parameter, and the losses."""
    stepper = Stepper(made, accelerator())
    taken: dict[str, torch.Tensor] = {}

    def keep() -> None:
        for name, parameter in made.state.named_parameters():
            if parameter.grad is not None:
                taken[name] = parameter.grad.clone()

    for optimizer in made.optimizers:
        optimizer.step = lambda *_, **__: keep()  # type: ignore[method-assign]
    losses = stepper(images, labels, update=True)
    return taken, {name: float(value) for name, value in losses.items()}
