"""Features on disk: shards of un-normalised vectors beside their image set, memory-mapped.

features.json        what made them: embedder, options, dimensions, checksums, and whether all is
                     there
images.parquet       the image set, in the order of the rows
shard-00000.npy ...  (rows, D) float32 or float16; NaN in the rows of unusable images
shard-00000.json     present where a shard has such rows: which, and why
embedder/            a copy of the embedder
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from resight.checksums import sums_in, verify
from resight.data.imageset import ImageSet, layout_of, normalise
from resight.data.places import with_moved
from resight.errors import UserError
from resight.files import read_json

RECORD, IMAGES, EMBEDDER = "features.json", "images.parquet", "embedder"
AGAIN = "run the same 'resight embed' again"
Rows = slice | Sequence[int] | NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Features:
    """(N, D) un-normalised vectors of the N rows of `images`, in one or many shards.

    Index with a slice or an array of rows to get an ndarray; only what is asked for is read.
    `valid` (N,) bool is False where the image could not be used.
    """

    images: ImageSet
    shards: tuple[NDArray[Any], ...]
    valid: NDArray[np.bool_]
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return (len(self.images), int(self.shards[0].shape[1]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float16."""
        return self.shards[0].dtype

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Rows) -> NDArray[Any]:
        per_shard = len(self.shards[0])
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._range(start, max(start, stop))
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        if rows.dtype == np.bool_:
            if rows.shape != (len(self),):
                raise IndexError(f"a mask of shape {rows.shape} for {len(self)} rows")
            rows = np.flatnonzero(rows)
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        rows = rows % len(self)  # negative ones count from the end
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        shard_of = rows // per_shard
        for shard in np.unique(shard_of):
            here = shard_of == shard
            out[here] = self.shards[shard][rows[here] - shard * per_shard]
        return out

    def _range(self, start: int, stop: int) -> NDArray[Any]:
        per_shard = len(self.shards[0])
        first, last = start // per_shard, (max(stop, start + 1) - 1) // per_shard
        if first == last or stop <= start:
            return self.shards[min(first, len(self.shards) - 1)][
                start - first * per_shard : stop - first * per_shard
            ]
        parts = [
            self.shards[k][max(0, start - k * per_shard) : stop - k * per_shard]
            for k in range(first, last + 1)
        ]
        return np.concatenate(parts)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self._range(0, len(self))
        return np.array(whole, dtype=dtype, copy=copy)

    def rows(self, rows: Sequence[int] | pl.Series) -> Features:
        """The features of these rows, in memory."""
        index = np.asarray(rows)
        return Features(self.images.rows(rows), (self[index],), self.valid[index], self.info)

    @classmethod
    def load(cls, folder: str | Path, *, check: bool = False) -> Features:
        """Open a features folder; the vectors stay on disk until they are asked for.

        The photos need no longer be there. `check`: read every shard and compare its checksum,
        for whoever goes on to read them all; without it only sizes and types are looked at.

        Raises UserError when the folder holds no features, they are not finished, or a file is
        damaged.
        """
        folder = Path(folder)
        info = read_record(folder)
        if not info.get("complete"):
            raise UserError(f"{folder}: not finished; {AGAIN}")
        images = read_images(folder, info)
        shards, bad = [], []
        for number in range(info["shards"]):
            shards.append(open_shard(folder, number, info, len(images)))
            bad += [entry["row"] for entry in read_skipped(folder, number)]
        if check:
            verify(folder, shard_sums(info, range(info["shards"])), AGAIN)
        valid = np.ones(len(images), bool)
        valid[bad] = False
        return cls(images, tuple(shards), valid, info)


def is_features(path: str | Path) -> bool:
    """Whether `path` is a features folder."""
    return (Path(path) / RECORD).is_file()


def read_record(folder: Path) -> dict[str, Any]:
    """What made the features. Raises UserError when it is absent or damaged."""
    record = read_json(folder / RECORD, "a features folder")
    if not isinstance(record, dict) or not {"key", "shards", "shard_rows", "dim"} <= record.keys():
        raise UserError(f"{folder / RECORD}: damaged; make the features anew (--force)")
    return record


def shard_sums(info: dict[str, Any], numbers: Iterable[int]) -> dict[str, str]:
    """The recorded checksums of these shards, by file name."""
    return sums_in(info, map(shard_name, numbers))


def read_images(folder: Path, info: dict[str, Any]) -> ImageSet:
    """The image set that `embed_images` wrote. Raises UserError when it is absent or damaged."""
    path = folder / IMAGES
    if path.is_file():
        remedy = f"{AGAIN}, or give evaluate a table of your own beside them"
        verify(path.parent, sums_in(info, [IMAGES]), remedy)
    try:
        table = normalise(with_moved(pl.read_parquet(path, glob=False), path))
        return ImageSet(table, path.parent, str(path), layout=layout_of(path))
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"{path}: damaged ({reason}); make the features anew (--force)") from None


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:05d}.npy"


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / shard_name(number)


def open_shard(folder: Path, number: int, info: dict[str, Any], images: int) -> NDArray[Any]:
    """A shard of the features of so many images, memory-mapped.

    Raises UserError when it is absent, or not of the size and type that `info` says.
    """
    path = shard_path(folder, number)
    try:
        shard: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: this shard is gone; {AGAIN}") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: damaged shard ({error}); {AGAIN}") from None
    rows = min(info["shard_rows"], images - number * info["shard_rows"])
    kind = info["key"].get("dtype", shard.dtype.name)
    bytes_ = path.stat().st_size
    if (
        shard.shape != (rows, info["dim"])
        or shard.dtype.name != kind
        or (isinstance(shard, np.memmap) and bytes_ != shard.offset + shard.nbytes)
    ):
        raise UserError(f"{path}: of another size or type; {AGAIN}")
    return shard


def read_skipped(folder: Path, number: int) -> list[dict[str, Any]]:
    """The rows of a shard whose images could not be used: row, path, reason."""
    path = shard_path(folder, number).with_suffix(".json")
    return list(read_json(path, "a list of skipped images")) if path.is_file() else []
