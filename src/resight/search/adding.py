"""Adding images to a gallery: only what is new or changed, each content once.

    known place, same size and time ──▶ labels compared, nothing read
    left out before, same file      ──▶ left out again, and said
    else: read                      ──▶ content known: moved, touched, or a copy
                                    ──▶ content new: embedded, kept

What was kept is durable block by block, so that a call that was killed goes on when made again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resight.checksums import file_sum
from resight.data.addresses import absolute, is_address
from resight.data.decode import BadImage
from resight.data.imageset import ImageSet
from resight.errors import UserError
from resight.search.editing import CONFLICT, COPY, REMOVED, UNUSABLE, change
from resight.search.engines.contract import Box, Engine, LeftOut, Place, Row
from resight.search.files_seen import Seen, look, look_at_all, stamp
from resight.search.incoming import AWAY, full_path, relabel, root_for, rows_of, told_anew

if TYPE_CHECKING:
    from resight.features.options import EmbedOptions
    from resight.features.store import Features
    from resight.models.export.choose import Network

BLOCK = 256
Progress = Callable[[int, int], None]
Tell = Callable[[str], None]


@dataclass
class Added:
    """What an `add` did, by path: `added` and `replaced` were embedded, `relabelled` have other
    labels or another place, `unchanged` were there; `copies` and `conflicts` are (path, the image
    it is a copy of): under the same object, and under another; `left_out` were removed before;
    `removed` are gone from the source (sync); `bad` are (path, reason)."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    relabelled: list[str] = field(default_factory=list)
    unchanged: int = 0
    copies: list[tuple[str, str]] = field(default_factory=list)
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """The number of each, for JSON."""
        return {k: v if isinstance(v, int) else len(v) for k, v in vars(self).items()}


@dataclass
class _Todo:
    """A row of the source that has to be read: what it will be, and what is known of it."""

    at: int  # row of the source
    path: str
    row: Row
    box: Box | None
    stamp: tuple[int, int] | None


class Adding:
    """One `add`: the source's rows against what the gallery has."""

    def __init__(self, engine: Engine, images: ImageSet, *, duplicates: str, again: bool):
        self.engine, self.images = engine, images
        self.duplicates, self.again = duplicates, again
        self.paths = [absolute(path) for path in images.full_paths()]
        self.root = root_for(engine, images, self.paths)
        self.report = Added()
        self._labelled = images.has("object") if len(images) else False
        self._twins: list[tuple[_Todo, str]] = []
        self._touched: list[Row] = []
        self._rows = list(rows_of(images, self.paths, self.root))

    def todo(self) -> list[_Todo]:
        """The rows that have to be read; those that are known are settled."""
        todo: list[_Todo] = []
        for start in range(0, len(self._rows), 2000):
            todo += self._compared(start, self._rows[start : start + 2000])
        by_place = {one.row.place: one for one in reversed(todo)}  # a source may say it twice
        return self._without_copies([one for one in todo if by_place[one.row.place] is one])

    def _compared(self, start: int, rows: Sequence[Row]) -> Iterator[_Todo]:
        places = [row.place for row in rows if row.place is not None]
        known, left = self.engine.known(places), self.engine.left_out(places)
        relabelled: list[Row] = []
        for at, row in enumerate(rows, start):
            place = row.place
            assert place is not None
            path, found = self.paths[at], stamp(self.paths[at])
            old, out = known.get(place), left.get(place)
            if old is not None and not self._labelled:  # a source that says nothing of objects
                row = replace(row, given=old.given)
            if old is not None and (found is None or found == (old.bytes, old.mtime)):
                if told_anew(old, row):
                    relabelled.append(relabel(old, row))
                    self.report.relabelled.append(path)
                else:
                    self.report.unchanged += 1
            elif out is not None and self._as_left(out, path, found) and self._stays_out(out, path):
                continue
            else:
                if old is not None:
                    row = replace(relabel(old, row), content=old.content)
                yield _Todo(at, path, row, place.box, found)
        if relabelled:
            self._put(relabelled)

    def _as_left(self, out: LeftOut, path: str, found: tuple[int, int] | None) -> bool:
        """Whether a file is as it was left out; an address stands for what lies there."""
        return is_address(path) or found == (out.bytes, out.mtime)

    def _stays_out(self, out: LeftOut, path: str) -> bool:
        """Whether a file that was left out before is left out again; then it is reported."""
        if out.reason == REMOVED:
            if not self.again:
                self.report.left_out.append(path)
            return not self.again
        if out.reason in (COPY, CONFLICT):
            of = self.engine.rows([out.of]) if out.of else []
            if not of or not _there(self.named(of[0])) or self.duplicates == "keep":
                return False  # the other one is gone
            return self._copy_of(path, of[0], out.reason)
        self.report.bad.append((path, out.reason.removeprefix(f"{UNUSABLE}: ")))
        return True

    def _copy_of(self, path: str, row: Row, reason: str) -> bool:
        other = self.named(row)
        (self.report.copies if reason == COPY else self.report.conflicts).append((path, other))
        return True

    def _without_copies(self, todo: list[_Todo]) -> list[_Todo]:
        """Files whose size is that of another are read for their content first: what turns out
        to be known needs no network."""
        times: dict[int, int] = {}
        for one in todo:
            if one.stamp is not None:
                times[one.stamp[0]] = times.get(one.stamp[0], 0) + 1
        sizes = self.engine.sizes(times) if times else set()
        left: list[_Todo] = []
        first: dict[tuple[str, Box | None], _Todo] = {}
        for one in todo:
            if one.stamp is None or (one.stamp[0] not in sizes and times[one.stamp[0]] == 1):
                left.append(one)
                continue
            try:
                content = file_sum(one.path)
            except OSError:
                left.append(one)  # reading it will say what is wrong
                continue
            if self._known_content(one, content):
                continue
            twin = first.setdefault((content, one.box), one)
            if twin is one or self.duplicates == "keep":
                left.append(one)
            else:
                self._twins.append((one, content))
        for start in range(0, len(self._touched), 2000):  # a folder that was copied: all of them
            self._put(self._touched[start : start + 2000])
        return left

    def _known_content(self, one: _Todo, content: str) -> bool:
        """Settle a file whose content the gallery has; whether it has."""
        row = replace(one.row, content=content)
        if one.stamp is not None:
            row = replace(row, bytes=one.stamp[0], mtime=one.stamp[1])
        if one.row.id and one.row.content == content:  # touched, not changed
            self._touched.append(row)
            self.report.unchanged += 1
            return True
        if self.duplicates == "keep":
            return False
        others = [
            other
            for other in self.engine.by_content([content])
            if (other.place.box if other.place else None) == one.box and other.id != one.row.id
        ]
        if not others:
            return False
        gone = [other for other in others if not _there(self.named(other))]
        if gone and not one.row.id:  # the file was moved or renamed
            moved = relabel(gone[0], row)
            self._put([replace(moved, place=row.place, bytes=row.bytes, mtime=row.mtime)])
            self.report.relabelled.append(one.path)
            return True
        self._leave_copy(one, content, others[0])
        return True

    def _leave_copy(self, one: _Todo, content: str, of: Row) -> None:
        reason = COPY if one.row.object in (None, of.object) else CONFLICT
        assert one.row.place is not None
        if of.object is None and of.given is None and one.row.object is not None:
            of = replace(of, object=one.row.object, given=one.row.object)  # now it is known
            self._put([of])
            reason = COPY
        size, mtime = one.stamp or (None, None)
        entry = LeftOut(one.row.place, size, mtime, content, reason, of.id)
        with self.engine.writing("adding images") as writer:
            if one.row.id:  # the file has become a copy of another
                change(self.engine, writer, delete=[one.row.id])
            writer.leave_out([entry])
        self._copy_of(one.path, of, reason)

    def twins(self) -> None:
        """Files of this source with one content: the first was kept, the others are copies."""
        for one, content in self._twins:
            of = [r for r in self.engine.by_content([content]) if r.id != one.row.id]
            if of:  # else the first one could not be used
                self._leave_copy(one, content, of[0])

    def keep(self, part: Sequence[_Todo], vectors: Any, seen: Sequence[Seen | None]) -> None:
        """Put a block of embedded rows, in one transaction."""
        rows = []
        for one, vector, file in zip(part, vectors, seen, strict=True):
            of_file: dict[str, Any] = {}
            if file is not None:
                of_file = vars(file)
            elif one.stamp is not None:
                of_file = {"bytes": one.stamp[0], "mtime": one.stamp[1]}
            rows.append(replace(one.row, vector=np.array(vector, np.float32), **of_file))
        with self.engine.writing("adding images") as writer:
            places = [row.place for row in rows if row.place is not None]
            known = self.engine.known(places)  # another writer may have been here
            rows = [
                replace(row, id=known[row.place].id) if row.place in known else row for row in rows
            ]
            late = self._late_copies(rows)
            rows = [row for row in rows if row.place not in late]
            change(self.engine, writer, put=rows)
            writer.take_back([row.place for row in rows if row.place is not None])
        ids = {row.place: row.id for row in rows}
        for one in part:
            if one.row.place in late:
                self._twins.append((one, late[one.row.place]))
            else:
                replaced = bool(ids[one.row.place])
                (self.report.replaced if replaced else self.report.added).append(one.path)

    def _late_copies(self, rows: Sequence[Row]) -> dict[Place | None, str]:
        """Places of new rows whose content another writer has brought meanwhile."""
        if self.duplicates == "keep":
            return {}
        contents = [row.content for row in rows if row.content is not None and not row.id]
        there = {
            (row.content, row.place.box if row.place else None)
            for row in self.engine.by_content(contents)
        }
        late: dict[Place | None, str] = {}
        for row in rows:
            if row.id or not row.content or not row.place:
                continue
            if (row.content, row.place.box) in there:
                late[row.place] = row.content
            elif is_address(row.place.path):  # of two in this block, none was read before
                there.add((row.content, row.place.box))
        return late

    def refuse(self, one: _Todo, reason: str) -> None:
        """A file that can't be used: reported, and remembered until it changes."""
        self.report.bad.append((one.path, reason))
        if one.stamp is not None and one.row.place is not None and not one.row.id:
            entry = LeftOut(one.row.place, *one.stamp, None, f"{UNUSABLE}: {reason}")
            with self.engine.writing("adding images") as writer:
                writer.leave_out([entry])

    def sync(self, folder: Path) -> None:
        """Remove the images below `folder` that the source no longer has."""
        here = {row.place for row in self._rows}
        if self.root.path == AWAY:
            prefix = _common(self.paths)
        else:
            below = os.path.relpath(folder, self.root.path).replace(os.sep, "/")
            prefix = "" if below == "." else f"{below}/"
        gone: list[Row] = []
        ids = self.engine.ids()
        for start in range(0, len(ids), 2000):
            for row in self.engine.rows(ids[start : start + 2000]):
                place = row.place
                if place is None or place.root != self.root.id or place in here:
                    continue
                if place.path.startswith(prefix):
                    gone.append(row)
        if gone:
            with self.engine.writing("removing images") as writer:
                change(self.engine, writer, delete=[row.id for row in gone])
        self.report.removed += [self.named(row) for row in gone]

    def named(self, row: Row) -> str:
        """The full path of a kept image."""
        return full_path(row, {root.id: root for root in self.engine.roots()})

    def _put(self, rows: Sequence[Row]) -> None:
        with self.engine.writing("adding images") as writer:
            change(self.engine, writer, put=rows)


def _there(path: str) -> bool:
    return is_address(path) or os.path.exists(path)


def add_images(
    engine: Engine,
    source: ImageSet | Features,
    embedder: Callable[[int], Network | None],
    *,
    duplicates: str = "skip",
    again: bool = False,
    sync: Path | None = None,
    options: EmbedOptions | None = None,
    progress: Progress = lambda done, total: None,
) -> Added:
    """Bring a gallery up to date with a source.

    `embedder`: gives what embeds so many images, asked for only where there are any. `sync`: the
    folder that what is gone is gone from.

    Raises UserError: nothing to embed with; vectors of another length; `options.strict` and a bad
    image.
    """
    images = source if isinstance(source, ImageSet) else source.images
    adding = Adding(engine, images, duplicates=duplicates, again=again)
    todo = adding.todo()
    strict = options is not None and options.strict
    if todo and isinstance(source, ImageSet):
        network = embedder(len(todo))
        if network is None:
            raise UserError("this gallery has no embedder: it takes features and vectors only")
        blocks = _embedded(network, images, todo, options)
    else:
        blocks = _given(source, todo)  # type: ignore[arg-type]
    done = len(images) - len(todo)
    progress(done, len(images))
    dim = engine.meta().get("dim")
    for part, vectors, seen, faults in blocks:
        good = []
        usual = len(vectors) > 0 and (dim is None or vectors.shape[1] == dim)
        fine = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1) if usual else None
        for at, one in enumerate(part):
            reason = faults.get(at)
            if reason is None and (fine is None or not fine[at]):
                reason = fault_of(vectors[at], dim)
            if reason is None:
                good.append(at)
                continue
            if strict:
                raise UserError(f"{one.path}: {reason} (--strict stops at the first bad image)")
            adding.refuse(one, reason)
        if good:
            dim = dim or vectors.shape[1]
            adding.keep([part[n] for n in good], vectors[good], [seen[n] for n in good])
        done += len(part)
        progress(done, len(images))
    adding.twins()
    if sync is not None:
        adding.sync(sync)
    return adding.report


def _common(addresses: Sequence[str]) -> str:
    """The folder that all addresses are below, with its slash. Raises UserError for none."""
    low, high = min(addresses).split("/"), max(addresses).split("/")
    same = takewhile(lambda parts: parts[0] == parts[1], zip(low[:-1], high, strict=False))
    start = "".join(f"{part}/" for part, _ in same)
    if start.count("/") < 3:
        raise UserError("--sync: these addresses are on several hosts; sync them one by one")
    return start


def fault_of(vector: Any, dim: int | None) -> str | None:
    """What is wrong with a vector (D,), if anything."""
    if dim is not None and len(vector) != dim:
        return f"its vector has {len(vector)} dimensions, the gallery's {dim}"
    if not np.isfinite(vector).all():
        return "its vector is not of finite numbers"
    return None if np.any(vector) else "its vector is zero"


_Block = tuple[Sequence[_Todo], Any, Sequence[Seen | None], dict[int, str]]


def _embedded(
    embedder: Network, images: ImageSet, todo: list[_Todo], options: EmbedOptions | None
) -> Iterator[_Block]:
    from resight.features.compute import EmbedOptions, embed_blocks

    options = replace(options or EmbedOptions(), strict=False)  # we say it, with what was kept
    wanted = images.rows([one.at for one in todo])
    for block in embed_blocks(embedder, wanted, BLOCK, options=options, aside=look):
        part = todo[block.start : block.start + len(block.vectors)]
        faults = {row - block.start: error.reason for row, error in block.bad}
        seen = [block.aside.get(block.start + n) for n in range(len(part))]
        yield part, block.vectors, seen, faults


def _given(features: Features, todo: list[_Todo]) -> Iterator[_Block]:
    for start in range(0, len(todo), BLOCK):
        part = todo[start : start + BLOCK]
        rows = np.array([one.at for one in part])
        found = look_at_all([one.path for one in part], [one.box for one in part])
        seen = [one if isinstance(one, Seen) else None for one in found]
        faults = {
            n: "its features are marked as unusable"
            for n, good in enumerate(features.valid[rows])
            if not good
        }
        faults |= {n: one.reason for n, one in enumerate(found) if isinstance(one, BadImage)}
        yield part, np.asarray(features[rows], np.float32), seen, faults
