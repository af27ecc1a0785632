"""One training step: features, gathered; losses; gradients. Plain, or in chunks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from resight.models.embedder import Embedder
from resight.train.gather import average_gradients, average_statistics, gathered
from resight.train.story import Story


class NotFinite(Exception):
    """A loss is no longer finite. `parts`: its parts that aren't; `rows`: of the batch, (n,)."""

    def __init__(self, parts: list[str], rows: torch.Tensor):
        super().__init__(", ".join(parts))
        self.parts, self.rows = parts, rows


def accelerator(precision: str = "no") -> Accelerator:
    """The device, and the other processes, for `Stepper`."""
    return Accelerator(
        mixed_precision=precision,
        step_scheduler_with_optimizer=False,
        # The running statistics are shared once a step (`average_statistics`), not in each pass:
        # processes may differ in the number of their chunks.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


class FeatureNetwork(nn.Module):
    """The part of an embedder that is spread over processes: images to features f.

    The neck and the losses come after: they see the gathered batch, in every process the same.
    """

    def __init__(self, embedder: Embedder):
        super().__init__()
        self.backbone, self.pool = embedder.backbone, embedder.pool
        self.projection = embedder.projection
        self._features = embedder.features  # a method: the embedder itself is no part of this

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> f (B, D)."""
        return self._features(images)


class Stepper:
    """Forward, backward and update for a story; `network` is its FeatureNetwork, prepared."""

    def __init__(self, story: Story, accelerator: Accelerator):
        self.story, self.accelerator = story, accelerator
        story.embedder.to(accelerator.device)
        story.objective.to(accelerator.device)
        self.bare = FeatureNetwork(story.embedder)
        if accelerator.num_processes > 1:
            _release_unused(self.bare, story.embedder)
        trained = any(p.requires_grad for p in self.bare.parameters())
        # With nothing to train in it there are no gradients to share.
        self.network: nn.Module = accelerator.prepare_model(self.bare) if trained else self.bare
        self.optimizers = [accelerator.prepare_optimizer(one) for one in story.optimizers]
        shared = {id(p) for p in self.bare.parameters()}
        self.alike = [p for p in story.state.parameters() if id(p) not in shared]

    def __call__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        update: bool,
        plain: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """images (b, 3, H, W), labels (b, ...) of this process; the losses by name, detached.

        `plain`: the same pictures without augmentation; the objective gets their embeddings, made
        without a gradient in inference mode. Empty when all processes together hold fewer than
        two images. Raises NotFinite before any weight is touched.
        """
        chunk = self.story.settings.chunk
        still = () if plain is None else (self._still(plain, chunk or len(plain)),)
        self.story.embedder.train()
        self.story.objective.train()
        if chunk is None or len(images) <= chunk:
            losses = self._whole(images, labels, update, still)
        else:
            losses = self._in_chunks(images, labels, chunk, update, still)
        if update:
            average_gradients(self.alike)
            average_statistics(self.bare)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
        return losses

    @torch.no_grad()
    def _still(self, images: torch.Tensor, chunk: int) -> torch.Tensor:
        """Embeddings (B, D) of all processes' images, as in inference."""
        self.story.embedder.eval()
        parts = torch.split(images, max(1, chunk))
        f = torch.cat([self._features(self.bare, part) for part in parts])
        e: torch.Tensor = self.story.embedder.finish(gathered(f))
        return e

    def _whole(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        update: bool,
        still: tuple[torch.Tensor, ...],
    ) -> dict[str, torch.Tensor]:
        with self._hold(not update):
            features = self._features(self.network, images)
            loss, losses = self._losses(features, labels, still)
            if loss.requires_grad:
                self.accelerator.backward(loss)
        return losses

    def _in_chunks(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        chunk: int,
        update: bool,
        still: tuple[torch.Tensor, ...],
    ) -> dict[str, torch.Tensor]:
        """Gradient caching: the features without a graph, the loss's gradient for them, then
        chunk by chunk again with a graph, which takes up that gradient.

        Equal to the plain step, but for BatchNorm in training mode, whose statistics are then
        those of a chunk. Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under
        Memory Limited Setup", RepL4NLP 2021, section 3.2.
        """
        chunks = torch.split(images, chunk)
        states = []
        parts = []
        with torch.no_grad(), _still_statistics(self.bare):
            for part in chunks:
                states.append(_random_state(self.accelerator.device))
                parts.append(self._features(self.bare, part))
        f = torch.cat(parts).requires_grad_()
        loss, losses = self._losses(f, labels, still)
        self.accelerator.backward(loss)
        assert f.grad is not None
        after = _random_state(self.accelerator.device)
        for k, (part, gradient) in enumerate(zip(chunks, torch.split(f.grad, chunk), strict=True)):
            _restore(states[k], self.accelerator.device)
            with self._hold(not update or k + 1 < len(chunks)):
                again = self._features(self.network, part)
                if again.requires_grad:
                    torch.autograd.backward(again, gradient)
        _restore(after, self.accelerator.device)
        return losses

    def _features(self, network: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """f (b, D) float32; without images an empty f that still has a gradient."""
        count = len(images)
        if not count:  # this process still takes part in what the others compute
            images = torch.zeros(2, 3, *self.story.embedder.preprocess.size)
        with self.accelerator.autocast():
            f = network(images.to(self.accelerator.device, non_blocking=True))
        # Distances between near points vanish in half precision: the losses are in float32.
        out: torch.Tensor = f.float()[:count]
        return out

    def _losses(
        self, f: torch.Tensor, labels: torch.Tensor, still: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss to go back from, and all losses by name, detached."""
        everyone = gathered(f)
        everyones = gathered(labels.to(self.accelerator.device))
        if len(everyones) < 2:
            return everyone.sum() * 0, {}
        e = self.story.embedder.finish(everyone)
        losses: dict[str, torch.Tensor] = self.story.objective(everyone, e, everyones, *still)
        if not bool(torch.isfinite(losses["loss"]) & torch.isfinite(everyone.detach()).all()):
            # A broken image that is a far negative to all others may not show in any loss.
            parts = [name for name, value in losses.items() if not bool(torch.isfinite(value))]
            bad = ~torch.isfinite(f.detach()).all(1)
            raise NotFinite(parts or ["the feature"], bad.nonzero().squeeze(1).cpu())
        detached = {name: value.detach() for name, value in losses.items()}
        return losses["loss"] / self.story.settings.accumulate, detached

    def _hold(self, hold: bool) -> contextlib.AbstractContextManager[None]:
        """Whether processes keep their gradients to themselves for now."""
        if not hold:
            return contextlib.nullcontext()
        held: contextlib.AbstractContextManager[None] = self.accelerator.no_sync(self.network)
        return held


def _release_unused(network: nn.Module, embedder: Embedder) -> None:
    """Take the parameters that no feature depends on out of training.

    Such as a backbone's own head where we pool its map: processes would wait for their gradients.
    """
    embedder.eval()
    device = next(network.parameters()).device
    found = [p for p in network.parameters() if p.requires_grad]
    if not found:
        return
    probe = torch.zeros(2, 3, *embedder.preprocess.size, device=device)
    used = torch.autograd.grad(network(probe).sum(), found, allow_unused=True)
    for parameter, gradient in zip(found, used, strict=True):
        parameter.requires_grad_(gradient is not None)


@contextlib.contextmanager
def _still_statistics(network: nn.Module) -> Iterator[None]:
    """BatchNorm uses the batch's statistics as ever, but does not add them to its own."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), on_device


def _restore(state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
