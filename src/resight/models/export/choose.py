"""What embeds images for use: torch, or the embedder's graph in ONNX Runtime.

"auto" is the graph on a CPU, torch on a GPU and where there is no graph and none can be made, or
making it pays not. A graph is made once for an embedder and kept (`cache`). Training and all that
belongs to it is torch's, always.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resight.errors import UserError
from resight.files import read_json
from resight.models.config import EmbedderConfig
from resight.models.devices import on_cpu
from resight.models.export import cache
from resight.models.export.session import OnnxEmbedder, start
from resight.models.folders import CONFIG, WEIGHTS, embedder_folder
from resight.settings import build

if TYPE_CHECKING:
    from resight.models.embedder import Embedder

    Network = Embedder | OnnxEmbedder

RUNTIMES = ("auto", "torch", "onnx")
VARIABLE = "RESIGHT_RUNTIME"
BOUND = 1e-4  # by which unit vectors of the two may differ
WORTH = 1000  # images for which a graph is made: that takes as long as it gains with so many
_FEW = 200  # images for which it doesn't matter which is faster
Tell = Callable[[str], None]


def wanted(runtime: str | None) -> str:
    """auto, torch or onnx: what was asked for, else what RESIGHT_RUNTIME says, else auto.

    Raises UserError for anything else.
    """
    asked = runtime or os.environ.get(VARIABLE) or "auto"
    if asked not in RUNTIMES:
        raise UserError(f"--runtime {asked}: choose auto, torch or onnx")
    return asked


def saved_graph(
    folder: Path,
    runtime: str | None = None,
    *,
    images: int | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    device: str | None = None,
) -> OnnxEmbedder | None:
    """A saved embedder by the graph that was made of it before: without torch, in no time.

    None where there is none, or it is not wanted. Raises UserError when `folder` is no embedder.
    """
    asked = wanted(runtime)
    if asked == "torch" or (asked == "auto" and not on_cpu(device)):
        return None
    content = read_json(folder / CONFIG, "an embedder")
    if not isinstance(content, dict) or not isinstance(content.get("fingerprint"), str):
        return None
    variant = _variant(flip, scales)
    kept = cache.find(content["fingerprint"], variant, _places(folder))
    if kept is None or "failed" in kept.record or not (folder / WEIGHTS).is_file():
        return None
    if kept.record.get("config") != content.get("config"):  # changed by hand: torch's affair
        return None
    if asked == "auto" and _slower(kept.record, images):
        return None
    return _opened(kept, folder, content)


def open_for_use(
    model: str,
    *,
    weights: str | None = None,
    size: tuple[int, int] | None = None,
    runtime: str | None = None,
    images: int | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    tell: Tell = lambda line: None,
) -> Network:
    """As `open_embedder`, but of a saved embedder its graph, where there is one: without torch.

    `for_use` is what makes one. Raises UserError as both do.
    """
    wanted(runtime)
    folder = embedder_folder(model)
    if folder is not None and weights is None and size is None:
        found = saved_graph(folder, runtime, images=images, flip=flip, scales=scales)
        if found is not None:
            return found
    from resight.models.open import open_embedder

    return open_embedder(model, weights=weights, size=size, tell=tell)


def for_use(
    embedder: Network,
    runtime: str | None = None,
    *,
    images: int | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    home: Path | None = None,
    tell: Tell = lambda line: None,
) -> Network:
    """What to embed with: the embedder itself, or its graph, made now if need be.

    `images`: how many there are, None for many to come. `home`: a folder that holds this embedder,
    where its graph belongs; by default where it was read from.

    Raises UserError when "onnx" is asked for and can't be.
    """
    asked = wanted(runtime)
    if isinstance(embedder, OnnxEmbedder):
        if asked != "torch" or embedder.folder is None:
            return embedder
        from resight.models.embedder import Embedder

        return Embedder.load(embedder.folder)
    if asked == "torch" or (asked == "auto" and embedder.device.type != "cpu"):
        return embedder
    fingerprint, variant = embedder.fingerprint(), _variant(flip, scales)
    own = _is_of(embedder.folder, fingerprint)
    folder = home or own
    places = [*_places(folder), *(_places(own) if own != folder else [])]
    kept = cache.find(fingerprint, variant, places)
    if kept is None:
        if asked == "auto" and images is not None and images < WORTH:
            return embedder
        kept = _made(embedder, fingerprint, variant, flip, scales, places)
    if "failed" in kept.record:
        if asked == "onnx":
            raise UserError(str(kept.record["failed"]))
        tell(f"{kept.record['failed']}; embedded by torch")
        return embedder
    if asked == "auto" and _slower(kept.record, images):
        return embedder
    info = {"config": kept.record["config"], "info": embedder.info}
    return _opened(kept, folder, info)


def _made(
    embedder: Embedder,
    fingerprint: str,
    variant: str,
    flip: bool,
    scales: Sequence[float],
    places: list[Path],
) -> cache.Kept:
    """The graph, written, compared and kept; or why there is none, which is kept as well."""
    import json

    from resight.models.export.graph import Form, write_graph
    from resight.models.export.parity import (
        by_graph,
        by_torch,
        differences,
        drawn_pictures,
        other_size,
        rates,
    )

    dynamic = embedder.preprocess.resize == "fit"
    form = Form(dynamic=dynamic, flip=flip, scales=tuple(scales))
    about: dict[str, Any] = {"config": json.loads(embedder.config.written()), "dim": embedder.dim}
    try:
        graph = write_graph(embedder, form)
        session = start(graph)
        pictures = drawn_pictures(embedder.preprocess.size)
        if dynamic:
            pictures = [*pictures, *drawn_pictures(other_size(embedder.preprocess.size), 1)]
        ours = by_graph(embedder, session, form, pictures)
        about["parity"] = differences(ours, by_torch(embedder, pictures, flip, scales))
        if not about["parity"]["largest"] <= BOUND:
            apart = about["parity"]["largest"]
            raise UserError(f"its ONNX graph differs from torch by {apart:.2g} on unit vectors")
        about["seconds"] = rates(embedder, session, form)
    except Exception as error:  # whatever it is, torch can do without
        graph, about["failed"] = b"", " ".join(str(error).split())[:300]
    return cache.keep(fingerprint, variant, graph, about, places)


def _opened(kept: cache.Kept, folder: Path | None, content: dict[str, Any]) -> OnnxEmbedder:
    record = kept.record
    return OnnxEmbedder(
        start(kept.graph),
        build(EmbedderConfig, content["config"], str(kept.path)),
        str(record["fingerprint"]),
        int(record["dim"]),
        folder,
        content.get("info", {}),
    )


def carry(
    embedder: Network, folder: Path, *, flip: bool = False, scales: Sequence[float] = (1.0,)
) -> None:
    """Bring the graph of an embedder, if it has one, to a folder where it was saved too."""
    if _is_of(folder, fingerprint := embedder.fingerprint()):
        cache.find(fingerprint, _variant(flip, scales), _places(folder) + _places(embedder.folder))


def _places(folder: Path | None) -> list[Path]:
    """Where a graph may lie, the best place first. What the hub's cache holds stays as it is."""
    if folder is None or any(part.startswith("models--") for part in folder.parts):
        return [cache.user_folder()]
    return [cache.beside(folder), cache.user_folder()]


def _is_of(folder: Path | None, fingerprint: str) -> Path | None:
    """The folder, if the embedder that is saved in it is the one with this fingerprint."""
    if folder is None or not (folder / CONFIG).is_file():
        return None
    content = read_json(folder / CONFIG, "an embedder")
    same = isinstance(content, dict) and content.get("fingerprint") == fingerprint
    return folder if same else None


def _variant(flip: bool, scales: Sequence[float]) -> str:
    words = ["flip"] * flip
    if tuple(scales) != (1.0,):
        words += ["scales", *(f"{scale:.4g}" for scale in scales)]
    return "-".join(words) or "plain"


def _slower(record: dict[str, Any], images: int | None) -> bool:
    """Whether torch was measured to be faster, and there are enough images for that to matter."""
    seconds = record.get("seconds") or {}
    if images is not None and images < _FEW:
        return False
    return bool(seconds) and 1.1 * float(seconds["torch"]) < float(seconds["onnx"])


__all__ = ["BOUND", "RUNTIMES", "carry", "for_use", "open_for_use", "saved_graph", "wanted"]
