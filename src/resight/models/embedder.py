"""The embedder: backbone, pooling, head and preprocessing, saved as one folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from resight.checksums import file_sum, verify
from resight.data.decode import decode, to_rgb
from resight.data.transforms import Preprocess
from resight.errors import UserError
from resight.files import atomic_path, read_json, write_json, write_text
from resight.models.backbones import create_backbone, has_map
from resight.models.card import card
from resight.models.depths import Maps, depths_of, parts_of
from resight.models.heads import BNNeck, Whitening
from resight.models.hub import fetch, is_hub_name
from resight.models.iresnet import IResNet
from resight.models.lora import plain_state
from resight.models.pooling import AveragePool, GeM
from resight.settings import build

CONFIG, WEIGHTS, CARD = "embedder.json", "model.safetensors", "README.md"


class EmbedderConfig(BaseModel):
    """What an embedder is made of. `pooling` "model" is the backbone's own (transformers).

    `depths`: the maps that are pooled, brought to unit length and joined (see `models.depths`);
    none stands for the last map alone, as it is. `grids`: for each of them the cells a side that
    it is averaged in, none for 1 in all; a depth may come several times, with several grids.
    `whiten`: the dimensions of a projection at the very end, after the neck; None for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = "resnet50"
    last_stride: Literal[1, 2] = 1
    depths: tuple[Annotated[int, Field(ge=0, le=255)], ...] = ()
    grids: tuple[Annotated[int, Field(ge=1, le=7)], ...] = ()
    pooling: Literal["auto", "average", "gem", "model"] = "auto"
    gem_p: Annotated[float, Field(gt=0, le=100)] = 3.0
    projection: Annotated[int, Field(ge=1, le=65536)] | None = None
    bn_neck: bool = True
    preprocess: Preprocess = Preprocess()
    whiten: Annotated[int, Field(ge=1, le=65536)] | None = None

    @model_validator(mode="after")
    def _grids_fit(self) -> EmbedderConfig:
        if self.grids and len(self.grids) != len(self.depths):
            raise ValueError("grids: as many as depths, or none")
        pairs = set(zip(self.depths, self.grids or (1,) * len(self.depths), strict=True))
        if len(pairs) < len(self.depths):
            raise ValueError("depths: the same depth and grid twice")
        return self

    def written(self) -> str:
        """JSON, as it is stored and hashed; what is not in use is not spoken of.

        So files and fingerprints are those of the time before there was any of it.
        """
        unused = {"depths": (), "grids": (), "whiten": None}
        return self.model_dump_json(exclude={k for k, v in unused.items() if getattr(self, k) == v})


class Embedder(nn.Module):
    """Images in, vectors out.

    Backbone, maps at its depths, pooled and joined, `projection` (linear), BN neck, and a
    `whitening` at the end: a projection of what was trained. Each part but the first two may be
    absent. The projections are linear layers, fitted in closed form (`models.closed_form`) or
    random at first, and trained like any other.

    `forward` takes (B, 3, H, W) normalised images and gives f (B, D), the feature before the BN
    neck, on which the metric losses work, and the embedding (B, E), which is searched: the neck's
    output, whitened where the configuration says so (only then E may be less than D), not yet of
    unit length (object centroids are means of un-normalised embeddings). Without neck and
    whitening the two are the same. `features_dim` is D, `dim` is E.
    """

    def __init__(self, config: EmbedderConfig):
        super().__init__()
        size = config.preprocess.size
        self.backbone, stride = create_backbone(config.backbone, size, config.last_stride)
        self.maps: Maps | None = None
        if config.depths:
            found = depths_of(self.backbone, size)
            self.maps = Maps(parts_of(found, config.depths, config.grids, config.backbone))
        mapped = self.maps is not None or has_map(self.backbone, size)
        pooling = config.pooling
        if pooling == "auto":
            own_head = not mapped or isinstance(self.backbone, IResNet)
            pooling = "model" if own_head else "average"
        elif pooling == "model" and config.depths:
            raise UserError("pooling model pools the last features only; use average or gem")
        elif pooling != "model" and not mapped:
            raise UserError(f"backbone {config.backbone} gives no map to pool; use pooling 'model'")
        self.config = config.model_copy(update={"pooling": pooling, "last_stride": stride})
        self.pool: nn.Module = nn.Identity()
        if pooling == "average":
            self.pool = AveragePool()
        elif pooling == "gem":
            self.pool = GeM(config.gem_p)
        with torch.no_grad():  # a model's own head may widen its features: see what comes out
            features = self._pooled(torch.zeros(1, 3, *size)).shape[1]
        self.features_dim = width = config.projection or features
        self.dim = config.whiten or width
        if self.dim > width:
            raise UserError(f"whiten {self.dim}: only {width} dimensions come out of this network")
        self.projection = nn.Linear(features, width) if config.projection else nn.Identity()
        self.neck = BNNeck(width) if config.bn_neck else nn.Identity()
        self.whitening = Whitening(width, config.whiten) if config.whiten else nn.Identity()
        self.info: dict[str, Any] = {}
        self.fixed: set[str] = set()  # names of parts that stay in eval mode (see tuning.py)
        if mapped:  # convolutions run up to twice as fast with the channels last
            self.to(memory_format=torch.channels_last)

    @property
    def preprocess(self) -> Preprocess:
        """The test transform."""
        return self.config.preprocess

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> Embedder:
        """As in torch, but for the parts named in `fixed`."""
        super().train(mode)
        for name in self.fixed:
            self.get_submodule(name).eval()
        return self

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) -> f (B, D), embedding (B, E)."""
        f = self.features(images)
        return f, self.finish(f)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> f (B, D), the feature before the neck."""
        f: torch.Tensor = self.projection(self._pooled(images))
        return f

    def finish(self, f: torch.Tensor) -> torch.Tensor:
        """f (B, D) -> the embedding (B, E): neck, then whitening."""
        embedding: torch.Tensor = self.whitening(self.neck(f))
        return embedding

    def _pooled(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> the backbone's pooled feature (B, C), of all depths joined."""
        pooled: torch.Tensor
        if self.config.pooling == "model":
            tokens = self.backbone.forward_features(images)  # type: ignore[operator]
            pooled = self.backbone.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
            return pooled
        images = images.contiguous(memory_format=torch.channels_last)
        if self.maps is not None:
            pooled = self.maps(self.backbone, self.pool, images)
        else:
            pooled = self.pool(self.backbone.forward_features(images))  # type: ignore[operator]
        return pooled

    @torch.inference_mode()
    def embed_tensor(
        self, images: torch.Tensor, *, flip: bool = False, scales: Sequence[float] = (1.0,)
    ) -> torch.Tensor:
        """(B, 3, H, W) normalised -> (B, E) float32 un-normalised, on the images' own device.

        `flip` averages the embedding with that of the mirrored image. With several `scales` the
        embeddings are brought to unit length and summed (papers' multi-scale feature). A whitening
        comes last, once.

        Raises UserError when the backbone does not take images of another scale.
        """
        self.eval()
        images = images.to(self.device, non_blocking=True)
        total = torch.zeros(len(images), self.features_dim, device=self.device)
        for scale in scales:
            resized = images if scale == 1 else _rescale(images, scale)
            try:
                one = self._necked(resized)
            except AssertionError as error:  # so timm's transformers refuse a size
                raise UserError(
                    f"backbone {self.config.backbone} can't take images at scale {scale:g}: {error}"
                ) from None
            if flip:
                one = (one + self._necked(resized.flip(-1))) / 2
            total += nn.functional.normalize(one, dim=1) if len(scales) > 1 else one
        embedding: torch.Tensor = self.whitening(total)
        return embedding

    def _necked(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> the embedding before whitening (B, D) float32."""
        out: torch.Tensor = self.neck(self.features(images)).float()
        return out

    def embed(
        self,
        images: Sequence[str | Path | bytes | Image.Image] | str | Path | bytes | Image.Image,
        *,
        normalize: bool = True,
        batch_size: int = 32,
    ) -> NDArray[np.float32]:
        """Embed photos: paths, encoded bytes or Pillow images -> (N, D) float32, unit length.

        Raises BadImage for an image that can't be read; `embed_images` is for long jobs, which
        skip it.
        """
        if isinstance(images, str | Path | bytes | Image.Image):
            images = [images]
        parts = [np.empty((0, self.dim), np.float32)]
        for start in range(0, len(images), batch_size):
            tensors = [self._prepare(image) for image in images[start : start + batch_size]]
            if len({tensor.shape for tensor in tensors}) == 1:
                batch = self.embed_tensor(torch.stack(tensors))
            else:
                batch = torch.cat([self.embed_tensor(tensor[None]) for tensor in tensors])
            parts.append(batch.cpu().numpy())
        vectors = np.concatenate(parts)
        if normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def _prepare(self, image: str | Path | bytes | Image.Image) -> torch.Tensor:
        if isinstance(image, Image.Image):
            image = to_rgb(ImageOps.exif_transpose(image))  # as `decode` does
        else:
            image = decode(image, target=self.preprocess.decode_target)
        return self.preprocess(image)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the configuration and all weights."""
        digest = hashlib.sha256(self.config.written().encode())
        for key, value in plain_state(self).items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: str | Path, info: dict[str, Any] | None = None) -> Path:
        """Write weights, configuration and card. `info`: how it was trained, its scores."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        info = self.info if info is None else info
        state = {key: value.contiguous().cpu() for key, value in plain_state(self).items()}
        content = {"format": 1, "config": json.loads(self.config.written()), "info": info}
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(state, temporary)
            total = file_sum(temporary)
            if (folder / CONFIG).is_file():  # killed from here on, the sum would be the old one's
                write_json(folder / CONFIG, content)
        content["sha256"] = total
        write_text(folder / CARD, card(content["config"], self.dim, info))
        write_json(folder / CONFIG, content)  # last: it is what makes the folder an embedder
        return folder

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = None) -> Embedder:
        """Read a folder that `save` wrote; nothing is unpickled. `device`: a GPU if there is one.

        A run, a features folder or a gallery stands for the embedder in it; "hub:OWNER/NAME" is
        fetched from the hub.

        Raises UserError when the folder is no embedder, or its files are damaged.
        """
        folder = embedder_folder(folder) or Path(folder)
        if folder.is_file():
            raise UserError(f"{folder}: a file; an embedder is a folder with {CONFIG}")
        content = read_json(folder / CONFIG, "an embedder")
        if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
            raise UserError(f"{folder / CONFIG}: not an embedder's configuration")
        if "sha256" in content and (folder / WEIGHTS).is_file():
            remedy = "copy the embedder again from where it came from, or make it anew (train)"
            verify(folder, {WEIGHTS: str(content["sha256"])}, remedy)
        model = cls(build(EmbedderConfig, content["config"], str(folder / CONFIG)))
        try:
            model.load_state_dict(load_file(folder / WEIGHTS))
        except FileNotFoundError:
            raise UserError(
                f"{folder / WEIGHTS}: not found; the weights of an embedder were expected here"
            ) from None
        except (SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{folder / WEIGHTS}: damaged or of another model ({reason})") from None
        model.info = content.get("info", {})
        return model.to(pick_device(device)).eval()


def embedder_folder(model: str | Path) -> Path | None:
    """The folder of a saved embedder that `model` names: itself, or that in a run, a features
    folder or a gallery (whose gallery.json says which, as it can be given another).

    What "hub:OWNER/NAME" names is fetched. Raises UserError when it can't be.
    """
    path = fetch(str(model)) if is_hub_name(model) else Path(model)
    inner = ["embedder"]
    if (path / "gallery.json").is_file():
        named = read_json(path / "gallery.json", "a gallery")
        if isinstance(named, dict) and re.fullmatch(r"embedder(-\d+)?", str(named.get("embedder"))):
            inner.insert(0, named["embedder"])
    for folder in (path, *(path / name for name in inner)):
        if (folder / CONFIG).is_file():
            return folder
    return None


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, here or by `default_device`; else a GPU, if there is one."""
    device = device if device is not None else _default[0]
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


_default: list[str | None] = [None]


def default_device(device: str | None) -> None:
    """From now on `pick_device` answers this, and training is done there; None: as before.

    Raises UserError when there is no such device.
    """
    if device is not None:
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            first = (str(error).strip().splitlines() or [""])[0].split(". ")[0][:120]
            raise UserError(f"--device {device}: can't be used ({first}); cpu always can") from None
    _default[0] = device
    # accelerate, with which we train, is told in its own way.
    told = {"ACCELERATE_TORCH_DEVICE": device}
    told["ACCELERATE_USE_CPU"] = "true" if device == "cpu" else None
    for name, value in told.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _rescale(images: torch.Tensor, scale: float) -> torch.Tensor:
    return nn.functional.interpolate(
        images, scale_factor=scale, mode="bilinear", align_corners=False, antialias=True
    )
