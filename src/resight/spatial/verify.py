"""Spatial verification of pairs of an image set, each compared once and remembered."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.data.decode import BadImage
from resight.data.imageset import ImageSet, normalise
from resight.errors import UserError
from resight.spatial import store
from resight.spatial.local import LocalFeatures, SpatialOptions
from resight.spatial.work import Comparing, Reading, compare, cores, processes, read

Ints = NDArray[np.int64]
Progress = Callable[[int, int], None]
_VERSION = 1  # grows when the same pictures and options give other features or counts
_PIECE = 512  # pictures written at once: what is lost at most when the process is killed
_PAIRS = 4096  # likewise pairs
_READING, _COMPARING = 8, 64  # pictures and pairs a task
_FEW = 32, 256  # pictures and pairs below which starting processes takes longer than it saves
_WHAT = ("detector", "weights", "side", "points")  # the options that features depend on
_HOW = ("ratio", "tolerance", "iterations")  # and the counts besides


@dataclass
class Spent:
    """What a verifier did so far, and how long it took; what was cached is not in it."""

    images: int = 0
    image_seconds: float = 0.0
    pairs: int = 0
    pair_seconds: float = 0.0


class Verifier:
    """Counts inliers between pictures of an image set; their features are read when needed.

    `cache` keeps features and counts: an interrupted call goes on where it stopped, a second one
    reads and compares nothing. It is kept apart by options and by the pictures (their labels don't
    matter). Without it they live in a temporary folder as long as the verifier: 140 KB a picture
    of 1,000 keypoints. `workers`: processes, by default one a core; no count depends on it.
    """

    def __init__(
        self,
        images: ImageSet,
        options: SpatialOptions | None = None,
        cache: Path | None = None,
        workers: int | None = None,
    ):
        self.options = options = options or SpatialOptions()
        self.spent = Spent()
        self._workers = cores() if workers is None else workers
        self._paths = [str(path) for path in images.full_paths()]
        self._boxes = images.table["box"].to_list()
        if cache is None:
            self._own = tempfile.TemporaryDirectory(prefix="resight-spatial-")
            cache = Path(self._own.name)
        what = _key(images, options)
        how = {name: getattr(options, name) for name in _HOW}
        self._features = Path(cache) / f"features-{_short(what)}"
        self._counts = Path(cache) / f"counts-{_short(what | how)}"
        self._index = store.read_index(self._features, len(images))
        self._known = store.read_counts(self._counts)

    @property
    def bad(self) -> list[BadImage]:
        """The pictures that were looked at and can't be used, in the order of the rows."""
        return [self._index.bad[row] for row in sorted(self._index.bad)]

    def todo(self, pairs: NDArray[Any]) -> tuple[int, int]:
        """How many pictures and pairs `inliers(pairs)` would have to read and compare."""
        keys = self._missing(self._keys(pairs))
        rows = np.unique(np.stack(self._rows(keys)))
        return int((self._index.places[rows, 0] < 0).sum()), len(keys)

    def features(self, row: int) -> LocalFeatures:
        """The local features of a picture, for drawing; a bad one has none."""
        self.prepare(np.array([row]))
        place = self._index.places[row]
        return store.read_features(self._features, self._index.pieces[int(place[0])], place)

    def prepare(
        self,
        rows: NDArray[Any] | None = None,
        *,
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Read the pictures `rows` (default: all) that have not been read.

        `progress` is called with the pictures of `rows` that are there, and their number. Raises
        UserError when ALIKED's weights or library are missing.
        """
        wanted = np.arange(len(self._paths)) if rows is None else np.unique(rows)
        new = wanted[self._index.places[wanted, 0] < 0]
        done = len(wanted) - len(new)
        progress(done, len(wanted))
        if not len(new):
            return
        with processes(self._readers(len(new))) as share:
            for at in range(0, len(new), _PIECE):
                start, piece = time.perf_counter(), new[at : at + _PIECE].tolist()
                found = [one for part in share(read, self._reading(piece)) for one in part]
                store.write_piece(self._features, self._index, piece, found)
                self.spent.images += len(piece)
                self.spent.image_seconds += time.perf_counter() - start
                done += len(piece)
                progress(done, len(wanted))

    def inliers(
        self, pairs: NDArray[Any], *, progress: Progress = lambda done, total: None
    ) -> NDArray[np.int16]:
        """The inliers (P,) int16 of pairs of rows (P, 2); a bad picture has none with any other.

        (a, b) and (b, a) are one pair, compared once. `progress` is called with the different
        pairs that are done, cached ones among them, and their number; reading pictures comes
        before the first (call `prepare` to see it). Raises ValueError for a row that there isn't
        and for a pair of a picture with itself; UserError as `prepare`.
        """
        keys = self._keys(pairs)
        unique, back = np.unique(keys, return_inverse=True)
        new = self._missing(unique)
        self.prepare(np.unique(np.stack(self._rows(new))))
        done = len(unique) - len(new)
        progress(done, len(unique))
        fresh: list[NDArray[Any]] = []
        try:
            for block in self._compared(new):
                store.write_counts(self._counts, block)
                fresh.append(block)
                done += len(block)
                progress(done, len(unique))
        finally:
            if fresh:
                # New and ascending: put in between, so that millions aren't sorted anew.
                block = np.concatenate(fresh)
                places = np.searchsorted(self._known["pair"], block["pair"])
                self._known = np.insert(self._known, places, block)
        found = self._known["inliers"][np.searchsorted(self._known["pair"], unique)]
        return np.asarray(found[back.reshape(-1)], np.int16)

    def _compared(self, keys: Ints) -> Iterator[NDArray[Any]]:
        """Blocks of counts of new pairs, in ascending order."""
        if not len(keys):
            return
        with processes(self._workers if len(keys) >= _FEW[1] else 0) as share:
            for at in range(0, len(keys), _PAIRS):
                start = time.perf_counter()
                block = np.zeros(min(_PAIRS, len(keys) - at), store.COUNT)
                block["pair"] = keys[at : at + _PAIRS]
                parts = share(compare, self._comparing(block["pair"]))
                block["inliers"] = np.concatenate(list(parts))
                self.spent.pairs += len(block)
                self.spent.pair_seconds += time.perf_counter() - start
                yield block

    def _readers(self, pictures: int) -> int:
        if self.options.detector == "aliked":
            from resight.spatial.aliked import on_gpu

            if on_gpu():
                return 0
        return self._workers if pictures >= _FEW[0] else 0

    def _reading(self, rows: list[int]) -> list[Reading]:
        tasks = []
        for at in range(0, len(rows), _READING):
            part = rows[at : at + _READING]
            paths, boxes = [self._paths[r] for r in part], [self._boxes[r] for r in part]
            tasks.append(Reading(paths, boxes, self.options))
        return tasks

    def _comparing(self, keys: Ints) -> list[Comparing]:
        """Tasks that carry no more of the index than they need."""
        tasks = []
        for at in range(0, len(keys), _COMPARING):
            pairs = np.stack(self._rows(keys[at : at + _COMPARING]), axis=1)
            rows, local = np.unique(pairs, return_inverse=True)
            places = self._index.places[rows]
            pieces = {n: self._index.pieces[n] for n in np.unique(places[:, 0]).tolist()}
            local = local.reshape(pairs.shape)
            tasks.append(Comparing(self._features, pieces, places, local, self.options))
        return tasks

    def _keys(self, pairs: NDArray[Any]) -> Ints:
        """One number a pair, smaller row first."""
        pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
        rows = len(self._paths)
        if len(pairs) and not 0 <= pairs.min() <= pairs.max() < rows:
            raise ValueError(f"pairs name rows {pairs.min()} to {pairs.max()} of {rows}")
        if (pairs[:, 0] == pairs[:, 1]).any():
            raise ValueError("a pair of a picture with itself")
        return np.asarray(pairs.min(axis=1) * rows + pairs.max(axis=1))

    def _rows(self, keys: Ints) -> tuple[Ints, Ints]:
        low, high = np.divmod(keys, max(1, len(self._paths)))
        return low, high

    def _missing(self, keys: Ints) -> Ints:
        """The different keys whose counts aren't known, ascending."""
        keys, known = np.unique(keys), self._known["pair"]
        if not len(known):
            return keys
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.asarray(keys[known[place] != keys])


def _key(images: ImageSet, options: SpatialOptions) -> dict[str, Any]:
    """All that features depend on."""
    unlabelled = replace(images, table=normalise(images.table.select("path", "box")))
    what = {name: getattr(options, name) for name in _WHAT}
    if options.weights is not None:
        try:
            what["weights"] = hashlib.sha256(Path(options.weights).read_bytes()).hexdigest()
        except FileNotFoundError:
            raise UserError(
                f"{options.weights}: no such file; aliked-n16.pth was expected here"
            ) from None
    return what | {"images": unlabelled.fingerprint(), "version": _VERSION}


def _short(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
