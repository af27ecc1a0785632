"""Published weights that go by other names, or in another shape, than those of the model here."""

from __future__ import annotations

import logging
import re
import sys

import torch
from torch import nn

State = dict[str, torch.Tensor]

_BLOCK = re.compile(r"conv([2-5])_(\d+)_(\w+?)\.(\w+)$")
_CAFFE = {  # the parts of a block in Caffe's SE-ResNet-50
    "1x1_reduce": "conv1",
    "1x1_reduce_bn": "bn1",
    "3x3": "conv2",
    "3x3_bn": "bn2",
    "1x1_increase": "conv3",
    "1x1_increase_bn": "bn3",
    "1x1_down": "se_module.fc1",
    "1x1_up": "se_module.fc2",
    "1x1_proj": "downsample.0",
    "1x1_proj_bn": "downsample.1",
}


def as_named_here(state: State, model: nn.Module) -> State:
    """`state` under the model's names and in its shapes, where it is known how; else as it is.

    Two things: the SENet-50 of VGGFace2, and whatever timm's own filter for the architecture
    does, above all positions interpolated to the grid of this image size.
    """
    own = model.state_dict()

    def fitting(form: State) -> int:
        return sum(k in own and own[k].shape == v.shape for k, v in form.items())

    if "layer1.0.se_module.fc1.weight" in own:
        return _vggface2(state)
    height, width = getattr(getattr(model, "patch_embed", None), "grid_size", None) or (1, 1)
    if fitting(state) == len(own) and height == width:
        return state
    # As many positions as of a published square grid may still lie in other rows: timm's first.
    return max(_by_timm(state, model), state, key=fitting)


def _by_timm(state: State, model: nn.Module) -> State:
    """timm's `checkpoint_filter_fn` of the architecture, if it has one that takes this state."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        converted: State = convert(dict(state), model)
        return {k: v for k, v in converted.items() if isinstance(v, torch.Tensor)}
    except Exception:  # it expects weights of its own kind, and fails in any way on others
        return state
    finally:
        logger.setLevel(level)


def _vggface2(state: State) -> State:
    """SENet-50 of VGGFace2 (Cao et al., FG 2018), as its authors converted it from Caffe, or as
    the VGGFace2-pytorch project did: that one takes its channels in the order BGR."""
    if "conv1_7x7_s2.weight" in state:
        return {_from_caffe(key): value for key, value in state.items()}
    if "layer1.0.conv4.weight" not in state:
        return state
    renamed = {}
    for key, value in state.items():
        key = re.sub(r"^(conv1|bn1)\.", r"layer0.\1.", key)
        key = key.replace(".conv4.", ".se_module.fc1.").replace(".conv5.", ".se_module.fc2.")
        renamed[key] = value.flip(1) if key == "layer0.conv1.weight" else value
    return renamed


def _from_caffe(key: str) -> str:
    key = key.replace("conv1_7x7_s2_bn.", "layer0.bn1.").replace("conv1_7x7_s2.", "layer0.conv1.")
    block = _BLOCK.match(key)
    if block is None or block[3] not in _CAFFE:
        return key
    return f"layer{int(block[1]) - 1}.{int(block[2]) - 1}.{_CAFFE[block[3]]}.{block[4]}"
