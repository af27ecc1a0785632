"""Backbones by name: anything of timm, ResNet-50-IBN-A, and two networks for faces."""

from __future__ import annotations

import difflib
from typing import Any, Literal, cast

import torch
from torch import nn

from resight import lightly
from resight.errors import UserError
from resight.models.ibn import to_ibn_a
from resight.models.iresnet import DEPTHS, SIZE, IResNet

IBN_A = "resnet50_ibn_a"
SENET = "senet50_vggface2"  # timm's legacy_seresnet50 (stride in the first 1x1), other input
OURS = (IBN_A, SENET, *DEPTHS)  # not of timm
_FACES = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, *SIZE), "fixed_input_size": True}
_VGGFACE2 = {  # of 255; not divided by a deviation
    "mean": (131.0912 / 255, 103.8827 / 255, 91.4953 / 255),
    "std": (1 / 255,) * 3,
    "input_size": (3, 224, 224),
}


def check_backbone(name: str) -> None:
    """Raises UserError, with the nearest names, when there is no such backbone."""
    timm = lightly.timm()

    if name in OURS or timm.is_model(name.split(".")[0]):
        return
    near = difflib.get_close_matches(name, [*timm.list_models(), *OURS], n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"--backbone {name}: no such backbone in timm{hint}")


def published(name: str, key: str) -> Any:
    """What timm's published weights of a backbone expect ("mean", "std", ...), None if unknown.

    Raises UserError when there is no such backbone.
    """
    timm = lightly.timm()

    check_backbone(name)
    if name in DEPTHS:
        return _FACES.get(key)
    if name == SENET:
        return _VGGFACE2.get(key)
    try:
        return timm.get_pretrained_cfg_value(name, key)
    except RuntimeError:  # no published weights, or not under this name
        return None


def build_backbone(name: str, size: tuple[int, int] | None = None) -> nn.Module:
    """A model with random weights, without classifier, in timm's interface.

    `size` (height, width) matters where the grid is fixed: None is the architecture's own. Vision
    transformers that can do so then take other sizes as well, their positions interpolated.

    Raises UserError when there is no such backbone.
    """
    timm = lightly.timm()

    check_backbone(name)
    if name in DEPTHS:
        return IResNet(DEPTHS[name], size or SIZE)
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0}
    if name == IBN_A:
        return to_ibn_a(timm.create_model("resnet50", **options))
    if name == SENET:
        return cast(nn.Module, timm.create_model("legacy_seresnet50", **options))
    # Plain names stay as they are; "resnet50.a1_in1k" names weights too, which come separately.
    architecture = name.split(".")[0]
    if size is not None and published(name, "fixed_input_size"):
        options["img_size"] = size
        try:
            return cast(
                nn.Module, timm.create_model(architecture, dynamic_img_size=True, **options)
            )
        except TypeError:  # no such option here
            pass
    return cast(nn.Module, timm.create_model(architecture, **options))


def create_backbone(
    name: str, size: tuple[int, int], last_stride: Literal[1, 2]
) -> tuple[nn.Module, Literal[1, 2]]:
    """A model with random weights, without classifier, and the last stride it got.

    `size` (height, width) matters to transformers with a fixed grid. `last_stride` 1 takes the
    stride out of the last stage, where the architecture allows it: a map twice as large (Luo et
    al. 2019, section 3.4).

    Raises UserError: no such backbone, or one that does not take images of this size.
    """
    try:
        model = build_backbone(name, size)
        fixed = bool(published(name, "fixed_input_size"))
        # Small images hide a stride: the map is a single cell with it and without.
        probe = size if fixed else (max(size[0], 64), max(size[1], 64))
        if last_stride == 1 and (name in DEPTHS or not _remove_last_stride(model, probe)):
            last_stride = 2
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"backbone {name} can't take images of {size[0]} x {size[1]}: {reason}"
        ) from None
    return model, last_stride


def has_map(model: nn.Module, size: tuple[int, int]) -> bool:
    """Whether `forward_features` gives a (B, C, H, W) map that can be pooled by us."""
    if getattr(model, "output_fmt", "NCHW") != "NCHW":
        return False
    with torch.no_grad():
        out = model.eval().forward_features(torch.zeros(1, 3, *size))  # type: ignore[operator]
    return bool(out.ndim == 4 and out.shape[1] == model.num_features)


def _remove_last_stride(model: nn.Module, size: tuple[int, int]) -> bool:
    """Set the stride of the last stage's convolutions and pools from 2 to 1, where that works.

    Which they are is seen in a forward pass at `size`: those with stride 2 whose output is the
    smallest.
    """
    halving: list[tuple[int, nn.Module]] = []

    def watch(module: nn.Module, _: Any, out: Any) -> None:
        stride = getattr(module, "stride", None)
        if stride in (2, (2, 2)) and isinstance(out, torch.Tensor) and out.ndim == 4:
            halving.append((out.shape[2] * out.shape[3], module))

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    hooks = [m.register_forward_hook(watch) for m in model.modules() if isinstance(m, kinds)]
    probe = torch.zeros(1, 3, *size)
    model.eval()
    with torch.no_grad():
        before = model.forward_features(probe)  # type: ignore[operator]
        for hook in hooks:
            hook.remove()
        smallest = min((area for area, _ in halving), default=0)
        last = [module for area, module in halving if area == smallest]
        strides = [module.stride for module in last]
        for module in last:
            module.stride = 1 if isinstance(module.stride, int) else (1, 1)  # type: ignore[assignment]
        try:
            after = model.forward_features(probe)  # type: ignore[operator]
            if before.ndim == 4:
                old, new = before.shape[2], after.shape[2]
                if new > old and new >= 2 * old - 1:
                    return True
        except RuntimeError:  # a shortcut that no longer fits its branch
            pass
    for module, stride in zip(last, strides, strict=True):
        module.stride = stride
    return False
