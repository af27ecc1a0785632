"""The embedder: backbone, pooling, head and preprocessing, saved as one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
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
from resight.models.config import EmbedderConfig as EmbedderConfig
from resight.models.depths import Maps, depths_of, parts_of
from resight.models.devices import default_device as default_device
from resight.models.devices import pick_device as pick_device
from resight.models.folders import CARD as CARD
from resight.models.folders import CONFIG as CONFIG
from resight.models.folders import WEIGHTS as WEIGHTS
from resight.models.folders import embedder_folder as embedder_folder
from resight.models.heads import BNNeck, Whitening
from resight.models.iresnet import IResNet
from resight.models.lora import plain_state
from resight.models.pooling import AveragePool, GeM
from resight.settings import build


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

    runtime: Literal["torch"] = "torch"

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
        self.folder: Path | None = None  # that it was read from
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
        content["fingerprint"] = self.fingerprint()
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
        model.info, model.folder = content.get("info", {}), folder
        return model.to(pick_device(device)).eval()


def _rescale(images: torch.Tensor, scale: float) -> torch.Tensor:
    return nn.functional.interpolate(
        images, scale_factor=scale, mode="bilinear", align_corners=False, antialias=True
    )
