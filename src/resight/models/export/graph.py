"""An embedder as one ONNX graph, written by torch from a traced run.

What a trace can't hold or ONNX doesn't have is written out here as products with small matrices:
cells of unequal size (`pooling.grid_average`), and the antialiased change of scale.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from resight.errors import UserError
from resight.models.embedder import Embedder

OPSET = 18
INPUT, OUTPUT = "images", "vectors"


@dataclass(frozen=True)
class Form:
    """What a graph takes and does.

    raw: uint8 (N, H, W, 3), normalised inside; else float32 (N, 3, H, W), normalised. dynamic: any
    H and W; else those of the embedder. half: the backbone in float16. flip, scales: as in
    `Embedder.embed_tensor`.
    """

    raw: bool = True
    dynamic: bool = False
    half: bool = False
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)


class Whole(nn.Module):
    """Pixels -> vectors (N, E) float32, not of unit length: what `embed_tensor` gives."""

    def __init__(self, embedder: Embedder, form: Form):
        super().__init__()
        self.embedder, self.form = embedder, form
        prepare = embedder.preprocess
        self.mean = torch.tensor(prepare.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(prepare.std).view(1, 3, 1, 1)
        if form.half:
            embedder.backbone.half()
            embedder.pool.half()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images that `form` says -> (N, E)."""
        if self.form.raw:
            images = images.permute(0, 3, 1, 2).float() * (1.0 / 255)
            images = (images - self.mean) / self.std
        scales = self.form.scales
        parts = []
        for scale in scales:
            scaled = images if scale == 1 else rescaled(images, scale)
            one = self._necked(scaled)
            if self.form.flip:
                one = (one + self._necked(scaled.flip(-1))) / 2
            parts.append(nn.functional.normalize(one, dim=1) if len(scales) > 1 else one)
        out: torch.Tensor = self.embedder.whitening(sum(parts[1:], parts[0]))
        return out

    def _necked(self, images: torch.Tensor) -> torch.Tensor:
        model = self.embedder
        images = images.half() if self.form.half else images
        pooled = model._pooled(images).float()
        out: torch.Tensor = model.neck(model.projection(pooled))
        return out


def rescaled(images: torch.Tensor, scale: float) -> torch.Tensor:
    """(N, C, H, W) -> (N, C, ⌊H s⌋, ⌊W s⌋): bilinear with antialiasing, as two products.

    The same as torch's `interpolate(..., antialias=True)`: a triangle as wide as a pixel of the
    result, over the pixels that it covers.
    """
    down, across = (_triangles(images.shape[axis], scale) for axis in (2, 3))
    return down @ images @ across.T


def _triangles(size: Any, scale: float) -> torch.Tensor:
    """(⌊size s⌋, size): the weights of the pixels of a line for each of the result's."""
    size = torch.as_tensor(size)  # a trace counts with it
    wanted = (size * scale).floor().long()
    places, pixels = torch.arange(wanted)[:, None], torch.arange(size)[None]
    away = (pixels + 0.5 - (places + 0.5) / scale).abs() / max(1.0, 1 / scale)
    weights = (1 - away).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True)
    return torch.where(wanted == size, (places == pixels).float(), weights)  # torch leaves it then


def write_graph(embedder: Embedder, form: Form = Form()) -> bytes:
    """The embedder as an ONNX file. Batches may be of any size.

    Raises UserError when torch can't put this network into one.
    """
    model = copy.deepcopy(embedder).cpu().eval().requires_grad_(False)
    whole = Whole(model, form).eval()
    height, width = embedder.preprocess.size
    images = torch.rand(2, 3, height, width)
    if form.raw:
        images = (images.permute(0, 2, 3, 1) * 255).to(torch.uint8).contiguous()
    axes: dict[int, str] = {0: "images"}
    if form.dynamic:
        axes |= {1: "height", 2: "width"} if form.raw else {2: "height", 3: "width"}
    file = io.BytesIO()
    try:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                whole,
                (images,),
                file,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: axes, OUTPUT: {0: "images"}},
            )
    except Exception as error:  # the exporter and what it calls raise nearly anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        raise UserError(
            f"backbone {embedder.config.backbone} can't be exported to ONNX: {reason}"
        ) from None
    return file.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter tells its developers."""
    logs: Sequence[logging.Logger] = [logging.getLogger("torch.onnx")]
    before = [log.level for log in logs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for log in logs:
                log.setLevel(logging.ERROR)
            yield
        finally:
            for log, level in zip(logs, before, strict=True):
                log.setLevel(level)
