"""Export an embedder, and measure that the file does what the embedder does, before it is kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resight.data.imageset import ImageSet
from resight.data.pixels import Pixels
from resight.errors import UserError
from resight.files import check_folder, fresh_folder, write_bytes, write_json, write_text
from resight.provenance import versions

if TYPE_CHECKING:
    from resight.models.embedder import Embedder
    from resight.models.export.graph import Form

DTYPES = ("float32", "float16", "int8")
# Of unit vectors: the largest difference that is accepted. Of int8 the mean one, and only where no
# mAP can be compared: what it shifts for all vectors alike harms no search.
BOUNDS = {"float32": 1e-4, "float16": 2e-2, "int8": 0.3}
LOSS = 0.02  # of mAP, that is accepted
MOST = 1000  # images that are compared
_BATCH = 16
Progress = Callable[[int, int], None]


def export_embedder(
    embedder: Embedder,
    out: str | Path,
    images: ImageSet | None = None,
    *,
    dtype: str = "float32",
    normalise: bool = False,
    dynamic: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    bound: float | None = None,
    workers: int | None = None,
    force: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Write an embedder as model.onnx, export.json and README.md; the JSON's content.

    dtype: float32, float16 (the backbone) or int8 (calibrated on `images`). normalise: inside the
    graph, which takes uint8 (N, H, W, 3) then, else normalised float32 (N, 3, H, W). dynamic: any
    H and W. images: what the file is compared on, at most 1,000 of them; with objects by mAP too;
    without images, drawn pictures. bound: the largest difference of unit vectors that is accepted
    (of int8 the mean one).

    Raises UserError: nothing is written when the file differs by more, or can't be made.
    """
    from resight.models.export.describe import CARD, FILE, RECORD, described, page
    from resight.models.export.graph import Form, write_graph
    from resight.models.export.session import start

    out = Path(out)
    if dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: choose float32, float16 or int8")
    if dtype == "int8" and images is None:
        raise UserError("--dtype int8: IMAGES is missing: those that its ranges are seen on")
    check_folder(out, "an exported embedder", mark=RECORD, force=force)
    dynamic = dynamic or embedder.preprocess.resize == "fit"
    form = Form(normalise, dynamic, dtype == "float16", flip, tuple(scales))
    chosen = _chosen(images) if images is not None else None
    pictures = _pictures(embedder, chosen, workers)
    graph = write_graph(embedder, form)
    if dtype == "int8":
        graph = _quantised(embedder, graph, form, pictures)
    session = start(graph)
    if dynamic:
        _require_any_size(embedder, session, form)
    parity = _parity(embedder, session, form, pictures, chosen, progress)
    parity["bound"] = BOUNDS[dtype] if bound is None else bound
    _require_near(parity, dtype, bound is not None)
    record = {"format": 1, "backbone": embedder.config.backbone} | described(embedder, form, dtype)
    record |= {"sha256": hashlib.sha256(graph).hexdigest(), "bytes": len(graph)}
    record |= {"embedder": embedder.fingerprint(), "parity": parity, "versions": versions()}
    fresh_folder(out, "an exported embedder", mark=RECORD, force=force)
    write_bytes(out / FILE, graph)
    write_text(out / CARD, page(record))
    write_json(out / RECORD, record)  # last: it says that all is there
    return record


def _chosen(images: ImageSet) -> ImageSet:
    """At most `MOST` rows, those of some objects whole; of the test rows, where there are any."""
    rows = np.arange(len(images))
    if (images.table["split"] == "test").any():
        rows = np.flatnonzero((images.table["split"] == "test").to_numpy())
    if len(rows) <= MOST:
        return images.rows(rows.tolist())
    names = images.table["object"].to_list()
    if not images.has("object"):
        return images.rows(rows[np.linspace(0, len(rows) - 1, MOST).astype(int)].tolist())
    groups: dict[Any, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(names[row], []).append(row)
    order = np.random.default_rng(0).permutation(len(groups))
    keys = list(groups)
    taken: list[int] = []
    for at in order.tolist():
        if len(taken) + len(groups[keys[at]]) <= MOST:
            taken += groups[keys[at]]
    return images.rows(sorted(taken or rows[:MOST].tolist()))


def _pictures(
    embedder: Embedder, images: ImageSet | None, workers: int | None
) -> list[NDArray[np.uint8] | None]:
    """Pictures (H, W, 3) at their final size: of the images, None where one is bad; or drawn."""
    from resight.models.export.parity import drawn_pictures

    if images is None:
        return list(drawn_pictures(embedder.preprocess.size, 8))
    found: list[NDArray[np.uint8] | None] = [None] * len(images)
    batches = [range(at, min(at + 1, len(images))) for at in range(len(images))]
    for batch in Pixels(images, embedder.preprocess).batches(batches, workers):
        for row, picture in zip(batch.rows.tolist(), batch.images, strict=True):
            found[row] = picture
    if not any(one is not None for one in found):
        raise UserError(f"{images.source}: none of its {len(images):,} images can be read")
    return found


def _quantised(
    embedder: Embedder, graph: bytes, form: Form, pictures: Sequence[NDArray[np.uint8] | None]
) -> bytes:
    from resight.models.export.graph import INPUT
    from resight.models.export.parity import as_input
    from resight.models.export.quantise import PICTURES, quantised

    good = [one for one in pictures if one is not None]
    spread = np.unique(np.linspace(0, len(good) - 1, PICTURES).astype(int)).tolist()
    return quantised(graph, INPUT, [as_input(embedder, form, good[at][None]) for at in spread])


def _parity(
    embedder: Embedder,
    session: Any,
    form: Form,
    pictures: Sequence[NDArray[np.uint8] | None],
    images: ImageSet | None,
    progress: Progress,
) -> dict[str, Any]:
    from resight.models.export.parity import by_graph, by_torch, differences

    rows = [row for row, one in enumerate(pictures) if one is not None]
    vectors = {k: np.full((len(pictures), embedder.dim), np.nan, np.float32) for k in ("t", "o")}
    for at in range(0, len(rows), _BATCH):
        part = rows[at : at + _BATCH]
        some = [pictures[row] for row in part]
        vectors["o"][part] = by_graph(embedder, session, form, some)  # type: ignore[arg-type]
        vectors["t"][part] = by_torch(embedder, some, form.flip, form.scales)  # type: ignore[arg-type]
        progress(at + len(part), len(rows))
    parity: dict[str, Any] = {"images": len(rows)}
    parity["from"] = Path(images.source).name if images is not None else "drawn pictures"
    parity |= differences(vectors["o"][rows], vectors["t"][rows])
    known = images.rows(rows) if images is not None else None
    if known is not None and known.has_matches():
        from resight.evaluate.run import measure

        parity["mAP"] = {
            name: _map(measure(vectors[key][rows], known))
            for name, key in (("onnx", "o"), ("torch", "t"))
        }
    return parity


def _map(scores: Any) -> float:
    return float(scores.mAP)


def _require_any_size(embedder: Embedder, session: Any, form: Form) -> None:
    """Raise UserError when a graph does not do for another size what the embedder does."""
    from resight.models.export.parity import (
        by_graph,
        by_torch,
        differences,
        drawn_pictures,
        other_size,
    )

    pictures = drawn_pictures(other_size(embedder.preprocess.size), 2)
    try:
        ours = by_graph(embedder, session, form, pictures)
        theirs = by_torch(embedder, pictures, form.flip, form.scales)
        if differences(ours, theirs)["largest"] <= BOUNDS["float16"]:
            return
    except Exception:  # each network refuses a size in its own way
        pass
    raise UserError(
        f"--dynamic: a graph of {embedder.config.backbone} takes images of one size only; leave it "
        "out"
    )


def _require_near(parity: dict[str, Any], dtype: str, asked: bool) -> None:
    """Raise UserError when a file must not be kept."""
    loss = parity["mAP"]["torch"] - parity["mAP"]["onnx"] if "mAP" in parity else None
    if loss is not None and not loss <= LOSS:
        raise UserError(
            f"the {dtype} file finds less: mAP {100 * parity['mAP']['onnx']:.1f}, torch "
            f"{100 * parity['mAP']['torch']:.1f}; nothing was written"
        )
    kind = "mean" if dtype == "int8" else "largest"
    if dtype == "int8" and loss is not None and not asked and math.isfinite(parity[kind]):
        return
    if not parity[kind] <= parity["bound"]:
        raise UserError(
            f"the {dtype} file differs from torch by {parity[kind]:.2g} ({kind} difference of unit "
            f"vectors, accepted is {parity['bound']:.2g}; --bound); nothing was written"
        )
