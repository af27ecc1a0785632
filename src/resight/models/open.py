"""Open an embedder from whatever the user names: a saved folder, a run, or a backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.models.backbones import check_backbone, published
from resight.models.embedder import (
    CONFIG,
    Embedder,
    EmbedderConfig,
    embedder_folder,
    pick_device,
)
from resight.models.hub import is_hub_name
from resight.models.iresnet import DEPTHS, SIZE
from resight.models.weights import hub_weights, load_backbone_weights

AUTO = "auto"
LIGHT, LARGE = "tf_efficientnet_lite0", "resnet50"


def open_embedder(
    model: str,
    *,
    weights: str | None = None,
    size: tuple[int, int] | None = None,
    pooling: str | None = None,
    device: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Embedder:
    """A saved embedder, or a bare backbone (as it comes: pooled feature, no head).

    `model`: folder of an embedder or of a run, "hub:OWNER/NAME", or "auto" or a timm name with
    `weights` (a file, a hub name, "imagenet", "none"; default "auto") and `size` (default 224 x
    224, or what the network is made for). `tell` gets the report on the weights.

    Raises UserError: no such folder or backbone, or weights that don't fit.
    """
    folder = embedder_folder(model)
    if folder is not None:
        if weights is not None or size is not None or pooling is not None:
            raise UserError(
                f"{model} is a saved embedder: --weights and --size go with a backbone's name"
            )
        return Embedder.load(folder, device)
    if is_hub_name(model):
        raise UserError(f"{model}: holds no embedder of resight ({CONFIG} not found)")
    path = Path(model)
    if path.exists():
        kind = "a folder" if path.is_dir() else "a file"
        unfinished = (path / "run.json").is_file()
        hint = "; this run has no embedder yet: finish it with --resume" if unfinished else ""
        raise UserError(f"{model}: {kind} without an embedder ({CONFIG} not found){hint}")
    if "/" in model or model.startswith("."):
        raise UserError(
            f"{model}: not found; give an embedder's folder, a run, or a backbone's name"
        )
    if model == AUTO:
        model = auto_backbone(device, tell)
    check_backbone(model)
    config = bare_config(model, size or _usual_size(model), pooling or "auto")
    embedder = Embedder(config)
    source = weights or AUTO
    if source != "none":
        match = load_backbone_weights(embedder.backbone, model, source)
        for line in match.lines():
            tell(line)
    embedder.info = {"backbone": model, "weights": source}
    return embedder.to(pick_device(device)).eval()


def auto_backbone(device: str | None = None, tell: Callable[[str], None] = lambda _: None) -> str:
    """The backbone that "auto" stands for: a light one on a CPU, resnet50 on a GPU.

    The light one also where the hub that has the other's weights is out of reach.
    """
    name = LIGHT
    if pick_device(device).type == "cuda":
        try:
            hub_weights(LARGE, "imagenet")
            name = LARGE
        except UserError as reason:
            tell(f"{reason}")
    tell(f"backbone {name} (--backbone decides)")
    return name


def _usual_size(backbone: str) -> tuple[int, int]:
    return SIZE if backbone in DEPTHS else (224, 224)


def bare_config(backbone: str, size: tuple[int, int], pooling: str = "auto") -> EmbedderConfig:
    """A backbone as it comes: the stride of its last stage kept, no head, its own mean and std."""
    return EmbedderConfig(
        backbone=backbone,
        last_stride=2,
        pooling=pooling,  # type: ignore[arg-type]
        bn_neck=False,
        preprocess=preprocess_for(backbone, size),
    )


def preprocess_for(
    backbone: str,
    size: tuple[int, int],
    resize: Literal["stretch", "crop", "fit"] = "stretch",
) -> Preprocess:
    """The test transform to `size`, with the mean and deviation the backbone's weights expect."""
    mean, std = published(backbone, "mean"), published(backbone, "std")
    if not (mean and std):
        return Preprocess(size=size, resize=resize)
    return Preprocess(size=size, resize=resize, mean=tuple(mean), std=tuple(std))
