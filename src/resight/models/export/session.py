"""An embedder's graph in ONNX Runtime, for use: torch is not imported."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from resight.data.decode import decode, to_rgb
from resight.data.pixels import cores
from resight.data.transforms import Preprocess
from resight.files import atomic_path
from resight.models.config import EmbedderConfig
from resight.models.folders import CARD, CONFIG, WEIGHTS

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Photo = str | Path | bytes | Image.Image


_sharing = [1]


def share_cores(processes: int) -> None:
    """So many processes of a service use the cores: each takes its part of them."""
    _sharing[0] = processes


def threads() -> int:
    """Threads of a network on the CPU: as OMP_NUM_THREADS has it, else one a core."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    count = int(asked) if asked.isdigit() and int(asked) else cores()
    return max(1, count // _sharing[0])


def start(graph: bytes | Path, count: int | None = None) -> InferenceSession:
    """A session on the CPU with `count` threads (None: see `threads`)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads() if count is None else count
    options.log_severity_level = 4  # what goes wrong is raised
    # Threads that wait for work don't spin: the cores are wanted for the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


class OnnxEmbedder:
    """What embeds images with a graph: the part of an `Embedder` that use needs, without training.

    Its vectors are those of the embedder with that fingerprint, to the last digits (`parity`).
    `folder`: where that embedder is saved, None where it is not.
    """

    runtime: Literal["onnx"] = "onnx"

    def __init__(
        self,
        session: InferenceSession,
        config: EmbedderConfig,
        fingerprint: str,
        dim: int,
        folder: Path | None = None,
        info: dict[str, Any] | None = None,
    ):
        self._session, self._input = session, session.get_inputs()[0].name
        self.config, self.dim, self._fingerprint = config, dim, fingerprint
        self.folder, self.info = folder, info or {}

    @property
    def preprocess(self) -> Preprocess:
        """The test transform."""
        return self.config.preprocess

    def fingerprint(self) -> str:
        """That of the embedder whose graph this is."""
        return self._fingerprint

    def embed_pixels(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) at their final size -> (N, D), not of unit length."""
        vectors: NDArray[np.float32]
        (vectors,) = self._session.run(None, {self._input: np.ascontiguousarray(images)})
        return vectors

    def embed(
        self, images: Sequence[Photo] | Photo, *, normalize: bool = True, batch_size: int = 32
    ) -> NDArray[np.float32]:
        """As `Embedder.embed`: photos -> (N, D), of unit length unless told otherwise."""
        if isinstance(images, str | Path | bytes | Image.Image):
            images = [images]
        parts = [np.empty((0, self.dim), np.float32)]
        for at in range(0, len(images), batch_size):
            parts.append(self.embed_all([self._pixels(x) for x in images[at : at + batch_size]]))
        vectors = np.concatenate(parts)
        if normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors

    def embed_all(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Pictures (H, W, 3), at once where they are of one shape -> (N, D)."""
        if len({picture.shape for picture in pictures}) == 1:
            return self.embed_pixels(np.stack(pictures))
        return np.concatenate([self.embed_pixels(picture[None]) for picture in pictures])

    def _pixels(self, image: Photo) -> NDArray[np.uint8]:
        if isinstance(image, Image.Image):
            image = to_rgb(ImageOps.exif_transpose(image))
        else:
            image = decode(image, target=self.preprocess.decode_target)
        return np.asarray(self.preprocess.resized(image))

    def save(self, folder: str | Path) -> Path:
        """Write the embedder as it is saved where this one comes from."""
        assert self.folder is not None, "made of an embedder that is not saved"
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, CARD, CONFIG):  # the last makes the folder an embedder
            if (self.folder / name).is_file():
                with atomic_path(folder / name) as temporary:
                    shutil.copyfile(self.folder / name, temporary)
        return folder
