"""What of an embedder is trained, and at which rate."""

from __future__ import annotations

from typing import Any, Literal

from torch.nn.modules.batchnorm import _BatchNorm

from resight.errors import UserError
from resight.models.embedder import Embedder
from resight.models.lora import add_low_rank
from resight.models.rates import family

LORA_ALPHA = 16.0  # of a common order; only its product with the learning rate matters much


def freeze_batchnorm(embedder: Embedder) -> None:
    """Fix the running statistics of the backbone's BatchNorm layers, in `train()` as well.

    Their weights and biases are trained as before; the BN neck isn't touched. Not saved with the
    embedder. (Smooth-AP, section 5: small batches of few objects make poor statistics.)
    """
    embedder.fixed |= {
        f"backbone.{name}"
        for name, layer in embedder.backbone.named_modules()
        if isinstance(layer, _BatchNorm)
    }
    embedder.train(embedder.training)


def tune(embedder: Embedder, how: Literal["all", "lora", "head"], rank: int = 8) -> None:
    """Choose what is trained; the embedder computes the same function before and after.

    "all": everything. "head": pooling, projection, neck and whitening; the backbone stays in eval
    mode.
    "lora": those, and low-rank updates W + (16 / rank) B A on the Linear layers of the backbone's
    blocks, the rest of which stays fixed. `state_dict` then holds the updates by themselves;
    `Embedder.save` and `fingerprint` merge them into plain weights.

    Raises UserError: nothing would be left to train, or no Linear layers to put updates on.
    """
    if how == "all":
        return
    if how == "head":
        embedder.backbone.requires_grad_(False)
        if not any(p.requires_grad for p in embedder.parameters()):
            raise UserError(
                "tune head: nothing would be trained, as this embedder has no projection, no BN "
                "neck and no GeM pooling; set projection (say 512), or tune all"
            )
        embedder.fixed |= {"backbone"}
    elif how == "lora":
        if any(".parametrizations." in name for name, _ in embedder.named_parameters()):
            raise ValueError("this embedder has low-rank updates already")
        embedder.backbone.requires_grad_(False)
        if not add_low_rank(embedder.backbone, rank, LORA_ALPHA):
            raise UserError(
                f"tune lora: backbone {embedder.config.backbone} has no blocks with Linear layers "
                f"wider than the rank {rank}, as transformers have; tune all or head"
            )
        freeze_batchnorm(embedder)
    else:
        raise ValueError(f"tune {how!r}: all, lora or head")
    embedder.train(embedder.training)


def parameter_groups(
    embedder: Embedder, lr: float, head_lr_factor: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for an optimiser of `torch.optim`, of the trained parameters only.

    The backbone learns at `lr`; pooling, projection, neck and whitening at `lr` · `head_lr_factor`.
    Everything decays (as the papers' code does it), but in a transformer vectors (biases, norms)
    and what the model itself excepts (positions, class token) do not.
    """
    spared = set()
    if family(embedder.config.backbone) == "transformer":
        spared = _not_decayed(embedder)
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in embedder.named_parameters():
        if not parameter.requires_grad:
            continue
        head, free = not name.startswith("backbone."), name in spared
        group = groups.setdefault(
            (head, free),
            {
                "params": [],
                "lr": lr * head_lr_factor if head else lr,
                "weight_decay": 0.0 if free else weight_decay,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def _not_decayed(embedder: Embedder) -> set[str]:
    vectors = {name for name, parameter in embedder.named_parameters() if parameter.ndim < 2}
    excepted = getattr(embedder.backbone, "no_weight_decay", set)
    return vectors | {f"backbone.{name}" for name in excepted()}
