"""What a gallery asks of the engine that keeps it: the contract, in one file.

An engine keeps rows (one an image, with its vector), the sums of the objects, what was left out,
roots and settings. It knows nothing of embedders, of what counts as the same image, or of how
centroids follow from sums: that is the gallery's, and is the same whichever engine keeps it.

Every write raises the version by one, and a row knows the version at which it last changed; so a
reader brings itself up to date by what changed. What `writing` has left without an error is
durable, all of it or nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Box = tuple[float, float, float, float]
Blob = bytes  # a field is called bytes, too


class Place(NamedTuple):
    """Where an image is: a root, the path below it with "/" between, and a part of the picture."""

    root: int
    path: str
    box: Box | None = None


@dataclass(frozen=True)
class Row:
    """An image of the gallery. `id` 0: not kept yet.

    `object` is what it is of; `given` what its source last said it was, which differs where a
    person has moved it. `content` is the SHA-256 (hex) of the file, `bytes` and `mtime` (ns) its
    state when it was read, `width` and `height` those of the upright picture: None where there
    was no file. `columns` are the user's own. `vector` (D,) float32 is un-normalised; it and
    `thumbnail` (JPEG) are None where they were not asked for.
    """

    id: int = 0
    place: Place | None = None
    object: str | None = None
    given: str | None = None
    camera: str | None = None
    split: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    content: str | None = None
    bytes: int | None = None
    mtime: int | None = None
    width: int | None = None
    height: int | None = None
    object_id: int = 0
    vector: Vectors | None = None
    thumbnail: Blob | None = None


@dataclass(frozen=True)
class Sum:
    """Of the images of an object that a camera took: how many, their sum, their squares' sum.

    `total` (D,) float64; `squares` is the sum of squared lengths. Camera "" is unknown.
    """

    object: str
    camera: str
    count: int
    total: NDArray[np.float64]
    squares: float
    object_id: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A file that was looked at and not taken: the reason, and the image that it is a copy of."""

    place: Place
    bytes: int | None
    mtime: int | None
    content: str | None
    reason: str
    of: int | None = None


@dataclass(frozen=True)
class Root:
    """A folder that paths are relative to, by name, so that it can move."""

    id: int
    name: str
    path: str


@dataclass(frozen=True)
class Near:
    """For one query: keys, objects (0: unknown) and similarities, best first, ties by key."""

    keys: NDArray[np.int64]
    groups: NDArray[np.int64]
    similarities: NDArray[np.float64]


@dataclass(frozen=True)
class Changes:
    """What differs from an earlier version: ids of images and of objects, gone ones included."""

    version: int
    images: list[int]
    objects: list[int]


class Writer(Protocol):
    """The one who writes, inside `Engine.writing`, where no one else does.

    Read before you write: whether the engine's reads see what was written here before the end of
    the transaction differs between engines.
    """

    def put(self, rows: Sequence[Row]) -> list[int]:
        """Keep rows: new ones (id 0) or in place of those with their ids; returns the ids.

        A row without vector or thumbnail leaves those that are there.
        """

    def delete(self, ids: Sequence[int]) -> None:
        """Forget images, with vectors and thumbnails."""

    def set_sums(self, sums: Sequence[Sum]) -> None:
        """Replace these sums; a count of 0 removes one, and an object without any vanishes."""

    def leave_out(self, entries: Sequence[LeftOut]) -> None:
        """Remember what was not taken, by place."""

    def take_back(self, places: Sequence[Place]) -> None:
        """Forget that these places were left out."""

    def add_root(self, name: str, path: str) -> Root:
        """A new root."""

    def move_root(self, root: int, path: str) -> None:
        """Give a root another folder."""

    def set_meta(self, **values: Any) -> None:
        """Settings that JSON can hold; None removes one."""


class Engine(Protocol):
    """Keeps one gallery. Raises UserError where the disk, the server or another writer is in
    the way, and where what it keeps is damaged."""

    name: str  # where it is, as the user gave it

    def writing(self, who: str) -> AbstractContextManager[Writer]:
        """A transaction. Waits for another writer, and says whom it waits for."""

    def meta(self) -> dict[str, Any]:
        """The settings."""

    def version(self) -> int:
        """Raised by every write, also by other processes."""

    def changes(self, since: int) -> Changes | None:
        """What changed after a version; None where that is too long ago to be known."""

    def counts(self) -> tuple[int, int]:
        """Images, and objects."""

    def ids(self, after: int = 0, limit: int | None = None) -> list[int]:
        """Ids of images, rising."""

    def rows(self, ids: Sequence[int], *, thumbnails: bool = False) -> list[Row]:
        """Rows by id, in this order, without vectors; those that are gone are left out."""

    def vectors(self, ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64], Vectors]:
        """Of the images that are there: ids (n,) rising, object ids (n,; 0: unknown), (n, D)."""

    def every_vector(
        self, block: int = 8192
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Vectors]]:
        """The same of all images, block by block, ids rising."""

    def sums(self, objects: Collection[str] | None = None) -> list[Sum]:
        """The sums of these objects (None: all), by object id and camera."""

    def sums_by_id(self, objects: Sequence[int]) -> list[Sum]:
        """The same, by object id."""

    def object_names(self, ids: Collection[int]) -> dict[int, str]:
        """Names by object id."""

    def objects(self, like: str = "", offset: int = 0, limit: int = 100) -> list[tuple[str, int]]:
        """Objects whose name contains `like` (A to Z as a to z), by name, with their images."""

    def images_of(self, object: str) -> list[int]:
        """Ids of an object's images, rising."""

    def first_images(self, objects: Collection[int]) -> dict[int, int]:
        """The lowest image id of each of these objects, by object id."""

    def covers(self, objects: Collection[str]) -> dict[str, int]:
        """The lowest image id of each of these objects that is there, by name."""

    def images_at(self, root: int, path: str) -> list[int]:
        """Ids of the images of one file, whatever part of the picture, rising."""

    def known(self, places: Sequence[Place]) -> dict[Place, Row]:
        """Those of these places where an image is kept."""

    def by_content(self, contents: Sequence[str]) -> list[Row]:
        """Rows whose file had one of these contents."""

    def sizes(self, among: Collection[int]) -> set[int]:
        """Those of some sizes in bytes that a file of the gallery has."""

    def left_out(self, places: Sequence[Place]) -> dict[Place, LeftOut]:
        """Those of these places that were looked at and not taken."""

    def every_left_out(self) -> Iterator[LeftOut]:
        """All that was looked at and not taken, by root, path and box."""

    def roots(self) -> list[Root]:
        """All roots."""

    def table(self, columns: Collection[str]) -> dict[str, list[Any]]:
        """Columns of all images, ids rising: id, and those asked for.

        object, object_id (0: unknown), path, camera, split, bytes, width and height are always
        there; others are the user's own, absent where no image has them.
        """

    def thumbnail(self, id: int) -> bytes | None:
        """The small picture of an image, where there is one."""

    def close(self) -> None:
        """Let go of files and connections."""
