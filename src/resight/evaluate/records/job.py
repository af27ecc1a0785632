"""What an evaluation is asked to measure, as a value that can be stored and done again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.checksums import file_sum
from resight.data.imageset import ImageSet, normalise
from resight.data.places import difference
from resight.data.splits import hold_out_test
from resight.errors import UserError
from resight.evaluate.protocols import Protocol, condition
from resight.features.rows import Rows

if TYPE_CHECKING:
    from resight.features.compute import Progress
    from resight.models.embedder import Embedder


@dataclass(frozen=True)
class Job:
    """Where features come from: a model that embeds, a file, or given similarities.

    model: as `open_embedder` takes it, with weights and size; features: a .npy file or a features
    folder; similarity: a matrix, with the ground truth in the file `truth` or the images' roles.
    `scales`, `batch_size` and `threads` None: as the protocol or the machine has it.
    """

    model: str | None = None
    weights: str | None = None
    size: tuple[int, int] | None = None
    features: str | None = None
    similarity: str | None = None
    truth: str | None = None
    flip: bool = False
    scales: tuple[float, ...] | None = None
    batch_size: int | None = None
    workers: int | None = None
    threads: int | None = None
    strict: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with absolute paths; `from_dict` is the way back."""
        plain = asdict(self)
        for name in ("model", "weights", "features", "truth"):
            if plain[name] is not None and Path(plain[name]).exists():
                plain[name] = str(Path(plain[name]).absolute())
        if self.similarity is not None:
            path, _, key = split_key(self.similarity)
            plain["similarity"] = str(path.absolute()) + (f":{key}" if key else "")
        return plain

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Job:
        """The job of a record. Raises UserError when it isn't one."""
        try:
            lists: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in plain.items()
            }
            return Job(**lists)
        except TypeError:
            raise UserError("the record's job is not one of this version's") from None


@dataclass(frozen=True)
class Measured:
    """Features of the rows of `images`, which of them are usable, and where they came from.

    `origin` holds what identifies them (fingerprints); `job` is what gives them again.
    """

    features: Rows
    images: ImageSet
    valid: NDArray[np.bool_]
    origin: dict[str, Any]
    job: Job


def open_model(
    job: Job, protocols: list[Protocol], tell: Callable[[str], None]
) -> tuple[Embedder, Job, bool]:
    """The embedder, with the size and scales that the protocols ask for; the job made definite.

    The last value says whether images are cut to their boxes. Raises UserError when the protocols
    ask for different things: one set of features serves them all.
    """
    from resight.data.transforms import Preprocess
    from resight.models.open import open_embedder
    from resight.settings import build

    assert job.model is not None
    wishes = {(one.crop, one.size, one.resize, one.scales) for one in protocols}
    if len(wishes) > 1:
        names = ", ".join(one.name for one in protocols)
        raise UserError(f"{names}: images are embedded differently; evaluate one at a time")
    crop, size, resize, scales = wishes.pop() if wishes else ("box", None, None, None)
    embedder = open_embedder(job.model, weights=job.weights, size=job.size, tell=tell)
    wanted: dict[str, Any] = {}
    if size is not None and job.size is None:
        wanted["size"] = (size, size) if isinstance(size, int) else size
    if resize is not None and job.size is None:
        wanted["resize"] = resize
    if wanted:
        values = embedder.preprocess.model_dump() | wanted
        preprocess = build(Preprocess, values, "protocol")
        embedder.config = embedder.config.model_copy(update={"preprocess": preprocess})
        tell("images as the protocol has them: " + ", ".join(f"{k} {v}" for k, v in wanted.items()))
    if job.scales is None and scales is not None:
        job = replace(job, scales=scales)
        tell(f"image scales as the protocol has them: {', '.join(f'{s:.3g}' for s in scales)}")
    return embedder, job, crop == "box"


def embed(
    embedder: Embedder,
    images: ImageSet,
    job: Job,
    *,
    boxes: bool = True,
    besides: frozenset[str] = frozenset(),
    progress: Progress,
) -> Measured:
    """Embed the rows that take part: the test rows where there are any, and those of conditions."""
    import torch

    from resight.features.compute import EmbedOptions, find_batch_size
    from resight.features.write import embed_images

    if (images.table["split"] == "test").any():
        parts = [pl.col("split") == "test", *(condition(c, images.table) for c in besides)]
        images = images.where(pl.any_horizontal(parts).fill_null(False))
    if not boxes and images.has("box"):
        images = replace(images, table=images.table.with_columns(box=pl.lit(None)))
        images = replace(images, table=normalise(images.table))
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    options = EmbedOptions(job.batch_size, job.flip, job.scales or (1.0,), job.workers, job.strict)
    size = options.batch_size or find_batch_size(embedder, options)
    options = replace(options, batch_size=size)
    features = embed_images(embedder, images, options=options, runtime="torch", progress=progress)
    origin = {
        "embedder": embedder.fingerprint(),
        "info": embedder.info,
        "preprocess": embedder.preprocess.model_dump(mode="json"),
        "skipped": features.info["skipped"],
    }
    definite = replace(job, batch_size=size, scales=options.scales, threads=torch.get_num_threads())
    return Measured(features, images, features.valid, origin, definite)


def read_features(job: Job, images: ImageSet | None) -> Measured:
    """Features from a .npy file (N, D), in the order of the rows, or from a features folder.

    Raises UserError: not such a file or folder, or of another shape or type.
    """
    from resight.features.store import Features, is_features

    path = Path(str(job.features))
    if not path.exists():
        raise UserError(f"{path}: not found")
    if is_features(path):
        stored = Features.load(path, check=True)
        if images is not None:
            require_same(stored.images, images, str(path))
        origin = {"features": {"fingerprint": stored.info["key"]}}
        return Measured(stored, images or stored.images, stored.valid, origin, job)
    if path.is_dir():
        raise UserError(f"{path}: not a features folder (made by 'resight embed')")
    if images is None:
        raise UserError(f"{path}: IMAGES is missing: the images of its rows")
    array = load_array(path, str(path))
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path}: an archive; save one array with numpy.save")
    if array.ndim != 2 or array.dtype.kind != "f":
        raise UserError(
            f"{path}: shape {array.shape}, type {array.dtype}; "
            "an (N, D) array of float32 or float16 is needed"
        )
    origin = {"features": {"fingerprint": file_sum(path)}}
    return Measured(array, images, np.ones(len(array), bool), origin, job)


def require_same(stored: ImageSet, images: ImageSet, where: str) -> None:
    """Raise UserError when features of the rows of `stored` are not those of `images`, in order."""
    told = difference(images, stored)
    if told:
        raise UserError(
            f"{where}: features of other images than {images.source}: {told}; "
            "embed these images, or leave them out and the features' own are taken"
        )


def as_trained(embedder: Embedder, images: ImageSet, tell: Callable[[str], None]) -> ImageSet:
    """The set with the split of the embedder's training (or of its fit) on this very set.

    So no training object is among the test objects.
    """
    if images.has("split") or not images.objects():
        return images
    split = hold_out_test(images)
    learned = [embedder.info.get(part, {}).get("fingerprint") for part in ("data", "fit")]
    if split.fingerprint() in learned:
        tell("trained on this set: only the objects that were held out as test are evaluated")
        return split
    return images


def split_key(text: str) -> tuple[Path, str, str]:
    """ "a.npz:name" as path, how messages call it, and name ("" for all)."""
    path, _, key = text.partition(".npz:")
    file = Path(f"{path}.npz" if key else text)
    return file, str(file), key


def load_array(path: Path, where: str) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        first = (str(error).strip().splitlines() or ["unreadable"])[0]
        raise UserError(f"{where}: can't be read as a .npy array ({first})") from None
