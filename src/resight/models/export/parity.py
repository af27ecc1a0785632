"""Whether a graph gives what its embedder gives: compared on pictures, vector by vector."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from resight.models.embedder import Embedder

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from resight.models.export.graph import Form

Pictures = Sequence[NDArray[np.uint8]]


def by_torch(
    embedder: Embedder, pictures: Pictures, flip: bool, scales: Sequence[float]
) -> NDArray[np.float32]:
    """Pictures (H, W, 3) uint8 at their final size -> (N, D), one after the other."""
    return np.concatenate(
        [
            embedder.embed_tensor(_tensor(embedder, one), flip=flip, scales=scales).cpu().numpy()
            for one in pictures
        ]
    )


def by_graph(
    embedder: Embedder, session: InferenceSession, form: Form, pictures: Pictures
) -> NDArray[np.float32]:
    """The same by a graph of this form."""
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: as_input(embedder, form, x[None])})[0] for x in pictures]
    return np.concatenate(found)


def as_input(embedder: Embedder, form: Form, pictures: NDArray[np.uint8]) -> NDArray[Any]:
    """Pictures (N, H, W, 3) as a graph of this form takes them."""
    if form.raw:
        return pictures
    normalised: NDArray[Any] = torch.cat([_tensor(embedder, one) for one in pictures]).numpy()
    return normalised


def differences(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, float]:
    """Of two (N, D), the lengths of the differences of their unit rows: the largest, the mean."""
    apart = np.linalg.norm(_unit(ours) - _unit(theirs), axis=1)
    if not np.isfinite(apart).all():
        return {"largest": float("inf"), "mean": float("inf")}
    return {"largest": float(apart.max(initial=0)), "mean": float(apart.mean())}


def drawn_pictures(size: tuple[int, int], count: int = 4, seed: int = 0) -> Pictures:
    """Pictures of all kinds of frequencies, (H, W, 3) uint8: where no photos are at hand."""
    rng = np.random.default_rng(seed)
    height, width = size
    made = []
    for number in range(count):
        cells = 2 ** (number + 2)
        coarse = rng.integers(0, 256, (cells, cells, 3))
        rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
        picture = coarse[rows][:, columns] + rng.normal(0, 8, (height, width, 3))
        made.append(np.clip(picture, 0, 255).astype(np.uint8))
    return made


def other_size(size: tuple[int, int]) -> tuple[int, int]:
    """A size to see whether a graph for any size is one; of whole patches where `size` is."""
    return size[0] + 32, size[1] + 64


def rates(embedder: Embedder, session: InferenceSession, form: Form) -> dict[str, float]:
    """Seconds an image takes by either on this machine now: the better of two tries each."""
    pictures = np.stack(drawn_pictures(embedder.preprocess.size, 8))
    tensors = torch.cat([_tensor(embedder, one) for one in pictures])
    name, given = session.get_inputs()[0].name, as_input(embedder, form, pictures)
    tries: dict[str, list[float]] = {"torch": [], "onnx": []}
    for _ in range(2):
        begin = time.perf_counter()
        embedder.embed_tensor(tensors, flip=form.flip, scales=form.scales)
        middle = time.perf_counter()
        session.run(None, {name: given})
        tries["torch"].append(middle - begin)
        tries["onnx"].append(time.perf_counter() - middle)
    return {name: min(each) / len(pictures) for name, each in tries.items()}


def _tensor(embedder: Embedder, picture: NDArray[np.uint8]) -> torch.Tensor:
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    return embedder.preprocess.normalise(pixels)[None]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    out: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return out
