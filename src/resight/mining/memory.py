"""The memory of InsCLR: two vectors an image, on disk, in a random order of the images.

augmented.npy, plain.npy   (N, D) float16, unit length: of the augmented image, for the loss, and
                           of the image as it is, for similarities
filled.npy                 (N,) uint8: 1 where `augmented` holds something, 2 where `plain` does
sums.npy                   (N, 2) uint32: checksums of the two, compared when going back
slots.npy                  (N,) int32: the slot of each row of the image set
journal-...                what slots held at a checkpoint (journal.py)

The order is drawn once. So the images of consecutive slots are a random sample, and the vectors of
100,000 random negatives lie in one piece: none is gathered, none is copied. The files are mapped
into memory: what is in use stays in the page cache, which the system can take back any time.
Source: Deng et al., "InsCLR: Improving Instance Retrieval with Self-Supervision", AAAI 2022.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from resight.errors import UserError
from resight.mining.journal import Journal, begin, names, remove
from resight.mining.memory_files import VECTORS, check, make, open_sums, sums_of
from resight.mining.relations import Lists

Kind = Literal["augmented", "plain"]
Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
BITS: dict[Kind, int] = {"augmented": 1, "plain": 2}
_SUMMED = 8192  # slots verified at once


class Window(NamedTuple):
    """Consecutive slots: vectors (c, D) float16 of `augmented`, not copied, zeros where none was
    written; the rows (c,) int64 whose they are; filled (c,) bool: where one was written."""

    vectors: NDArray[np.float16]
    rows: NDArray[np.int64]
    filled: NDArray[np.bool_]


class MemoryBank:
    """Vectors of N images in D dimensions; made by `create`, found again by `open`.

    `slots` (N,) int32: the slot of each row; `rows` (N,) int32: the row in each slot.
    """

    def __init__(self, folder: Path):
        """Open `folder`, which must be whole: `open` checks it."""
        self.folder = folder
        self._vectors: dict[Kind, NDArray[np.float16]] = {
            kind: np.load(folder / f"{kind}.npy", mmap_mode="r+") for kind in BITS
        }
        self._bits: NDArray[np.uint8] = np.load(folder / "filled.npy", mmap_mode="r+")
        self._sums = open_sums(folder, "r+")
        self.slots: NDArray[np.int32] = np.load(folder / "slots.npy")
        self.rows = np.empty_like(self.slots)
        self.rows[self.slots] = np.arange(len(self.slots), dtype=np.int32)
        # Single rows are read from `plain`: the system need not fetch what stands around them.
        held = getattr(self._vectors["plain"], "base", None)
        if isinstance(held, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
            held.madvise(mmap.MADV_RANDOM)
        self._journal: Journal | None = None
        self._record = np.dtype(
            [
                ("slot", "<i8"),
                ("filled", "u1"),
                ("augmented", "<f2", (self.dim,)),
                ("plain", "<f2", (self.dim,)),
            ]
        )

    @classmethod
    def create(cls, folder: str | Path, count: int, dim: int, seed: int) -> Self:
        """An empty memory of `count` images in `dim` dimensions; `seed` gives their order.

        The space on the disk, 4 bytes × count × dim, is taken at once. Raises UserError when
        `folder` holds something, OSError when the disk has no room.
        """
        make(Path(folder), count, dim, seed)
        return cls(Path(folder))

    @classmethod
    def open(cls, folder: str | Path, count: int | None = None, dim: int | None = None) -> Self:
        """A memory made earlier.

        Raises UserError when there is none, it is damaged, or it isn't of `count` images in `dim`
        dimensions (None: any).
        """
        check(Path(folder), count, dim)
        return cls(Path(folder))

    @property
    def dim(self) -> int:
        """D."""
        return int(self._vectors["plain"].shape[1])

    def __len__(self) -> int:
        return len(self.slots)

    def filled(self, rows: Ints, kind: Kind | None = None) -> NDArray[np.bool_]:
        """Which rows (n,) hold a vector of that kind (None: of both) -> (n,) bool."""
        bits = BITS[kind] if kind else sum(BITS.values())
        return np.asarray(self._bits[self._slots(rows)] & bits == bits)

    def read(self, rows: Ints, kind: Kind) -> NDArray[np.float32]:
        """Vectors of rows (n,) -> (n, D) float32; zeros where none was written."""
        # By torch: numpy takes ten times as long for float16.
        wide: NDArray[np.float32] = torch.from_numpy(self.halves(rows, kind)).float().numpy()
        return wide

    def vectors(self, kind: Kind) -> NDArray[np.float16]:
        """All of them, (N, D) float16 in the order of `slots`, not copied; zeros where none is."""
        return np.asarray(self._vectors[kind])

    def halves(self, rows: Ints, kind: Kind) -> NDArray[np.float16]:
        """The same as they are kept, (n, D) float16, copied."""
        slots = self._slots(rows)
        vectors: NDArray[np.float16] = np.asarray(self._vectors[kind])[slots]
        vectors[self._bits[slots] & BITS[kind] == 0] = 0
        return vectors

    def write(
        self, rows: Ints, augmented: Floats | None = None, plain: Floats | None = None
    ) -> None:
        """Keep vectors (n, D) float of rows (n,), brought to unit length, as float16.

        Of a row that comes twice the last is kept. A vector without a direction, zero or not
        finite, isn't written: its slot keeps what it had.
        """
        slots = self._slots(rows)
        new: list[tuple[Kind, NDArray[np.int64], NDArray[np.float16]]] = []
        given: list[tuple[Kind, Floats | None]] = [("augmented", augmented), ("plain", plain)]
        for kind, vectors in given:
            if vectors is None:
                continue
            if vectors.shape != (len(slots), self.dim):
                raise ValueError(f"{len(slots)} rows × {self.dim}, but vectors {vectors.shape}")
            units, usable = _units(vectors)
            last = _last(slots[usable])
            new.append((kind, slots[usable][last], units[usable][last]))
        self._note(np.unique(np.concatenate([some for _, some, _ in new] or [slots[:0]])))
        for kind, some, units in new:
            self._vectors[kind][some] = units
            self._bits[some] |= BITS[kind]
            self._sum_up(kind, some, units)

    def window(self, start: int, count: int) -> list[Window]:
        """`count` slots (at most all) from slot `start` on; after the last comes the first.

        In one piece or, where it goes round, two.
        """
        start, count = start % len(self), max(0, min(count, len(self)))
        ends = [(start, min(start + count, len(self))), (0, start + count - len(self))]
        return [
            Window(
                np.asarray(self._vectors["augmented"][first:last]),
                self.rows[first:last].astype(np.int64),
                np.asarray(self._bits[first:last] & BITS["augmented"] != 0),
            )
            for first, last in ends
            if last > first
        ]

    def excluded(
        self, window: Sequence[Window], lists: Iterable[Lists]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the rows of some lists stand in a window, for `memory_contrastive`.

        -> image (E,) and column (E,) int64 on the CPU: the image of the list, the place of the row
        in the window's pieces laid end to end; pairs outside the window are left out.
        """
        count = sum(len(piece.rows) for piece in window)
        images, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        if count:
            start = int(self.slots[window[0].rows[0]])
            for some in lists:
                image = np.repeat(np.arange(len(some.start) - 1), np.diff(some.start))
                column = (self._slots(some.rows) - start) % len(self)
                images.append(image[column < count])
                columns.append(column[column < count])
        return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(columns))

    def checkpoint(self) -> str:
        """Remember the state of now -> its name, for `restore`.

        From here on what is overwritten is kept beside, at most once a slot. Write the name into
        the checkpoint's file; with that in place call `kept`.
        """
        name = begin(self.folder)
        self._journal = None
        return name

    def kept(self, name: str) -> None:
        """The checkpoint `name` is safely in place: earlier ones are needed no more."""
        there = self._names_from(name)
        for other in names(self.folder):
            if other not in there:
                remove(self.folder, other)

    def restore(self, name: str) -> None:
        """Go back to the checkpoint `name`, to the last bit; later checkpoints are gone.

        May be killed and made again. Raises UserError when the memory can't go back to it, or
        vectors are not what was written.
        """
        # The newest first. Each goes when its slots are as they were at its checkpoint, which is
        # where the one before it starts from.
        for other in reversed(self._names_from(name)):
            for part in self._opened(other).parts():
                for kind in BITS:
                    self._vectors[kind][part["slot"]] = part[kind]
                    self._sum_up(kind, part["slot"], part[kind])
                self._bits[part["slot"]] = part["filled"]
            if other != name:
                remove(self.folder, other)
        # It stays as it is: its slots need not be written down again.
        self._journal = None
        self._verify()

    def _sum_up(self, kind: Kind, slots: NDArray[np.int64], units: NDArray[np.float16]) -> None:
        if self._sums is not None:
            self._sums[slots, VECTORS.index(kind)] = sums_of(units)

    def _verify(self) -> None:
        """Raise UserError when a vector is not what its checksum says."""
        if self._sums is None:
            return
        for start in range(0, len(self), _SUMMED):
            part = slice(start, start + _SUMMED)
            for kind in BITS:
                found = sums_of(np.asarray(self._vectors[kind][part]))
                wrong = (found != self._sums[part, VECTORS.index(kind)]) & (
                    self._bits[part] & BITS[kind] != 0
                )
                if wrong.any():
                    raise UserError(
                        f"{self.folder / kind}.npy: damaged, not what was written (slot "
                        f"{start + int(wrong.argmax()):,}); delete the folder "
                        f"{self.folder.parent} and resume the run"
                    )

    def _note(self, slots: NDArray[np.int64]) -> None:
        """Write down what slots hold before they are overwritten, if a checkpoint needs it."""
        if self._journal is None:
            there = names(self.folder)
            if not there:
                return
            self._journal = self._opened(there[-1])
        slots = self._journal.lacks(slots)
        if not len(slots):
            return
        records = np.empty(len(slots), self._record)
        records["slot"], records["filled"] = slots, self._bits[slots]
        for kind in BITS:
            records[kind] = self._vectors[kind][slots]
        self._journal.append(records)

    def _opened(self, name: str) -> Journal:
        return Journal(self.folder, name, self._record, len(self))

    def _names_from(self, name: str) -> list[str]:
        """Checkpoint `name` and the later ones."""
        there = names(self.folder)
        if name not in there:
            raise UserError(
                f"{self.folder}: this memory can't go back to checkpoint {name}; it belongs to "
                "another run, or files were deleted; start the run anew"
            )
        return there[there.index(name) :]

    def _slots(self, rows: Ints) -> NDArray[np.int64]:
        rows = np.asarray(rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        return self.slots[rows.astype(np.int64, copy=False)].astype(np.int64)


def _units(vectors: Floats) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Rows (n, D) at unit length, float16, and which of them have a direction, (n,) bool."""
    wide = np.asarray(vectors, dtype=np.float32)
    largest = np.abs(wide).max(axis=1, keepdims=True, initial=0)
    usable = np.isfinite(largest) & (largest >= 1e-12)
    # Divided by the largest value first: then no square leaves the range of the type.
    scaled = np.where(usable, wide, 1) / np.where(usable, largest, 1)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled.astype(np.float16), usable[:, 0]


def _last(slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each different slot of (n,) stands for the last time."""
    _, first = np.unique(slots[::-1], return_index=True)
    return len(slots) - 1 - first
